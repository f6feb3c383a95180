"""Setting a method's constants from unlabelled images."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from tokbench.downsampler import Reduction
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.weights import METHOD, misfits

BATCH = 50  # images, of those that come as one tensor


class ConstantsError(ValueError):
    """A method's constants are not those of this method with this schedule."""


def calibrate(model: DownsampledViT, images: Tensor | Iterable[Tensor]) -> None:
    """Set the constants of a model's method from unlabelled images; nothing happens if it has none.

    No gradients are computed. The images must not be those that the model is later evaluated on.

    Args:
        model: A model with a method in it, in evaluation mode.
        images: (n, C, H, W), or batches of them, on the model's device. There must be at least one.

    Raises:
        ValueError: There are no images.
    """
    method = model.downsampler
    if method is None or not method.calibrated:
        return
    if isinstance(images, Tensor):
        images = [images[start : start + BATCH] for start in range(0, len(images), BATCH)]
    batches = list(images)
    if not sum(map(len, batches)):
        raise ValueError("no images to calibrate on")

    def run(reduction: Reduction) -> None:
        model.reduction = reduction
        try:
            first = 0
            for batch in batches:
                model(batch, torch.arange(first, first + len(batch), device=batch.device))
                first += len(batch)
        finally:
            model.reduction = None

    with torch.no_grad():
        method.calibrate(run)
    model.needs_calibration = False


def constants_of(model: DownsampledViT) -> dict[str, Tensor]:
    """The state of a calibrated method, under its names in the model's state dict, on the CPU."""
    assert model.downsampler is not None
    return {f"{METHOD}{name}": value.detach().cpu() for name, value in model.downsampler.state_dict().items()}


def set_constants(model: DownsampledViT, constants: dict[str, Tensor]) -> None:
    """Give a model's method the constants that `constants_of` read from another.

    Raises:
        ConstantsError: They are those of another method, or of another schedule.
    """
    method = model.downsampler
    assert method is not None
    own = method_state(constants)
    problems = misfits(method.state_dict(), own)
    if problems:
        raise ConstantsError(f"these constants do not fit method '{method.name}' with {model.schedule}: {problems}")
    method.load_state_dict(own)
    model.needs_calibration = False


def method_state(constants: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same under the method's own names."""
    return {name.removeprefix(METHOD): value for name, value in constants.items()}
