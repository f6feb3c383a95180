"""Recipes: those that come with tokbench, and those of users."""

from pathlib import Path

import pytest
from plugin_files import error_message

from tokbench.finetune.recipes import RECIPES, Recipe, load_recipe


def own(folder: Path, text: str) -> str:
    file = folder / "mine.toml"
    file.write_text(text, encoding="utf-8")
    return str(file)


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipes_say_who_they_are_and_where_they_are_from(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.source.endswith(".")
    assert recipe.warm_up_epochs < recipe.epochs


def test_every_file_of_a_recipe_is_listed() -> None:
    folder = Path(load_recipe.__code__.co_filename).with_name("recipes")
    assert {file.stem for file in folder.glob("*.toml")} == set(RECIPES)


def test_a_recipe_takes_from_its_base_what_it_does_not_set(tmp_path: Path) -> None:
    recipe = load_recipe(own(tmp_path, 'base = "tps"\nepochs = 7\n'))
    changed = {"name": "mine", "source": "mine.toml, a file of the user", "epochs": 7}
    assert recipe == load_recipe("tps").model_copy(update=changed)


def test_a_recipe_without_a_base_has_the_defaults(tmp_path: Path) -> None:
    recipe = load_recipe(own(tmp_path, "epochs = 2\nbatch = 8\nlr = 0.1\n"))
    expected = Recipe(name="mine", source="mine.toml, a file of the user", epochs=2, batch=8, lr=0.1)
    assert recipe == expected


def test_overrides_go_before_the_file(tmp_path: Path) -> None:
    file = own(tmp_path, 'base = "haurum"\nlr = 0.5\n')
    recipe = load_recipe(file, {"lr": 0.25, "frozen_epochs": "all"})
    assert (recipe.lr, recipe.frozen_epochs) == (0.25, "all")


def test_none_takes_away_what_the_base_sets(tmp_path: Path) -> None:
    recipe = load_recipe(own(tmp_path, 'base = "dynamicvit"\nlr_batch = "none"\naverage = "none"\nresult = "last"\n'))
    assert recipe.lr_batch is None
    assert recipe.average is None
    assert recipe.peak_lr == 5e-4


def test_none_is_not_a_value_of_fields_that_must_have_one() -> None:
    assert "lr" in error_message(load_recipe, "haurum", {"lr": "none"})
    assert load_recipe("haurum", {"amp": "none"}).amp == "none"  # here it is the name of a choice


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lrr": 1}, "has no field 'lrr'"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": "many"}, "epochs"),
        ({"batch": 2.5}, "batch"),
        ({"lr": 0}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"lr": float("inf")}, "lr"),
        ({"mix": 1.5}, "mix"),
        ({"mix": float("nan")}, "mix"),
        ({"drop_path": 1}, "drop_path"),
        ({"average": 1.0}, "average"),
        ({"amp": "fp8"}, "amp"),
        ({"frozen_epochs": -1}, "frozen_epochs"),
        ({"frozen_epochs": "some"}, "frozen_epochs"),
        ({"layer_decay": 0}, "layer_decay"),
        ({"scale": [0.1]}, "scale"),
        ({"average": "none"}, "result 'better' needs an average"),
        ({"epochs": 20, "warm_up_epochs": 20}, "20 of 20 epochs are warm-up"),
        ({"keep_warm_up": [5, 5]}, "keep_warm_up must be two rising epochs up to 30"),
        ({"keep_warm_up": [0, 31]}, "keep_warm_up must be two rising epochs up to 30"),
    ],
)
def test_wrong_fields_are_refused(fields: dict[str, object], message: str) -> None:
    text = error_message(load_recipe, "haurum", fields)
    assert text.startswith("recipe 'haurum'")
    assert message in text


def test_unknown_recipes_are_refused(tmp_path: Path) -> None:
    assert "'haurum'" in error_message(load_recipe, "harum")
    assert "missing.toml" in error_message(load_recipe, str(tmp_path / "missing.toml"))
    assert "base must be one of haurum" in error_message(load_recipe, own(tmp_path, 'base = "mine"\n'))
    assert "base must be one of haurum" in error_message(load_recipe, own(tmp_path, 'base = ["haurum"]\n'))
    assert error_message(load_recipe, own(tmp_path, "epochs = = 2\n"))
    assert "batch" in error_message(load_recipe, own(tmp_path, "epochs = 2\nlr = 0.1\n"))
