"""Recipes with other epochs than their own."""

from pathlib import Path

import pytest

from tokbench.finetune.recipes import load_recipe


def test_other_epochs_change_what_counts_epochs_in_proportion() -> None:
    recipe = load_recipe("dynamicvit", {"epochs": 6})
    assert (recipe.epochs, recipe.frozen_epochs) == (6, 1)
    assert load_recipe("haurum", {"epochs": 3}).warm_up_epochs == pytest.approx(2)
    assert load_recipe("haurum", {"epochs": 3, "warm_up_epochs": 1}).warm_up_epochs == 1
    assert load_recipe("haurum", {}) == load_recipe("haurum")


@pytest.mark.parametrize(("epochs", "expected"), [(1, (0, 1)), (2, (1, 2)), (15, (14, 15)), (60, (56, 60))])
def test_a_keep_that_is_warmed_up_late_is_reached_within_the_epochs(
    epochs: int, expected: tuple[int, int], tmp_path: Path
) -> None:
    file = tmp_path / "late.toml"
    file.write_text('base = "haurum"\nkeep_warm_up = [28, 30]\n')
    assert load_recipe(str(file), {"epochs": epochs}).keep_warm_up == expected
