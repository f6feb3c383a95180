"""The time of the building blocks of methods: token operations, clustering, matching and context fields."""

import math

import pytest
import torch
from deit_small import BATCH, DEVICE, KEEPS, D, H, N, P, clock, heads, in_inference, normal, tokens
from pytest_benchmark.fixture import BenchmarkFixture
from timm.models.vision_transformer import Attention

from tokbench.context import FIELDS
from tokbench.ops.clustering import farthest_first, kmeans, kmedoids, nearest_members
from tokbench.ops.matching import bipartite_matching
from tokbench.ops.swaps import kmedoids_with_swaps
from tokbench.token_groups import gather_rows, group_sum
from tokbench.vit.adapters.vision_transformer import VisionTransformerAdapter
from tokbench.vit.attention import AttentionProbe, Heads, attend

ITERATIONS = 5

pytestmark = pytest.mark.benchmark(timer=clock)


@pytest.fixture(params=KEEPS, ids="keep={}".format)
def keep(request: pytest.FixtureRequest, benchmark: BenchmarkFixture) -> int:
    """K, the number of tokens to keep."""
    benchmark.group = f"an operator, keep {request.param}"
    return math.ceil(request.param * N)


def indices(keep: int) -> torch.Tensor:
    """(BATCH, K) positions, different for each image."""
    return normal(BATCH, N).argsort(dim=1)[:, :keep]


def groups(keep: int) -> torch.Tensor:
    """(BATCH, N) groups, none of which is empty."""
    return (normal(BATCH, N).argsort(dim=1) % keep).contiguous()


def test_select(benchmark: BenchmarkFixture, keep: int) -> None:
    assert benchmark(in_inference(tokens().select), indices(keep)).n_patches == keep


def test_merge(benchmark: BenchmarkFixture, keep: int) -> None:
    assert benchmark(in_inference(tokens().merge), groups(keep), keep).n_patches == keep


def test_mix(benchmark: BenchmarkFixture, keep: int) -> None:
    matrix = normal(BATCH, keep, N).softmax(dim=2)
    assert benchmark(in_inference(tokens().mix), matrix).n_patches == keep


def test_append(benchmark: BenchmarkFixture, keep: int) -> None:
    """Append as many tokens as the other operations remove."""
    more = N - keep
    size, no_owner = torch.ones(BATCH, more, device=DEVICE), torch.full((BATCH, N), -1, device=DEVICE)
    assert benchmark(in_inference(tokens().append), normal(BATCH, more, D), size, no_owner).n_patches == N + more


def test_gather_rows(benchmark: BenchmarkFixture, keep: int) -> None:
    assert benchmark(in_inference(gather_rows), normal(BATCH, N, D), indices(keep)).shape == (
        BATCH,
        keep,
        D,
    )


def test_group_sum(benchmark: BenchmarkFixture, keep: int) -> None:
    assert benchmark(in_inference(group_sum), normal(BATCH, N, D), groups(keep), keep).shape == (
        BATCH,
        keep,
        D,
    )


def test_nearest_members(benchmark: BenchmarkFixture, keep: int) -> None:
    f = normal(BATCH, N, D)
    assert benchmark(in_inference(nearest_members), f, groups(keep), f[:, :keep]).shape == (BATCH, keep)


@pytest.mark.parametrize("cluster", [kmeans, kmedoids, kmedoids_with_swaps])
def test_clustering(benchmark: BenchmarkFixture, cluster: object, keep: int) -> None:
    weight = torch.ones(BATCH, N, device=DEVICE)
    owner, centres = benchmark(in_inference(cluster), normal(BATCH, N, D), weight, indices(keep), ITERATIONS)
    assert (owner.shape, centres.shape) == ((BATCH, N), (BATCH, keep, D))


def test_farthest_first(benchmark: BenchmarkFixture, keep: int) -> None:
    assert benchmark(in_inference(farthest_first), normal(BATCH, N, D), keep).shape == (BATCH, keep)


def test_bipartite_matching(benchmark: BenchmarkFixture, keep: int) -> None:
    similarity = normal(BATCH, N // 2, N // 2)
    source, target = torch.arange(N, device=DEVICE).view(-1, 2).unbind(1)
    owner = benchmark(in_inference(bipartite_matching), similarity, source, target, N, N - keep)
    assert int(owner.max()) == keep - 1


@pytest.mark.benchmark(group="a field of the context")
@pytest.mark.parametrize("field", [field for field in FIELDS if field not in ("attention", "update")])
def test_field(benchmark: BenchmarkFixture, field: str) -> None:
    known = benchmark(in_inference(AttentionProbe(frozenset({field}))), heads(), P)
    assert list(known) == [field]


@pytest.mark.benchmark(group="a block's attention")
@pytest.mark.parametrize("kernel", ["fused", "matrix"])
def test_attention(benchmark: BenchmarkFixture, kernel: str) -> None:
    """The cost of requesting `attention`: the layer with its fused kernel, and with an explicit attention matrix."""
    torch.manual_seed(0)
    layer = Attention(D, num_heads=H, qkv_bias=True).to(DEVICE).eval()
    layer.fused_attn = True

    def run(x: torch.Tensor) -> tuple[torch.Tensor, Heads]:
        return attend(layer, x, VisionTransformerAdapter().project(layer, x, None), matrix=kernel == "matrix")

    update, attention = benchmark(in_inference(run), normal(BATCH, P + N, D))
    assert update.shape == (BATCH, P + N, D)
    assert (attention.matrix is not None) == (kernel == "matrix")
