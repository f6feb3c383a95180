"""Parameters of every type that can be written: from text, to text, hashed, in JSON; and those that cannot be."""

import enum
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal, NewType, Optional

import pydantic
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plugin_files import error_message

from tokbench.notation import bind, parameters_text, parse_call, split_list, split_parameters
from tokbench.parameters import parameters_of
from tokbench.values import freeze, json_value, unquoted

Size = NewType("Size", int)


class How(enum.Enum):
    A = "a"
    B = (1, 2)


class Level(enum.IntEnum):
    LOW = 0
    HIGH = 1


class Word(enum.StrEnum):
    NONE = "x"
    OTHER = "y"


def taking(hint: Any, *default: Any) -> Callable[..., None]:
    """A function with one parameter."""

    def function(x) -> None: ...

    function.__annotations__ = {"x": hint}
    function.__defaults__ = default or None
    return function


def bound(hint: Any, value: Any) -> Any:
    return bind(taking(hint), {"x": value}, "method 'm'")["x"]


# From text


@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (list[int], "[3,6]", [3, 6]),
        (list[int], "(3,6)", [3, 6]),
        (tuple[int, ...], "[3,6]", (3, 6)),
        (tuple[int, ...], "(3,)", (3,)),
        (tuple[int, ...], "()", ()),
        (tuple[int, str], "(3, 'a,b')", (3, "a,b")),
        (tuple[float, float], "(1, 2)", (1.0, 2.0)),
        (set[str], "{a,b}", {"a", "b"}),
        (frozenset[int], "[1,1]", frozenset({1})),
        (dict[str, int], "{a:1,'b:c':2}", {"a": 1, "b:c": 2}),
        (dict[int, list[int]], "{1:[2,3],2:[]}", {1: [2, 3], 2: []}),
        (Sequence[int], "[3,6]", (3, 6)),
        (Iterable[int], "[3,6]", (3, 6)),
        (Collection[str], "(a,b)", ("a", "b")),
        (Mapping[str, bool], "{a:true}", {"a": True}),
        (list[list[int]], "[[1,2],(3,)]", [[1, 2], [3]]),
        (list[int | None], "[1,None,none]", [1, None, None]),
        (list, "[1,0.5,a,true,None]", [1, 0.5, "a", True, None]),
        (list[Path], "['/tmp/a b.pt',c]", [Path("/tmp/a b.pt"), Path("c")]),
        (list[How], "[A,B]", [How.A, How.B]),
        (Path, "/tmp/b.pt", Path("/tmp/b.pt")),
        (str | Path, "/tmp/b.pt", "/tmp/b.pt"),
        (Path | str, "/tmp/b.pt", Path("/tmp/b.pt")),
        (How, "A", How.A),
        (How, "a", How.A),
        (How, "B", How.B),
        (Level, "LOW", Level.LOW),
        (Level, "0", Level.LOW),
        (Word, "NONE", Word.NONE),
        (list[int] | None, "none", None),
        (Optional[list[int]], "[1]", [1]),  # noqa: UP045 - as people write it too
        (Literal[1, 2], "2", 2),
        (Literal["none", "mean"], "none", "none"),
        (Literal[True, "auto"], "true", True),
        (Literal[How.A, None], "A", How.A),
        (Literal["a", None], "none", None),
        (Literal["none", "a"] | None, "none", "none"),
        (str | None, "None", None),
        (str | None, "none", None),
        (int | str, "3", 3),
        (str | int, "three", "three"),
        (int | float, "1.0", 1.0),
        (int | float, "1", 1),
        (bool | int, "1", 1),
        (bool | int, "true", True),
        (float | Literal["auto"], "auto", "auto"),
        (float, "inf", float("inf")),
        (Size, "3", 3),
        (Annotated[list[int], pydantic.Field(max_length=2)], "[3,6]", [3, 6]),
        (str, "[3,6]", "[3,6]"),
    ],
)
def test_text_becomes_a_value_of_the_annotated_type(hint: Any, text: str, value: Any) -> None:
    got = bound(hint, text)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("hint", "text"),
    [
        (list[int], "3"), (list[int], "[a]"), (list[int], "[1,2"), (tuple[int, int], "(1,2,3)"),
        (tuple[int, int], "[1]"),
        (dict[str, int], "{a}"), (dict[str, int], "[a]"), (How, "C"), (Level, "2"), (Literal[1, 2], "3"),
        (list[int] | None, "all"), (Annotated[list[int], pydantic.Field(max_length=1)], "[3,6]"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_reported_in_one_line_with_the_parameter(hint: Any, text: str) -> None:
    assert error_message(bind, taking(hint), {"x": text}, "method 'm'").startswith("method 'm': x")


@pytest.mark.parametrize("value", [[3, 6], (3, 6), {"at": [1]}.get("at"), [3]])
def test_lists_of_toml_and_python_become_what_the_annotation_says(value: Any) -> None:
    assert bound(list[int], value) == list(value)
    assert bound(tuple[int, ...], value) == tuple(value)


# To text and back

TEXTS = st.text(max_size=6) | st.text("abz_-/.+,=:'\"()[]{} 0123", max_size=8) | st.sampled_from(
    ["none", "None", "true", "inf", "3", "a.b", "a/b", "k-means", "a-08", "lambda", "/tmp/x.pt", "a,b=3", "\\", "'"]
)  # fmt: skip
SCALARS: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(),
    float: st.floats(allow_nan=False),
    str: TEXTS,
    Path: TEXTS.map(Path),
    How: st.sampled_from(How),
    Level: st.sampled_from(Level),
    Literal[1, "one", True, None]: st.sampled_from([1, "one", None]),
    int | None: st.none() | st.integers(),
}


def typed(scalar: tuple[Any, st.SearchStrategy[Any]]) -> st.SearchStrategy[tuple[Any, Any]]:
    hint, values = scalar
    hashable = st.lists(values, max_size=3)
    forms = {
        hint: values,
        list[hint]: hashable,
        tuple[hint, ...]: hashable.map(tuple),
        tuple[hint, int]: st.tuples(values, st.integers()),
        frozenset[hint]: hashable.map(frozenset),
        set[hint]: hashable.map(set),
        dict[str, hint]: st.dictionaries(TEXTS, values, max_size=3),
        dict[hint, list[hint]]: st.dictionaries(values, hashable, max_size=2),
        list[list[hint]]: st.lists(hashable, max_size=3),
        tuple[hint, ...] | None: st.none() | hashable.map(tuple),
    }
    return st.sampled_from(list(forms)).flatmap(lambda form: st.tuples(st.just(form), forms[form]))


TYPED = st.sampled_from(list(SCALARS.items())).flatmap(typed)


def equal(one: Any, other: Any) -> bool:
    return repr(one) == repr(other) or (type(one) is type(other) and one == other)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(TYPED, TEXTS)
def test_what_the_table_shows_is_read_as_the_same_value(case: tuple[Any, Any], other: str) -> None:
    hint, value = case
    text = parameters_text({"x": value, "a": other})
    split = split_parameters(text)
    assert list(split) == ["a", "x"]
    assert parameters_text(split) == text
    assert unquoted(split["a"]) == other
    assert equal(bound(hint, unquoted(split["x"])), value)
    assert len(split_list(f"m({text})")) <= 1 or "'" in text  # quotes may hold brackets


@settings(max_examples=400, deadline=None, derandomize=True)
@given(TEXTS)
def test_a_text_in_the_table_can_be_copied_to_a_command_line(text: str) -> None:
    assert parse_call(f"m({parameters_text({'x': text})})").named["x"] == text


@settings(max_examples=200, deadline=None, derandomize=True)
@given(TYPED)
def test_frozen_values_hash_and_become_the_same_values_again(case: tuple[Any, Any]) -> None:
    hint, value = case
    frozen = freeze(value)
    assert hash(frozen) == hash(freeze(value))
    assert equal(bound(hint, frozen), value)
    assert parameters_text({"x": frozen}) == parameters_text({"x": value})
    text = json.dumps(json_value(frozen), allow_nan=False)
    assert text == json.dumps(json_value(value), allow_nan=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([3, 6], "[3,6]"), ((3, 9), "[3,9]"), ({"b", "a"}, "{a,b}"), ({"a": 1}, "{a:1}"), (Path("a.pt"), "a.pt"),
        (Path("/tmp/a.pt"), "'/tmp/a.pt'"), (How.B, "B"), (Word.NONE, "NONE"), (None, "None"), (True, "true"),
        ("3-6-9", "3-6-9"),
        (float("-inf"), "-inf"), ("kmeans", "kmeans"), ("two words", "'two words'"), ("3", "'3'"), ([None, "None"],
        "[None,'None']"), (object(), "<object>"), ([torch.relu], "[<builtin_function_or_method>]"),
    ],
)  # fmt: skip
def test_values_are_shown_without_addresses(value: Any, text: str) -> None:
    assert parameters_text({"x": value}) == f"x={text}"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (float("inf"), "inf"), (float("nan"), "nan"), (Path("a"), "a"), (How.B, "B"), ({1: (2, float("inf"))},
        {"1": [2, "inf"]}), ({"b", "a"}, ["a", "b"]), (object(), "<object>"), (0.5, 0.5), (None, None), (True, True),
    ],
)  # fmt: skip
def test_json_has_text_for_what_it_lacks(value: Any, written: Any) -> None:
    assert json_value(value) == written
    json.dumps(json_value(value), allow_nan=False)


