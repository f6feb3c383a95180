"""Paired timing in alternating order, memory, CPU pinning and run modes."""

import gc
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tokbench.errors import UserError
from tokbench.measure.cpu import OtherLoad, pinned
from tokbench.measure.gpu import condition, throttle_reasons
from tokbench.measure.latency import FLOOR_BLOCKS, measure_floor, measure_latency
from tokbench.measure.memory import MeasuringProcesses, cpu_peak_mib
from tokbench.measure.modes import check_mode, in_mode
from tokbench.stats.times import MIN_ROUNDS

CPU = torch.device("cpu")
IMAGES = torch.zeros(1, 3, 4, 4)


def counted(name: str, calls: list[tuple[str, float]]) -> Callable[[Tensor], Tensor]:
    def forward(images: Tensor) -> Tensor:
        calls.append((name, float(images.sum())))
        return images

    return forward


def work(images: Tensor) -> Tensor:
    return torch.ones(64, 64) @ torch.ones(64, 64)


def test_order_alternates_between_rounds() -> None:
    calls: list[tuple[str, float]] = []
    taken = measure_latency(counted("A", calls), counted("B", calls), [IMAGES], seconds=0, precision=0)
    assert len(taken.base_s) == len(taken.other_s) == MIN_ROUNDS
    assert "".join(name for name, _ in calls[-2 * MIN_ROUNDS :]) == "ABBA" * (MIN_ROUNDS // 2)
    assert len(calls) > 2 * MIN_ROUNDS  # the warm-up


def test_each_batch_is_used_in_both_orders() -> None:
    calls: list[tuple[str, float]] = []
    batches = [IMAGES, IMAGES + 1, IMAGES + 2]
    measure_latency(counted("A", calls), counted("B", calls), batches, seconds=0, precision=0)
    sampled = calls[-2 * MIN_ROUNDS :]
    shown = [image for _, image in sampled]
    assert shown[::4] == shown[1::4] == shown[2::4] == shown[3::4] == [0, 48, 96, 0, 48]
    assert {(name, image) for name, image in sampled} == {(name, image) for name in "AB" for image in (0, 48, 96)}


def test_sampling_stops_at_the_requested_precision() -> None:
    taken = measure_latency(work, work, [IMAGES], seconds=1e-9, precision=0)
    assert len(taken.base_s) == MIN_ROUNDS
    # A very coarse precision ends the sampling long before the time limit.
    coarse = measure_latency(work, work, [IMAGES], seconds=0.4, precision=1e6)
    assert len(coarse.base_s) == MIN_ROUNDS
    fine = measure_latency(work, work, [IMAGES], seconds=0.4, precision=0)
    assert len(fine.base_s) > MIN_ROUNDS
    assert len(fine.base_s) % 2 == 0
    assert fine.half_width > 0


def test_noise_floor_is_measured_in_five_blocks_with_models_built_anew() -> None:
    calls: list[tuple[str, float]] = []
    names = iter("ABCDEFGHIJ")
    blocks = measure_floor(lambda: counted(next(names), calls), [IMAGES], seconds=0, precision=0)
    assert len(blocks) == FLOOR_BLOCKS == 5
    assert list(dict.fromkeys(name for name, _ in calls)) == list("ABCDEFGHIJ")
    assert all(len(block.base_s) == MIN_ROUNDS for block in blocks)


def test_process_state_is_restored_when_a_model_raises() -> None:
    def broken(images: Tensor) -> Tensor:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        measure_latency(work, broken, [IMAGES], seconds=0, precision=0)
    assert gc.isenabled()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin processes")
def test_process_is_pinned_to_one_cpu_per_thread() -> None:
    def allowed_cpus() -> set[tuple[int, ...]]:
        """The CPUs that each thread may use."""
        return {tuple(os.sched_getaffinity(int(thread.name))) for thread in Path("/proc/self/task").iterdir()}

    before = allowed_cpus()
    with pinned(1, CPU):
        assert {len(cpus) for cpus in allowed_cpus()} == {1}
    assert allowed_cpus() == before


def test_own_work_does_not_count_as_other_load() -> None:
    load = OtherLoad()
    for _ in range(300):
        torch.ones(256, 256) @ torch.ones(256, 256)
    assert 0 <= load.read() <= 1


class Hungry(nn.Module):
    """Allocates `mib` MiB in its forward pass."""

    def __init__(self, mib: int) -> None:
        super().__init__()
        self.mib = mib

    def forward(self, images: Tensor) -> Tensor:
        return torch.ones(self.mib * 2**18).sum() + images


def build_hungry(mib: int) -> tuple[Hungry, Tensor]:
    return Hungry(mib), IMAGES


def build_failing() -> tuple[Hungry, Tensor]:
    raise ValueError("cannot be built")


def test_memory_is_the_growth_of_the_process() -> None:
    with MeasuringProcesses(preload="tokbench.measure.memory") as processes:
        little, much = (cpu_peak_mib(processes, partial(build_hungry, mib), threads=1) for mib in (8, 208))
        again = cpu_peak_mib(processes, partial(build_hungry, 8), threads=1)  # not affected by the call before
        with pytest.raises(ValueError, match="cannot be built"):
            cpu_peak_mib(processes, build_failing, threads=1)
    assert much - little == pytest.approx(200, abs=4)
    assert again == pytest.approx(little, abs=4)


def test_compiled_model_has_the_same_output() -> None:
    model = nn.Sequential(nn.Flatten(), nn.GELU())  # one kernel; each takes the C++ compiler some seconds
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        compiled = in_mode(model, "compile", images)
        assert torch.allclose(compiled(images), model(images), atol=1e-5)
    assert in_mode(model, "eager", images) is model


@pytest.mark.cuda
def test_cuda_graph_has_the_same_output(tiny_vit: Callable[..., VisionTransformer]) -> None:
    model = tiny_vit().cuda()
    first, second = torch.randn(2, 2, 3, 32, 32, device="cuda").unbind()
    captured = in_mode(model, "cudagraph", first)
    with torch.inference_mode():
        assert torch.allclose(captured(second), model(second), atol=1e-5)


def test_cuda_graphs_require_cuda() -> None:
    with pytest.raises(UserError, match="'cudagraph' needs a CUDA device, not cpu"):
        check_mode("cudagraph", CPU)
    check_mode("compile", CPU)


def test_throttle_reasons_are_named_and_idling_is_not_one() -> None:
    assert throttle_reasons(0x01 | 0x02 | 0x10) == ()
    assert throttle_reasons(0x04 | 0x20) == ("power cap", "software thermal slowdown")
    assert condition(CPU) is None
