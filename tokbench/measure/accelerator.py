"""Waiting for an accelerator, whichever it is."""

from __future__ import annotations

import torch


def synchronize(device: torch.device) -> None:
    """Wait until a device has done everything that was queued on it; nothing to wait for on a CPU.

    Args:
        device: `cpu`, `cuda`, `xpu` or `mps`.

    Raises:
        RuntimeError: Something that was queued has failed.
    """
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def is_lost(device: torch.device) -> bool:
    """Whether a device is of no more use to this process.

    On CUDA, a failed assertion in a kernel (an index out of range) makes every later call fail until the process ends.
    """
    try:
        synchronize(device)
    except RuntimeError:
        return True
    return False
