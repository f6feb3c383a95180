"""Queued batches, and the search for the best batch size, against a clock that the models move."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tokbench.measure.throughput import LARGEST_BATCH, best_batch, measure_throughput, seconds_per_image

CPU = torch.device("cpu")
Model = Callable[[Tensor], Tensor]


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Model]:
    """Make models that take a given time for each call and each image, and have memory for so many images."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def make(call_s: float, image_s: float, memory: int = 10_000, slow_from: int = 10_000) -> Model:
        def forward(images: Tensor) -> Tensor:
            if len(images) > memory:
                raise torch.OutOfMemoryError
            now[0] += call_s + len(images) * image_s * (2 if len(images) >= slow_from else 1)
            return images

        return forward

    return make


def images(count: int) -> Tensor:
    return torch.zeros(count, 1, 2, 2)


def test_a_queue_is_waited_for_once_and_counts_images(model: Callable[..., Model]) -> None:
    assert seconds_per_image(model(0.02, 0.01), images(4), calls=3) == pytest.approx((0.02 + 0.04) / 4)


def test_the_best_batch_is_the_largest_where_calls_cost_much(model: Callable[..., Model]) -> None:
    assert best_batch(model(0.1, 0.001), images, CPU) == LARGEST_BATCH["cpu"]


def test_the_search_ends_where_memory_does(model: Callable[..., Model]) -> None:
    assert best_batch(model(0.1, 0.001, memory=20), images, CPU) == 16
    with pytest.raises(torch.OutOfMemoryError):
        best_batch(model(0.1, 0.001, memory=0), images, CPU)


def test_one_size_without_gain_does_not_end_the_search_and_two_do(model: Callable[..., Model]) -> None:
    sizes: list[int] = []

    def noted(count: int) -> Tensor:
        sizes.append(count)
        return images(count)

    assert best_batch(model(0.1, 0.1, slow_from=8), noted, CPU) == 4
    assert sizes == [1, 2, 4, 8, 16]


def test_models_are_compared_in_turn_each_with_its_own_batch(model: Callable[..., Model]) -> None:
    order: list[str] = []
    plain, faster = model(0.1, 0.01), model(0.1, 0.005)

    def named(name: str, forward: Model) -> Model:
        def run(batch: Tensor) -> Tensor:
            order.append(name)
            return forward(batch)

        return run

    taken = measure_throughput((named("a", plain), images(10)), (named("b", faster), images(40)), 0, rounds=4)
    assert taken.base_s == pytest.approx([0.2 / 10] * 4)
    assert taken.other_s == pytest.approx([0.3 / 40] * 4)
    assert "".join(order) == "aabb" + "ab" + "ba" + "ab" + "ba"
