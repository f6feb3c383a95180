"""Models out of checkpoints of public code, which the tests compare with what that code computes."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokbench import DownsampledViT, Schedule, create
from tokbench.trained.architecture import blank_vit
from tokbench.trained.checkpoint import Trained
from tokbench.trained.layouts import recognise
from tokbench.vit.weights import load_object

HEADS = "deit_tiny_patch16_224"  # has the 3 heads of the checkpoints


def recognised(file: Path) -> Trained:
    trained = recognise(load_object(file), file)
    assert trained is not None
    return trained


def model_of(trained: Trained, seed: int = 0, **params: Any) -> DownsampledViT:
    """The model as a comparison would build it, with other parameters of the method if given."""
    vit = blank_vit(trained, HEADS)
    vit.load_state_dict(dict(trained.vit))
    if trained.method == "none":
        return DownsampledViT(vit).eval()
    method = create(trained.method, **{**trained.params, **params})
    schedule = Schedule.parse(trained.schedule, trained.keep)
    model = DownsampledViT(vit, method, schedule, site=trained.site, seed=seed).eval()
    names = method.state_dict()
    method.load_state_dict({name: value for name, value in trained.downsampler.items() if not params or name in names})
    return model


def logits(model: DownsampledViT, images: Tensor) -> Tensor:
    with torch.no_grad():
        return model(images)
