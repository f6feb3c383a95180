"""Recipes with other epochs than their own."""

import pytest

from tokbench.finetune.recipes import load_recipe


def test_other_epochs_change_what_counts_epochs_in_proportion() -> None:
    recipe = load_recipe("dynamicvit", {"epochs": 6})
    assert (recipe.epochs, recipe.frozen_epochs) == (6, 1)
    assert load_recipe("haurum", {"epochs": 3}).warm_up_epochs == pytest.approx(2)
    assert load_recipe("haurum", {"epochs": 3, "warm_up_epochs": 1}).warm_up_epochs == 1
    assert load_recipe("haurum", {}) == load_recipe("haurum")
