"""Recipes: the learning rates that they give, and which weights they train."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch

from tokbench.embedded.model import load
from tokbench.errors import UserError
from tokbench.finetune.optimisation import create_optimiser, create_schedule, learning_rate, train_weights_of
from tokbench.finetune.recipes import RECIPES, Recipe, load_recipe
from tokbench.registry import create
from tokbench.schedule import Schedule
from tokbench.vit.backbone import DownsampledViT

STEPS = 100  # of an epoch


def model(method: str = "dtem") -> DownsampledViT:
    return DownsampledViT(load("digits_deit_16"), create(method), Schedule.stages(0.7))


def rates(recipe: Recipe) -> list[float]:
    """The learning rate in each step."""
    optimiser = create_optimiser(model(), recipe)
    schedule = create_schedule(optimiser, recipe, STEPS)
    found = []
    for step in range(recipe.epochs * STEPS):
        schedule.step_update(step)
        found.append(learning_rate(optimiser))
    return found


@pytest.mark.parametrize(
    ("name", "batch", "first", "peak", "last", "warm_up"),
    [
        ("haurum", 1024, 1e-6, 1e-3, 1e-5, 20),
        ("haurum", 512, 1e-6, 5e-4, 1e-5, 20),
        ("evit", 2048, 2e-5, 2e-5, 2e-6, 0),
        ("dynamicvit", 768, 7.5e-4, 7.5e-4, 1e-5, 0),
        ("tps", 1024, None, 2.5e-4, 0.0, 5),
    ],
)
def test_published_learning_rates(
    name: str, batch: int, first: float | None, peak: float, last: float, warm_up: int
) -> None:
    found = rates(load_recipe(name, {"batch": batch}))
    assert first is None or found[0] == pytest.approx(first)
    if warm_up:  # timm's cosine has fallen for as many epochs when the warm-up ends
        assert found[: warm_up * STEPS] == sorted(found[: warm_up * STEPS])
        assert found[warm_up * STEPS - 1] == pytest.approx(peak, rel=0.01)
    else:
        assert max(found) == pytest.approx(peak)
    assert found[-1] == pytest.approx(last, rel=0.05, abs=1e-7)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_says_where_it_is_from(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert len(recipe.source) > 40


def test_parts_of_the_model_have_learning_rates_of_their_own() -> None:
    one = model()
    recipe = load_recipe("digits", {"backbone_scale": 0.01, "method_scale": 2.0, "layer_decay": 0.5})
    scale = {
        id(weight): group["lr_scale"]
        for group in create_optimiser(one, recipe).param_groups
        for weight in group["params"]
    }
    assert scale[id(one.vit.head.weight)] == pytest.approx(0.01)
    blocks = [scale[id(block.attn.qkv.weight)] for block in one.vit.blocks]
    assert [after / before for before, after in itertools.pairwise(blocks)] == pytest.approx([2.0] * 11)
    assert {scale[id(weight)] for weight in one.downsampler.parameters()} == {2.0}  # type: ignore[union-attr]


def test_weights_are_frozen_for_some_epochs_or_for_all() -> None:
    one = model()
    recipe = load_recipe("digits", {"frozen_epochs": 2, "frozen": ["pos_embed", "blocks.0.*"]})
    create_optimiser(one, recipe)
    for epoch, expected in ((0, set()), (1, set()), (2, {"learns"})):
        train_weights_of(one, recipe, epoch)
        learning = {name for name, weight in one.vit.named_parameters() if weight.requires_grad}
        assert bool(learning) == bool(expected)
        assert not any(name == "pos_embed" or name.startswith("blocks.0.") for name in learning)
    assert all(weight.requires_grad for weight in one.downsampler.parameters())  # type: ignore[union-attr]
    with pytest.raises(UserError, match="leaves nothing to train"):
        create_optimiser(model("tome"), load_recipe("digits", {"frozen_epochs": "all"}))
    with pytest.raises(UserError, match="freezes 'nothing'"):
        create_optimiser(model(), load_recipe("digits", {"frozen": ["nothing"]}))


def test_a_recipe_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('base = "haurum"\nepochs = 25\nlr = 1e-4\naverage = "none"\nresult = "last"\n')
    recipe = load_recipe(str(file))
    assert (recipe.name, recipe.epochs, recipe.lr, recipe.batch, recipe.average) == ("mine", 25, 1e-4, 1024, None)
    file.write_text('base = "haurum"\nlearning_rate = 1\n')
    with pytest.raises(UserError, match="has no field 'learning_rate'"):
        load_recipe(str(file))
    with pytest.raises(UserError, match="unknown recipe 'haurun': did you mean 'haurum'"):
        load_recipe("haurun")
    with pytest.raises(UserError, match="needs an average"):
        load_recipe("digits", {"result": "average"})


def test_frozen_weights_do_not_change() -> None:
    one = model()
    recipe = load_recipe("digits", {"frozen_epochs": "all"})
    optimiser = create_optimiser(one, recipe)
    before = {name: weight.clone() for name, weight in one.state_dict().items()}
    train_weights_of(one, recipe, 0)
    torch.autograd.backward(
        one.train()(torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))).square().sum()
    )
    optimiser.step()
    changed = {name.split(".")[0] for name, weight in one.state_dict().items() if not torch.equal(weight, before[name])}
    assert changed == {"downsampler"}
