"""How methods and schedules are written, and what a user is expected who writes them wrongly."""

from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench.errors import UserError, did_you_mean
from tokbench.notation import Call, bind, parameters_text, parse_call, split_list


def method(
    algorithm: Literal["kmeans", "kmedoids"] = "kmedoids",
    weighted: bool = True,
    iterations: int = 5,
    ratio: float = 0.5,
    label: str = "x",
    limit: int | None = None,
) -> None:
    """A function with parameters of every kind that methods have."""


def error_message(function, *arguments):
    """The error message, which must be one line."""
    with pytest.raises(UserError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert message
    assert len(message.splitlines()) == 1
    return message


# Lists


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("", []),
        (" , ,", []),
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        (" a , b,", ["a", "b"]),
        ("a(x=1,y=2),b", ["a(x=1,y=2)", "b"]),
        ("a,b(x=1,y=2)", ["a", "b(x=1,y=2)"]),
        ("a(x=1,y=2),b(z=3,w=4),c", ["a(x=1,y=2)", "b(z=3,w=4)", "c"]),
        ("a(),b", ["a()", "b"]),
        ("a(x=(1,2)),b", ["a(x=(1,2))", "b"]),
        ("a(x=(1,2),y=3),b", ["a(x=(1,2),y=3)", "b"]),
        ("a(y=3,x=(1,2)),b", ["a(y=3,x=(1,2))", "b"]),
        ("a(u=1,v=f(2),w=3),b", ["a(u=1,v=f(2),w=3)", "b"]),
        ("a(x=[1,2]),b", ["a(x=[1,2])", "b"]),
        ("a(x=(1,[2,3])),{1,2},b", ["a(x=(1,[2,3]))", "{1,2}", "b"]),
        ("a(x='1),2'),b", ["a(x='1),2')", "b"]),
        ("'a,b',\"c,d\"", ["'a,b'", '"c,d"']),
        ("o'brien,o'neill", ["o'brien", "o'neill"]),
        ("a),b(x=1,y=2)", ["a)", "b(x=1,y=2)"]),
    ],
)
def test_commas_split_a_list_but_not_inside_brackets_or_quotes(text, items):
    assert split_list(text) == items


CALLS = st.recursive(
    st.sampled_from(["a", "bc", "d1"]),
    lambda inner: st.tuples(st.sampled_from(["f", "g"]), st.lists(inner, max_size=3)).map(
        lambda call: f"{call[0]}({','.join(call[1])})"
    ),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(CALLS, max_size=4))
def test_a_joined_list_can_be_split_again(items):
    assert split_list(",".join(items)) == items


# Calls


@pytest.mark.parametrize(
    ("text", "call"),
    [
        ("tome", Call("tome", (), {})),
        ("  tome ", Call("tome", (), {})),
        ("tome()", Call("tome", (), {})),
        ("tome( r = 13 )", Call("tome", (), {"r": "13"})),
        ("m(a=kmeans,b=false,c=0.5)", Call("m", (), {"a": "kmeans", "b": "false", "c": "0.5"})),
        ("stages(at=3-6-9)", Call("stages", (), {"at": "3-6-9"})),
        ("m(a='kmeans', b=\"x y\")", Call("m", (), {"a": "kmeans", "b": "x y"})),
        ("m(a=-1,b=1e-3)", Call("m", (), {"a": "-1", "b": "1e-3"})),
        ("budget(0.7)", Call("budget", ("0.7",), {})),
        ("f(3-6,x=2)", Call("f", ("3-6",), {"x": "2"})),
        ("m(x=/tmp/b.pt)", Call("m", (), {"x": "/tmp/b.pt"})),
        ("m(x=a-b.pt,y=../c_d/e.pt)", Call("m", (), {"x": "a-b.pt", "y": "../c_d/e.pt"})),
        ("m(x=lr=0.1/o'brien.pt)", Call("m", (), {"x": "lr=0.1/o'brien.pt"})),
        ("m(x=(3, 9),y=[3,6])", Call("m", (), {"x": "(3,9)", "y": "[3,6]"})),
        ("m(x=[(1,2),['a, b']])", Call("m", (), {"x": "[(1,2),['a, b']]"})),
        ("m(x=3,6,9,y=1)", Call("m", (), {"x": "3,6,9", "y": "1"})),
        ("m(x='a,b',y='(')", Call("m", (), {"x": "a,b", "y": "("})),
        (r"m(x='it\'s',y='C:\data')", Call("m", (), {"x": "it's", "y": r"C:\data"})),
        ("m(x=none,y=None,z='')", Call("m", (), {"x": "none", "y": "None", "z": ""})),
        ("m(" + "(" * 3000 + ")" * 3000 + ")", Call("m", ("(" * 3000 + ")" * 3000,), {})),
    ],
)
def test_a_call_is_parsed_with_its_values_as_text(text, call):
    assert parse_call(text) == call


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "3",
        "a b",
        "a(",
        "a)",
        "a(x=)",
        "a.b",
        "a.b(x=1)",
        "a(x=1,x=2)",
        "a(**x)",
        "a()()",
        "a;b",
        "a(\n",
        "a\nb",
        "a(x=b c)",
        "a(x=(b c))",
        "a(x='b)",
        "a(x='b''c')",
        "a(x='b','c')",
        "a(x=[3,6)",
        "a(x=b\0c)",
        "a\0",
        "a(" * 50_000,
        "a+" * 50_000 + "a",
        "-" * 50_000 + "a",
    ],
    ids=lambda text: text[:12],
)
def test_invalid_notation_is_rejected_in_one_line(text):
    message = error_message(parse_call, text)
    assert "name(parameter=value" in message
    assert len(message) < 200


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.text()), st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]*", fullmatch=True), st.text()))
def test_a_written_call_is_read_as_the_same(positional, named):
    call = Call("m", tuple(positional), named)
    assert parse_call(str(call)) == call
    assert split_list(f"{call},{call}") == [str(call)] * 2


