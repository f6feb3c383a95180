"""A loss that is not a finite number ends the cell, and leaves the last good state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tokbench import Context, Downsampler, Tokens
from tokbench.embedded.model import load
from tokbench.finetune.job import Job, Outcome
from tokbench.finetune.recipes import load_recipe
from tokbench.finetune.training import STATE, train
from tokbench.finetune.training_images import DigitImages
from tokbench.schedule import Schedule
from tokbench.vit.backbone import DownsampledViT


class FirstTokens(Downsampler):
    """Keeps the first tokens; its own term of the loss is what the test wants it to be at a step, else 0."""

    def __init__(self, at: int, value: float) -> None:
        super().__init__()
        self.at, self.value, self.calls = at, value, 0

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        return tokens.select(torch.arange(keep).expand(len(tokens.x), keep))

    def loss(self, after: Sequence[Tokens]) -> Tensor:
        self.calls += 1
        return torch.tensor(self.value if self.calls == self.at else 0.0)


def run(folder: Path, at: int, value: float) -> tuple[Outcome, DownsampledViT]:
    model = DownsampledViT(load("digits_deit_16"), FirstTokens(at, value), Schedule.stages(0.3))
    recipe = load_recipe("digits", {"epochs": 2})
    job = Job(model, None, DigitImages(), None, recipe, 0, torch.device("cpu"), folder, workers=0, state_every=0.0)
    return train(job, lambda step: None), model


@pytest.mark.parametrize(("value", "said"), [(float("nan"), "NaN"), (float("inf"), "infinite")])
def test_the_cell_ends_with_step_reason_and_last_good_state(value: float, said: str, tmp_path: Path) -> None:
    outcome, _ = run(tmp_path, at=15, value=value)
    file = tmp_path / STATE
    assert outcome.failed == f"step 15: the loss is {said}; the last good state, of step 12, is in {file}"
    state = torch.load(file, weights_only=True)
    assert state["step"] == 12
    good = DownsampledViT(load("digits_deit_16"), FirstTokens(0, 0.0), Schedule.stages(0.3))
    good.load_state_dict(state["model"])
    assert all(bool(weight.isfinite().all()) for weight in good.parameters())


def test_a_run_without_such_a_loss_comes_to_its_end(tmp_path: Path) -> None:
    outcome, model = run(tmp_path, at=0, value=0.0)
    assert (outcome.failed, outcome.steps, outcome.epochs) == ("", 24, 2)
    assert not model.training
