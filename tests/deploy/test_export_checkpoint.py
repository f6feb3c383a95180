"""`tokbench export-model --checkpoint`: the trained weights are in the file, in the method of the checkpoint."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import tokbench
from tokbench.embedded.model import load
from tokbench.trained.saved import About, write_trained
from tokbench.vit.backbone import DownsampledViT

Run = Callable[..., tuple[int, str, str]]
EXPORT = ("export-model", "digits_deit_16")
CHECKPOINT = ("--format", "torch", "--checkpoint", "evit.safetensors")


@pytest.fixture
def trained(tmp_path: Path, shake: Callable[..., torch.nn.Module]) -> DownsampledViT:
    """Written to `evit.safetensors`, with other weights than the pretrained ones."""
    model = tokbench.reduce(load("digits_deit_16"), "evit", keep=0.5)
    shake(model, 0.004, seed=1)
    about = {
        **{"model": "digits_deit_16", "weights": "abc", "method": "evit", "params": {}, "keep": 0.5, "seed": 0},
        **{"schedule": "stages(at=3-6-9)", "site": model.site, "position": "mean", "recipe": {"name": "short"}},
        **{"data": {"name": "x", "images": 9, "identity": "i"}, "epochs": 1, "steps": 5},
    }
    write_trained(model, About(**about), tmp_path / "evit.safetensors")  # type: ignore[arg-type]
    return model


@pytest.mark.usefixtures("trained")
def test_a_checkpoint_of_another_method_is_refused(run: Run) -> None:
    code, out, err = run(*EXPORT, "tome", "model.pt2", *CHECKPOINT)
    assert (code, out) == (2, "")
    assert err == "tokbench: no checkpoint is of the method 'tome': name one with --checkpoint FILE\n"


def test_the_file_has_the_trained_weights(run: Run, trained: DownsampledViT) -> None:
    code, _, err = run(*EXPORT, "evit", "model.pt2", *CHECKPOINT)
    assert (code, err) == (0, "")
    images = torch.randn((1, 1, 32, 32), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(torch.export.load("model.pt2").module()(images), trained.eval()(images))