PARTS = st.lists(st.sampled_from(list("ab3,=-./'\"()[]{} \\*")), max_size=12).map("".join)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(PARTS)
def test_any_text_is_read_the_same_again_or_rejected(text):
    try:
        call = parse_call(f"m({text})")
    except UserError:
        return
    assert parse_call(str(call)) == call


# Binding


def test_missing_values_have_their_defaults():
    assert bind(method, {}, "method 'm'") == {
        "algorithm": "kmedoids",
        "weighted": True,
        "iterations": 5,
        "ratio": 0.5,
        "label": "x",
        "limit": None,
    }


@pytest.mark.parametrize(
    ("name", "given_value", "value"),
    [
        ("weighted", "true", True),
        ("weighted", "false", False),
        ("weighted", "True", True),
        ("weighted", False, False),
        ("iterations", "3", 3),
        ("iterations", 3, 3),
        ("ratio", "0.25", 0.25),
        ("ratio", "1", 1.0),
        ("ratio", 1, 1.0),
        ("label", "3x", "3x"),
        ("algorithm", "kmeans", "kmeans"),
        ("limit", "7", 7),
        ("limit", None, None),
    ],
)
def test_text_is_converted_to_the_annotated_type(name, given_value, value):
    bound = bind(method, {name: given_value}, "method 'm'")[name]
    assert bound == value
    assert type(bound) is type(value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weighted", "maybe"),
        ("iterations", "three"),
        ("iterations", "2.5"),
        ("iterations", "two\nlines"),
        ("ratio", "half"),
        ("algorithm", "ward"),
        ("algorithm", ["kmeans"]),
        ("limit", "all"),
    ],
)
def test_a_value_of_the_wrong_type_is_reported_in_one_line(name, value):
    message = error_message(bind, method, {name: value}, "method 'm'")
    assert message.startswith("method 'm': ")
    assert name in message
    assert repr(value) in message


def test_an_invalid_choice_lists_the_choices():
    message = error_message(bind, method, {"algorithm": "ward"}, "method 'm'")
    assert "'kmeans'" in message
    assert "'kmedoids'" in message


def test_an_unknown_parameter_lists_the_known_ones():
    message = error_message(bind, method, {"weigthed": "true"}, "method 'm'")
    assert "'weigthed'" in message
    assert all(name in message for name in ("algorithm", "weighted", "iterations", "ratio"))


def test_a_parameter_of_a_function_without_parameters_is_rejected():
    def plain() -> None: ...

    assert "no parameters" in error_message(bind, plain, {"x": "1"}, "method 'm'")


def test_a_missing_parameter_is_reported():
    def strict(size: int) -> None: ...

    assert "size" in error_message(bind, strict, {}, "method 'm'")


def test_a_class_is_bound_by_its_constructor():
    class Thing:
        def __init__(self, path: Path, n: int = 1) -> None: ...

    assert bind(Thing, {"path": "a/b"}, "thing") == {"path": Path("a/b"), "n": 1}


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    st.sampled_from(["kmeans", "kmedoids"]),
    st.booleans(),
    st.integers(-10, 10),
    st.floats(-10, 10, allow_nan=False),
    st.integers(-5, 5),
)
def test_the_parameters_of_the_table_can_be_parsed_again(algorithm, weighted, iterations, ratio, limit):
    bound = bind(
        method,
        {"algorithm": algorithm, "weighted": weighted, "iterations": iterations, "ratio": ratio, "limit": limit},
        "method 'm'",
    )
    call = parse_call(f"m({parameters_text(bound)})")
    assert bind(method, call.named, "method 'm'") == bound


def test_a_parameter_that_is_none_can_be_parsed_again():
    call = parse_call(f"m({parameters_text({'limit': None})})")
    assert bind(method, call.named, "method 'm'")["limit"] is None


def test_parameters_are_sorted():
    assert parameters_text({"weighted": True, "algorithm": "kmeans"}) == "algorithm=kmeans,weighted=true"
    assert parameters_text({}) == ""


def test_did_you_mean_suggests_a_similar_name_or_lists_all():
    assert did_you_mean("tomee", ["tome", "evit"]) == "did you mean 'tome'?"
    assert did_you_mean("zzz", ["tome", "evit"]) == "known: evit, tome"
    assert did_you_mean("zzz", []) == "known: none"


def test_did_you_mean_suggests_names_that_contain_the_word():
    assert did_you_mean("random", ["tome", "random_selection"]) == "did you mean 'random_selection'?"
    names = ["grid_pooling", "pool_of_tokens", "token_pooling", "pooling_mean_max", "deep_token_pooling"]
    assert did_you_mean("pool", names) == "did you mean 'pool_of_tokens' or 'pooling_mean_max' or 'grid_pooling'?"
    assert did_you_mean("oo", ["token_pooling"]) == "known: token_pooling"
    assert did_you_mean("", ["token_pooling"]) == "known: token_pooling"
