"""Every method in a model on the simulated GPU."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from method_calls import EACH, Variant, noisy

from tokbench import DownsampledViT, Schedule, calibrate, create
from tokbench.conformance.simulated_gpu import GpuTensor, simulated_gpu
from tokbench.measure.dispatch import count_dispatched


def in_model(vit: Any, name: str, **params: Any) -> DownsampledViT:
    torch.manual_seed(0)
    model = DownsampledViT(vit, create(name, **params), Schedule.stages(0.6, (1, 2))).eval()
    calibrate(model, noisy(4, 3, 32, 32, seed=5))
    return model


@EACH
def test_every_method_gives_on_a_gpu_what_it_gives_on_a_cpu(variant: Variant, tiny_vit: Callable[..., Any]):
    name, params = variant
    model = in_model(tiny_vit(patch_size=4), name, **params)
    with torch.inference_mode(), count_dispatched(model) as on_cpu:
        expected = model(noisy(3, 3, 32, 32))
    with simulated_gpu() as gpu:
        moved, images = gpu.to_gpu(model), gpu.to_gpu(noisy(3, 3, 32, 32))
        with count_dispatched(moved) as on_gpu:
            logits = moved(images)
    assert isinstance(logits, GpuTensor)
    assert torch.allclose(logits.numbers, expected, atol=1e-5)
    assert {wait.function for wait in gpu.waits} <= ({"trim"} if model.downsampler.adaptive else set())
    for share in ("backbone", "method"):
        assert getattr(on_gpu.shares, share).total() == getattr(on_cpu.shares, share).total()


@pytest.mark.parametrize("name", ["token_pooling", "tome", "score_pruning"])
def test_the_code_for_gpus_is_what_ran(name: str, tiny_vit: Callable[..., Any]):
    model = in_model(tiny_vit(patch_size=4), name)
    with simulated_gpu() as gpu:
        gpu.to_gpu(model)(gpu.to_gpu(noisy(3, 3, 32, 32)))
    # Atomic additions, whose order differs from run to run, and a slow kernel.
    assert not {"index_add", "scatter_add", "_embedding_bag", "_embedding_bag_forward_only"} & set(gpu.launches)
