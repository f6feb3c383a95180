"""Names of methods, and registering them."""

from pathlib import Path

import pytest
from plugin_files import Write, error_message, writer

from tokbench import Context, Downsampler, Tokens, create, kmeans, register, registry


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return writer(tmp_path)


# Built-in methods


def test_all_built_in_methods_are_found():
    classes, broken = registry.discover()
    assert broken == ()
    assert list(classes) == sorted(classes)
    assert {"token_pooling", "grid_pooling", "score_pruning", "random_selection", "importance_sampling"} <= set(classes)
    for name, cls in classes.items():
        assert cls.name == name
        assert issubclass(cls, Downsampler)
        assert Path(registry.source_file(cls)).is_file()


def test_create_sets_the_parameters():
    method = create("token_pooling", algorithm="kmeans", weighted="false", iterations="3")
    assert (method.name, method.cluster, method.weighted, method.iterations) == ("token_pooling", kmeans, False, 3)
    assert create("token_pooling").iterations == 5


def test_bind_parameters_includes_the_defaults():
    assert registry.bind_parameters("score_pruning", {}) == {"score": "received"}
    assert registry.bind_parameters("random_selection", {}) == {}


@pytest.mark.parametrize(
    ("name", "params", "expected"),
    [
        ("token_poolin", {}, "did you mean 'token_pooling'?"),
        ("random", {}, "did you mean 'random_selection'?"),
        ("qqq", {}, "token_pooling"),
        ("token_pooling", {"algorithm": "ward"}, "algorithm"),
        ("token_pooling", {"iterations": "many"}, "iterations"),
        ("token_pooling", {"iterations": 0}, "iterations=0: must be at least 1"),
        ("token_pooling", {"speed": 1}, "'speed'"),
        ("random_selection", {"score": "cls"}, "it has no parameters"),
    ],
)
def test_an_invalid_name_or_parameter_is_reported_in_one_line(name, params, expected):
    message = error_message(create, name, **params)
    assert expected in message
    assert f"'{name}'" in message


# Registering


def test_only_downsamplers_can_be_registered():
    with pytest.raises(TypeError, match="is for subclasses of"):
        register("thing")(int)
    with pytest.raises(TypeError, match="is for subclasses of"):
        register("thing")(lambda tokens: tokens)
    assert "thing" not in registry.discover()[0]


def test_a_name_can_be_registered_again_only_by_the_same_class():
    def define():
        @register("mine")
        class Mine(Downsampler):
            def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
                return tokens

        return Mine

    define()
    latest = define()
    assert registry.method_class("mine") is latest

    class Other(latest):
        pass

    error_message(register("mine"), Other)
    assert registry.method_class("mine") is latest


def test_an_isolated_block_restores_the_registered_methods(write: Write):
    file = write("temporary.py", "temporary")
    before, _ = registry.discover()
    with registry.isolated():
        registry.discover([file])
        assert "temporary" in registry.discover()[0]
    assert registry.discover()[0] == before
    with registry.isolated():  # the file is imported again
        assert registry.discover([file])[0].keys() - before.keys() == {"temporary"}

    def fail():
        with registry.isolated():
            registry.discover([file])
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert registry.discover()[0] == before