def test_the_parameters_of_older_tables_are_still_split() -> None:
    assert split_parameters("a=x,y,b=[1, 2],c=(3, 4),d=it's,e=1") == {
        "a": "x,y", "b": "[1, 2]", "c": "(3, 4)", "d": "it's", "e": "1",
    }  # fmt: skip
    assert split_parameters("") == {}


# Declared in other ways


def test_defaults_are_of_the_annotated_type() -> None:
    assert bind(taking(float, 1), {}, "m") == {"x": 1.0}
    assert type(bind(taking(float, 1), {}, "m")["x"]) is float
    default = [3, 6]
    own = bind(taking(list[int], default), {}, "m")["x"]
    own.append(9)
    assert default == [3, 6]


@pytest.mark.parametrize(
    ("default", "text", "value"),
    [(0.5, "1", 1.0), ((3, 6), "[9]", (9,)), ([], "[a,1]", ["a", 1]), (True, "false", False)],
)
def test_without_an_annotation_the_default_gives_the_type(default: Any, text: str, value: Any) -> None:
    def function(x=default) -> None: ...

    for hint in (Any, "Nowhere", "Nowhere[int]"):
        assert bind(taking(hint, default), {"x": text}, "m") == {"x": value}
    assert bind(function, {"x": text}, "m") == {"x": value}


