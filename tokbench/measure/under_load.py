"""The state of a GPU while it works: an idle one says nothing of clocks and power limits under load."""

from __future__ import annotations

import time

import torch
from torch import Tensor

from tokbench.measure.accelerator import synchronize
from tokbench.measure.call_timer import Forward
from tokbench.measure.gpu import Condition, condition

LOAD_SECONDS = 0.3  # of calls before the reading; NVML averages clocks and power over about a tenth of a second
AHEAD = 4  # calls in the queue at most, so that the reading does not wait behind many


def condition_under_load(forward: Forward, images: Tensor) -> Condition | None:
    """Clocks, temperature, power and throttling while a model runs; None without a GPU or without NVML.

    Args:
        forward: The model.
        images: (B, C, H, W) on its device.
    """
    device = images.device
    if device.type != "cuda":
        return None
    with torch.inference_mode():
        end = time.perf_counter() + LOAD_SECONDS
        while time.perf_counter() < end:
            synchronize(device)
            for _ in range(AHEAD):
                forward(images)
        state = condition(device)
    synchronize(device)
    return state
