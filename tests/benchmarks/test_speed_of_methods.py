"""The time of one reduction by every method that needs no training, with a precomputed context."""

import math

import pytest
import torch
from deit_small import BATCH, BLOCKS, DEPTHS, DEVICE, GRID, KEEPS, D, H, N, P, clock, context, in_inference, tokens
from pytest_benchmark.fixture import BenchmarkFixture

from tokbench.downsampler import Geometry
from tokbench.registry import create, discover
from tokbench.schedule import Schedule, planned_counts
from tokbench.tokens import Tokens

BUILT_IN = [
    name
    for name, cls in discover()[0].items()
    if cls.__module__.startswith("tokbench.methods.") and not create(name).trained
]


@pytest.mark.benchmark(timer=clock)
@pytest.mark.parametrize("keep", KEEPS)
@pytest.mark.parametrize("name", BUILT_IN)
def test_method(benchmark: BenchmarkFixture, name: str, keep: float) -> None:
    torch.manual_seed(0)
    method = create(name)
    counts = planned_counts(Schedule.stages(keep, DEPTHS), method, BLOCKS, GRID)
    method.setup(Geometry(D, H, DEPTHS, GRID, counts))
    method = method.to(DEVICE).eval()
    benchmark.group = f"a method's reduction, keep {keep}"
    before, count = tokens(), math.ceil(keep * N)
    after = benchmark(in_inference(method), before, count, context(method))
    assert isinstance(after, Tokens)
    assert after.x.shape == (BATCH, P + after.n_patches, D)
    if not method.adaptive:
        assert after.n_patches == method.count(count, N, DEPTHS[0], GRID)
