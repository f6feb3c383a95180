"""The share of a model's time that choosing tokens takes.

It is measured in runs of its own, after those that are timed for the speedup, because looking at a clock inside a model
takes time too.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tokbench.measure.accelerator import synchronize
from tokbench.measure.cpu import pinned
from tokbench.vit.backbone import METHOD_PARTS, DownsampledViT

MIN_RUNS = 5
TIMED = ("cpu", "cuda")  # elsewhere the host's clock says when something was queued, not when it ran


def choosing_shares(model: DownsampledViT, batches: Sequence[Tensor], seconds: float) -> tuple[float, ...]:
    """Measure the share of a model's time that its method takes.

    The method's time is the time in the modules `METHOD_PARTS`, whose MACs are the method's, too: everything that the
    method does, computing what it reads from attention, and the rotary positions of merged tokens. The rest is the
    backbone's: also attention that is slower because of the method (without a fused kernel, or with a bias for the
    sizes of tokens), the check of what the method returns, and trimming a padded batch.

    Args:
        model: In evaluation mode, warmed up, not compiled.
        batches: Each (B, C, H, W) on the model's device; used in turn, one for each run.
        seconds: How long to go on; five runs are always made.

    Returns:
        The share in each run, 0 to 1; none for a model without a method, and on XPU and MPS.
    """
    device = batches[0].device
    if model.downsampler is None or device.type not in TIMED:
        return ()
    moments: list[Any] = []

    def note_moment(*_: Any) -> None:
        moments.append(_moment(device))

    hooks = []
    for part in (module for name, module in model.named_children() if name in METHOD_PARTS):
        hooks.append(part.register_forward_pre_hook(note_moment, prepend=True))
        hooks.append(part.register_forward_hook(note_moment))
    shares: list[float] = []
    try:
        with torch.inference_mode(), pinned(torch.get_num_threads(), device):
            limit = time.perf_counter() + seconds
            while len(shares) < MIN_RUNS or time.perf_counter() < limit:
                moments.clear()
                synchronize(device)
                note_moment()
                model(batches[len(shares) % len(batches)])
                note_moment()
                start, *inside, end = moments
                chosen_s = sum(_seconds(*pair) for pair in zip(inside[::2], inside[1::2], strict=True))
                shares.append(chosen_s / _seconds(start, end))
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(shares)


def _moment(device: torch.device) -> Any:
    """Now: the clock's reading, or an event in the GPU's queue, which does not make the host wait."""
    if device.type != "cuda":
        return time.perf_counter()
    # torch's annotations of CUDA events are incomplete.
    event: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    event.record(torch.cuda.current_stream(device))
    return event


def _seconds(start: Any, end: Any) -> float:
    if isinstance(start, float):
        return float(end - start)
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3