def test_none_as_the_default_makes_the_type_optional() -> None:
    assert bind(taking(int, None), {}, "m") == {"x": None}
    assert bind(taking(int, None), {"x": "3"}, "m") == {"x": 3}
    assert bind(taking(int, None), {"x": "none"}, "m") == {"x": None}


def test_names_imported_for_type_checkers_are_resolved(tmp_path: Path) -> None:
    from tokbench.plugins import load_file

    file = tmp_path / "typed.py"
    file.write_text(
        "from __future__ import annotations\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from collections.abc import Sequence as Seq\n    from pathlib import Path\n"
        "    from nowhere import Thing\n\n"
        "def method(x: Seq[int] = (3, 6), y: Path | None = None, z: Thing = 'a', n: int = 3): ...\n"
    )
    method = load_file(file).method
    given = {"x": "[1]", "y": "/tmp/a", "z": "b", "n": "4"}
    assert bind(method, given, "m") == {"x": (1,), "y": Path("/tmp/a"), "z": "b", "n": 4}
    assert bind(method, {}, "m") == {"x": (3, 6), "y": None, "z": "a", "n": 3}


@pytest.mark.parametrize("name", ["copy", "json", "model_config", "schema", "_own", "validate", "cls"])
def test_a_parameter_may_have_any_name(name: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"def method({name}: int = 3): ...", scope)
    assert bind(scope["method"], {name: "4"}, "m") == {name: 4}


# What cannot be a parameter


class Odd(enum.Flag):
    ONE = 1
    TWO = 2


@pytest.mark.parametrize(
    ("hint", "default"),
    [
        (torch.Tensor, None), (torch.Tensor, torch.zeros(2)), (Callable, torch.relu),
        (Callable[[int], int] | None, None),
        (ModuleType, torch), (torch.dtype, torch.float32), (object, object()), (Any, None), (Any, object()),
        ("Nowhere", None), ("Nowhere", object()), (list[torch.Tensor], []), (int, "x"), (int, 0.5), (list[int], ["a"]),
        (How, "C"), (str | None, "none"), (Odd, Odd.ONE | Odd.TWO), (3, 3), (type, int),
    ],
)  # fmt: skip
def test_what_has_no_faithful_text_is_refused_with_the_reason(hint: Any, default: Any) -> None:
    message = error_message(bind, taking(hint, default), {}, "method 'm'")
    assert message.startswith("method 'm': x cannot be a parameter: ")
    assert "0x" not in message


def test_a_parameter_without_any_type_is_refused() -> None:
    def method(x, /, y=3) -> None: ...

    assert "annotate it" in error_message(bind, lambda x=None: None, {}, "m")
    assert "by name" in error_message(bind, method, {}, "m")
    assert {name: bool(one.problem) for name, one in parameters_of(method).items()} == {"x": True, "y": False}
