"""What training keeps: averaged weights, frozen weights, and the keep that results belong to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tokbench.embedded.model import load
from tokbench.finetune.job import Job, Step
from tokbench.finetune.recipes import load_recipe
from tokbench.finetune.training import train
from tokbench.finetune.training_images import DigitImages
from tokbench.registry import create
from tokbench.schedule import Schedule
from tokbench.vit.backbone import DownsampledViT

PLAIN = {"average": "none", "result": "last", "distill": 0, "distill_tokens": 0}


def small(method: str, keep: float) -> DownsampledViT:
    torch.manual_seed(0)
    return DownsampledViT(load("digits_deit_16"), create(method), Schedule.stages(keep))


def trained(
    model: DownsampledViT,
    folder: Path,
    settings: dict[str, Any],
    on_step: Callable[[Step], None] = lambda step: None,
    evaluate: Callable[[DownsampledViT], float] | None = None,
) -> None:
    recipe = load_recipe("digits", {**PLAIN, **settings})
    train(Job(model, None, DigitImages(), evaluate, recipe, 0, torch.device("cpu"), folder, 0, 1e9), on_step)


def copied(model: DownsampledViT) -> dict[str, torch.Tensor]:
    return {name: value.double() for name, value in model.state_dict().items()}


def test_the_average_is_the_exponential_one_of_all_steps(tmp_path: Path) -> None:
    steps = []
    plain = small("dtem", 0.5)
    expected = copied(plain)
    trained(plain, tmp_path / "plain", {"epochs": 1}, lambda _: steps.append(copied(plain)))
    for weights in steps:
        expected = {name: 0.9 * value + 0.1 * weights[name] for name, value in expected.items()}
    averaged = small("dtem", 0.5)
    trained(averaged, tmp_path / "averaged", {"epochs": 1, "average": 0.9, "result": "average"})
    found = copied(averaged)
    assert len(steps) == 12
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-5, atol=1e-6)
    assert not torch.equal(found["vit.head.weight"], steps[-1]["vit.head.weight"])


def test_weights_change_only_in_the_epochs_that_train_them(tmp_path: Path) -> None:
    model = small("dtem", 0.5)
    start = copied(model)
    changed: dict[int, set[str]] = {}

    def look(step: Step) -> None:
        now = copied(model)
        changed[step.epoch] = {name for name, value in now.items() if not torch.equal(value, start[name])}

    trained(model, tmp_path, {"epochs": 3, "frozen_epochs": 2, "frozen": ["pos_embed", "blocks.0.*"]}, look)
    assert {name.split(".")[0] for name in changed[1] | changed[2]} == {"downsampler"}
    assert "vit.head.weight" in changed[3]
    assert not [name for name in changed[3] if name.startswith(("vit.pos_embed", "vit.blocks.0."))]


def test_the_last_validation_is_at_the_final_keep(tmp_path: Path) -> None:
    model = small("tome", 0.5)
    counts = model.counts
    seen = []

    def evaluate(one: DownsampledViT) -> float:
        seen.append(one.counts)
        return 0.0

    trained(model, tmp_path, {"epochs": 2, "keep_warm_up": [0, 2]}, evaluate=evaluate)
    assert seen[0] > counts  # in the middle of the warm-up
    assert seen[1] == counts == model.counts
