"""Random numbers that depend only on what they are for, so that a run can be resumed without their state."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import numpy as np
import torch

Purpose = Literal["order", "sample", "canvases", "mixing", "model"]

_PURPOSES: dict[Purpose, int] = {"order": 0, "sample": 1, "canvases": 2, "mixing": 3, "model": 4}


def seed_of(purpose: Purpose, *parts: int) -> int:
    """A seed in [0, 2**31) for a purpose, from non-negative numbers such as the run's seed and the epoch."""
    return int(np.random.SeedSequence([_PURPOSES[purpose], *parts]).generate_state(1)[0]) >> 1


def seed_everything(seed: int) -> None:
    """Seed the generators of random, numpy and torch, of all devices."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Within the block, the generators of the CPU are seeded; after it, they are as before."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
