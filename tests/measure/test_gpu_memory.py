"""The peak memory on CUDA, with an allocator in the place of CUDA's that follows what is allocated."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tokbench.measure.call_timer import Forward
from tokbench.measure.memory import MIB, cuda_peak_mib

WEIGHTS, ACTIVATIONS, COMPILING = 10, 20, 500  # MiB
IMAGES = torch.zeros(1)


class Allocator:
    def __init__(self) -> None:
        self.now = self.peak = WEIGHTS

    def use(self, mib: int) -> None:
        """Allocate memory and free it again."""
        self.peak = max(self.peak, self.now + mib)

    def reset(self, device: torch.device) -> None:
        self.peak = self.now


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> Allocator:
    allocator = Allocator()
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", allocator.reset)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: allocator.peak * MIB)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    return allocator


def test_an_eager_model_takes_its_weights_and_activations(allocator: Allocator) -> None:
    allocator.use(COMPILING)  # what an earlier row took

    def forward(images: Tensor) -> Tensor:
        allocator.use(ACTIVATIONS)
        return images

    assert cuda_peak_mib(lambda: forward, IMAGES) == WEIGHTS + ACTIVATIONS


def test_a_graph_takes_its_activations_while_it_is_captured(allocator: Allocator) -> None:
    def capture() -> Forward:
        allocator.use(ACTIVATIONS)
        return lambda images: images  # a replay allocates nothing

    assert cuda_peak_mib(capture, IMAGES) == WEIGHTS + ACTIVATIONS


def test_compiling_is_not_weighed(allocator: Allocator) -> None:
    calls: list[int] = []

    def forward(images: Tensor) -> Tensor:
        allocator.use(ACTIVATIONS if calls else COMPILING)
        calls.append(1)
        return images

    assert cuda_peak_mib(lambda: forward, IMAGES, calls_before=1) == WEIGHTS + ACTIVATIONS
    assert len(calls) == 3  # a graph that torch.compile captures is captured at the second
