"""Two independent MAC counters against hand-counted values and against each other."""

import inspect
import typing
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from counted_work import DEPTH, HEADS, C, K, N, by_hand, image
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from tokbench import Context, DownsampledViT, Downsampler, Schedule, Tokens, calibrate, create
from tokbench.measure import dispatch, operators
from tokbench.measure.dispatch import count_dispatched
from tokbench.measure.macs import count_by_routes, count_macs, disagreement, spread_of_macs, trace
from tokbench.measure.operators import CountError
from tokbench.registry import discover


class Works(Downsampler):
    """Drops tokens after calling `work` on the patches (1, N, C)."""

    def __init__(self, work: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.work = work

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        self.work(tokens.patches)
        return tokens.select(torch.arange(keep).expand(len(tokens.x), keep))


def model_that(vit: Any, work: Callable[[Tensor], object]) -> DownsampledViT:
    return DownsampledViT(vit, Works(work), Schedule.explicit((K,), at=(1,))).eval()


@pytest.mark.parametrize("fused", [True, False])
def test_plain_model_matches_hand_counted_macs_on_every_route(tiny_vit: Any, fused: bool):
    vit = tiny_vit()
    for block in vit.blocks:
        block.attn.fused_attn = fused
    routes = count_by_routes(DownsampledViT(vit).eval(), image())
    assert set(routes.backbone.values()) == {by_hand([N + 1] * DEPTH, [N + 1] * DEPTH)}
    assert set(routes.method.values()) == {0}


def power_iteration(f: Tensor, rounds: int) -> None:
    vector = torch.ones(N, 1)
    for _ in range(rounds):
        vector = f @ (f.T @ vector)


def unfused(heads: Tensor) -> None:
    with sdpa_kernel(SDPBackend.MATH):
        F.scaled_dot_product_attention(heads, heads, heads)


GROUP = torch.arange(N) % K
COLUMNS = GROUP[None, :, None].expand(1, N, C)

WORK: dict[str, tuple[Callable[[Tensor], object], int]] = {
    "matmul": (lambda f: f @ f[:, :K].mT, N * K * C),
    "mm": (lambda f: f[0] @ f[0].T, N * N * C),
    "mv": (lambda f: f[0] @ f[0, 0], N * C),
    "dot": (lambda f: torch.dot(f[0, 0], f[0, 1]), C),
    "linear": (lambda f: F.linear(f, torch.zeros(5, C), torch.zeros(5)), N * C * 5),
    "addmm": (lambda f: torch.addmm(torch.zeros(1), f[0], f[0].T), N * N * C),
    "baddbmm": (lambda f: torch.baddbmm(torch.zeros(1), f, f.mT), N * N * C),
    "einsum": (lambda f: torch.einsum("bnd,bkd->bnk", f, f[:, :K]), N * K * C),
    "einsum without a sum": (lambda f: torch.einsum("bnd,bn->bnd", f, f[..., 0]), 0),
    "cdist": (lambda f: torch.cdist(f, f[:, :K]), N * K * C),
    "cdist by a product": (lambda f: torch.cdist(f.repeat(1, 2, 1), f), 2 * N * N * C),
    "cosine_similarity": (lambda f: F.cosine_similarity(f, f.flip(1), dim=-1), 3 * N * C),
    "convolution": (lambda f: F.conv1d(f.mT, torch.zeros(6, C // 2, 3), groups=2), (N - 2) * 6 * C // 2 * 3),
    "transposed convolution": (lambda f: F.conv_transpose1d(f.mT, torch.zeros(C, 6, 3), stride=2), N * C * 6 * 3),
    "attention": (lambda f: F.scaled_dot_product_attention(f[:, None, :K], f[:, None], f[:, None]), 2 * K * N * C),
    "attention, masked": (
        lambda f: F.scaled_dot_product_attention(f[:, None], f[:, None], f[:, None], attn_mask=torch.ones(N, N) > 0),
        2 * N * N * C,
    ),
    "attention without fusion": (lambda f: unfused(f[:, None]), 2 * N * N * C),
    "written into a tensor": (lambda f: torch.mm(f[0], f[0].T, out=torch.empty(N, N)), N * N * C),
    "sum": (lambda f: f.sum(dim=1), N * C),
    "mean": (lambda f: f.mean(dim=1), N * C),
    "cumsum": (lambda f: f.cumsum(dim=1), N * C),
    "norm": (lambda f: torch.linalg.vector_norm(f, dim=2), N * C),
    "normalize": (lambda f: F.normalize(f, dim=2), N * C),
    "distance by a norm": (lambda f: (f[:, :, None] - f[:, None, :K]).norm(dim=3), N * K * C),
    "variance": (lambda f: f.var(dim=1), 2 * N * C),
    "index_add": (lambda f: f.new_zeros(K, C).index_add(0, GROUP, f[0]), N * C),
    "index_add in place": (lambda f: f.new_zeros(K, C).index_add_(0, GROUP, f[0]), N * C),
    "scatter_add": (lambda f: f.new_zeros(1, K, C).scatter_add(1, COLUMNS, f), N * C),
    "scatter_add of a part": (lambda f: f.new_zeros(1, K, C).scatter_add(1, COLUMNS[:, :3], f), 3 * C),
    "scatter_reduce by mean": (lambda f: f.new_zeros(1, K, C).scatter_reduce(1, COLUMNS, f, "mean"), N * C),
    "scatter_reduce by amax": (lambda f: f.new_zeros(1, K, C).scatter_reduce(1, COLUMNS, f, "amax"), 0),
    "scatter": (lambda f: f.new_zeros(1, K, C).scatter(1, COLUMNS, f), 0),
    "embedding_bag": (lambda f: F.embedding_bag(GROUP, f[0], GROUP.new_tensor([0, 2]), mode="sum"), N * C),
    "embedding_bag with weights": (
        lambda f: F.embedding_bag(GROUP, f[0], GROUP * 0, mode="sum", per_sample_weights=f[0, :, 0].contiguous()),
        N * C,
    ),
    "index_put accumulating": (lambda f: f.new_zeros(K, C).index_put((GROUP,), f[0], accumulate=True), N * C),
    "index_put": (lambda f: f.new_zeros(N, C).index_put((torch.arange(N),), f[0]), 0),
    "power iteration": (lambda f: power_iteration(f[0], rounds=3), 3 * 2 * N * C),
    "softmax, layer norm, gelu": (lambda f: F.gelu(F.layer_norm(f.softmax(dim=1), (C,))), 0),
    "top-k, sort, argmin": (lambda f: (f.topk(2), f.sort(dim=1), f.argmin(dim=1), f.amax(dim=1)), 0),
    "masks": (lambda f: torch.zeros_like(f).where(f > 0, 1) * (f[..., 0] != 0)[..., None], 0),
}


@pytest.mark.parametrize("work", WORK)
def test_each_operator_matches_hand_counted_macs_on_both_routes(tiny_vit: Any, work: str):
    run, macs = WORK[work]
    routes = count_by_routes(model_that(tiny_vit(), run), image())
    assert routes.method == {"trace": macs, "dispatch": macs}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_method_share_includes_its_context(tiny_vit: Any, dtype: torch.dtype):
    method = create("score_pruning", score="cls")
    model = DownsampledViT(tiny_vit(), method, Schedule.explicit((K,), at=(1,))).to(dtype).eval()
    macs = count_macs(model, image().to(dtype))
    assert macs.total - macs.method == by_hand([17, 17, 9, 9], [17, 9, 9, 9])
    assert macs.method == 17 * C + N * HEADS  # the class token's row, and its mean over heads


def test_unknown_operator_is_an_error_on_each_route(tiny_vit: Any):
    model = model_that(tiny_vit(), torch.special.bessel_j0)
    with pytest.raises(CountError, match=r"special_bessel_j0.*as traced"):
        trace(model, image())
    with torch.inference_mode(), count_dispatched(model) as counter:
        model(image())
    assert counter.unknown == {"special_bessel_j0"}
    with pytest.raises(CountError, match=r"special_bessel_j0.*as dispatched"):
        count_macs(model, image())
    with pytest.raises(CountError, match=r"special_bessel_j0.*as dispatched"):
        spread_of_macs(model, [image()])


KERNELS: dict[str, Callable[..., object]] = {
    "efficient": lambda q, k, v: torch.ops.aten._scaled_dot_product_efficient_attention(q, k, v, None, False),
    "flash": torch.ops.aten._scaled_dot_product_flash_attention,
    "cudnn": lambda q, k, v: torch.ops.aten._scaled_dot_product_cudnn_attention(q, k, v, None, False),
    "flash on a CPU": torch.ops.aten._scaled_dot_product_flash_attention_for_cpu,
    "overrideable": torch.ops.aten._scaled_dot_product_fused_attention_overrideable,
}


@pytest.mark.parametrize("kernel", KERNELS)
def test_fused_attention_is_counted_with_every_kernel(tiny_vit: Any, kernel: str):
    batch, heads, n, m, width = 3, 2, 5, 7, 16

    def attend(patches: Tensor) -> None:
        # Only shapes, on the meta device: these kernels run on GPUs.
        q, k, v = (torch.zeros(batch, heads, length, width, device="meta") for length in (n, m, m))
        KERNELS[kernel](q, k, v)

    model = model_that(tiny_vit(), attend)
    with torch.inference_mode(), count_dispatched(model) as counter:
        model(image())
    assert counter.shares.method.total() == batch * heads * n * m * 2 * width
    assert not counter.unknown


def test_work_outside_the_model_is_not_counted(tiny_vit: Any):
    model = DownsampledViT(tiny_vit()).eval()
    with torch.inference_mode(), count_dispatched(model) as counter:
        torch.special.bessel_j0(image() @ image().mT)
    assert not counter.unknown
    assert counter.shares == operators.Shares(Counter(), Counter())


def test_unused_results_are_counted(tiny_vit: Any):
    # The tracer by itself would drop them.
    assert count_macs(model_that(tiny_vit(), lambda f: f @ f.mT), image()).method == N * N * C


def test_wrong_handle_is_an_error_that_names_the_operators(tiny_vit: Any, monkeypatch: pytest.MonkeyPatch):
    right = operators.COUNTED["matmul"]
    monkeypatch.setitem(operators.COUNTED, "matmul", lambda inputs, outputs: 0.99 * right(inputs, outputs))
    model = model_that(tiny_vit(), lambda f: f @ f.mT)
    with pytest.raises(CountError, match=r"of the method disagree: 8,110 by trace \(matmul.* 8,192 by dispatch"):
        count_macs(model, image())


def test_wrong_formula_is_an_error_that_names_the_operators(tiny_vit: Any, monkeypatch: pytest.MonkeyPatch):
    right = dispatch.FORMULAS["addmm"]
    monkeypatch.setitem(dispatch.FORMULAS, "addmm", lambda *args, **kwargs: right(*args, **kwargs) + N * C)
    model = DownsampledViT(tiny_vit()).eval()
    with pytest.raises(CountError, match=r"MAC counts of the backbone disagree.*by dispatch \(addmm.*by closed form"):
        count_macs(model, image())
    with pytest.raises(CountError, match="MAC counts of the backbone on a batch of 2 disagree"):
        spread_of_macs(model, [torch.cat([image(), image(1)])])


def test_count_missing_on_one_route_is_an_error(tiny_vit: Any):
    # One value is broadcast to the 16 places it is added to; the trace sees only the one value.
    spread = lambda f: f.new_zeros(K).index_put((GROUP,), f[0, 0, 0], accumulate=True)  # noqa: E731
    with pytest.raises(CountError, match=r"1 by trace \(index_put 1\); 16 by dispatch \(index_put 16\)"):
        count_macs(model_that(tiny_vit(), spread), image())


@pytest.mark.parametrize(
    ("figures", "apart"), [((0, 0), 0), ((0, 1), 1), ((1000, 999), 0.001), ((3, 3, 3), 0), ((2, 4, 3), 0.5)]
)
def test_zero_agrees_only_with_zero(figures: tuple[int, ...], apart: float):
    assert disagreement(figures) == pytest.approx(apart)


def test_no_operator_is_on_two_lists():
    names = [*operators.COUNTED, *operators.ELEMENTWISE, *operators.COMPARISON, *operators.MOVEMENT]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert not dispatch.DISPATCHED_FREE & {*names, *dispatch.FORMULAS}
    assert not dispatch.FORMULAS.keys() & {*operators.ELEMENTWISE, *operators.COMPARISON, *operators.MOVEMENT}


def choices() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every built-in method with its defaults, and with every other value of its boolean and literal parameters."""
    for name, cls in discover()[0].items():
        if not cls.__module__.startswith("tokbench.methods."):
            continue
        yield name, {}
        defaults = inspect.signature(cls.__init__).parameters
        for parameter, kind in typing.get_type_hints(cls.__init__).items():
            values = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
            for value in (False, True) if kind is bool else values:
                if value != defaults[parameter].default:
                    yield name, {parameter: value}


@pytest.mark.parametrize(("name", "params"), list(choices()))
def test_both_routes_agree_for_every_built_in_method(tiny_vit: Any, name: str, params: dict[str, Any]):
    model = DownsampledViT(tiny_vit(), create(name, **params), Schedule.stages(0.6, (1, 2))).eval()
    calibrate(model, image())
    routes = count_by_routes(model, image())
    assert disagreement(routes.method.values()) == 0
    assert disagreement(routes.backbone.values()) < 1e-4
