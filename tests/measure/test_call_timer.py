"""How one call is timed: which stream, what is waited for, and what is cleared before."""

from __future__ import annotations

import time

import pytest
import torch
from torch import Tensor

from tokbench.measure import call_timer as module
from tokbench.measure.call_timer import call_timer
from tokbench.measure.cold import cache_flush
from tokbench.measure.latency import measure_latency
from tokbench.stats.times import MIN_ROUNDS

CPU = torch.device("cpu")
IMAGES = torch.zeros(1, 3, 4, 4)


def test_on_a_cpu_the_host_is_busy_all_the_time() -> None:
    timing = call_timer(CPU)(lambda images: images.exp(), IMAGES)
    assert 0 < timing.host_s <= timing.total_s


def test_a_call_on_a_second_gpu_is_timed_on_that_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    did: list[str] = []
    second = torch.device("cuda", 1)

    class Event:
        """Records what it is asked for, in place of a GPU."""

        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: str) -> None:
            did.append(f"record on {stream}")

        def synchronize(self) -> None:
            did.append("wait for the event")

        def elapsed_time(self, other: Event) -> float:
            return 7.0  # milliseconds

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: f"the stream of {device}")
    monkeypatch.setattr(module, "synchronize", lambda device: did.append(f"wait for {device}"))

    def forward(images: Tensor) -> Tensor:
        did.append("run")
        return images

    timing = call_timer(second, lambda: did.append("clear"))(forward, IMAGES)
    assert timing.total_s == 7e-3
    recorded = "record on the stream of cuda:1"
    assert did == ["clear", "wait for cuda:1", recorded, "run", recorded, "wait for the event"]


@pytest.mark.parametrize("kind", ["mps", "xpu"])
def test_other_accelerators_are_waited_for(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[str] = []
    monkeypatch.setattr(module, "synchronize", lambda device: waits.append(device.type))
    clock = iter([0.0, 1.0, 5.0])  # before, queued, finished
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    timing = call_timer(torch.device(kind))(lambda images: images, IMAGES)
    assert waits == [kind, kind]
    assert (timing.host_s, timing.total_s) == (1.0, 5.0)


def test_caches_are_cleared_before_each_call() -> None:
    did: list[str] = []

    def forward(images: Tensor) -> Tensor:
        did.append("run")
        return images

    measure_latency(forward, forward, [IMAGES], seconds=0, precision=0, flush=lambda: did.append("clear"))
    assert did == ["clear", "run"] * (len(did) // 2)
    assert len(did) >= 4 * MIN_ROUNDS


def test_a_flush_writes_more_than_the_last_cache_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    empty = torch.empty

    def noted(size: int, **how: object) -> Tensor:
        made.append(size)
        return empty(8, dtype=torch.uint8).zero_()

    monkeypatch.setattr(torch, "empty", noted)
    cache_flush(CPU)()
    assert made[0] >= 4 * 2**20
