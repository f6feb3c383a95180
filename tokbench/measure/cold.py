"""Clearing a device's caches, so that a model finds neither its weights nor its images there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

TIMES_CACHE = 4  # a cache does not always replace its oldest lines first
UNKNOWN_CACHE = 2**26  # bytes; above most last-level caches
UNITS = {"K": 2**10, "M": 2**20}


def cache_flush(device: torch.device) -> Callable[[], None]:
    """A function that overwrites the last-level cache of a device with other data.

    Args:
        device: On a GPU the second-level cache is overwritten, on a CPU the last level.
    """
    size = TIMES_CACHE * _cache_bytes(device)
    other = torch.empty(size, dtype=torch.uint8, device=device)

    def flush() -> None:
        other.add_(1)

    return flush


def _cache_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    levels = sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")) if device.type == "cpu" else []
    sizes = [level.read_text().strip() for level in levels]
    return max((int(size[:-1]) * UNITS[size[-1]] for size in sizes if size[-1:] in UNITS), default=UNKNOWN_CACHE)
