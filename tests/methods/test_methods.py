"""Tests of every method, and of the baselines against plain loops."""

from collections import Counter

import pytest
import torch
from method_calls import DIM, EACH, HEADS, Variant, context_of, noisy
from torch import Tensor

from tokbench import Downsampler, Geometry, Tokens, create
from tokbench.vit.noise import uniform


def made(variant: Variant, grid: tuple[int, int], keep: int) -> Downsampler:
    """The method, set up for two reductions of tokens on that grid, with perturbed weights."""
    torch.manual_seed(0)
    name, params = variant
    method = create(name, **params)
    n = grid[0] * grid[1]
    first = method.count(keep, n, 1, grid)
    second = max(1, first // 2)
    counts = (first, method.count(second, first, 2, method.layout_after(keep, grid)) if second < first else first)
    method.setup(Geometry(dim=DIM, heads=HEADS, depths=(1, 2), grid=grid, counts=counts))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    if method.calibrated:
        tokens = Tokens.from_sequence(noisy(2, 1 + n, DIM, seed=3), grid)
        method.calibrate(lambda reduction: reduction(tokens, keep, context_of(tokens.x, n, method.needs)))
    return method.eval()


def reduced(method: Downsampler, tokens: Tokens, keep: int, depth: int = 1, ids: Tensor | None = None) -> Tokens:
    context = context_of(tokens.x, tokens.n_patches, method.needs, depth, ids)
    return method(tokens, keep, context)


def assert_consistent(before: Tokens, after: Tokens) -> None:
    """Assert that sizes and owners are valid and consistent with each other and with those before."""
    n, patches = after.n_patches, before.owner.shape[1]
    assert after.owner.dtype == torch.int64
    assert after.size.dtype == torch.float32
    assert int(after.owner.min()) >= -1
    assert int(after.owner.max()) < n
    assert after.grid == before.grid
    assert after.layout is None or after.layout[0] * after.layout[1] == n
    assert bool((after.size > 0).all()) or after.valid is not None
    assert bool((after.size.sum(dim=1) <= before.size.sum(dim=1) * (1 + 1e-5)).all())
    if torch.equal(after.size, after.size.round()):
        valid = torch.ones_like(after.size, dtype=torch.bool) if after.valid is None else after.valid
        for b in range(after.size.shape[0]):
            owned = Counter(after.owner[b].tolist())
            assert [owned[j] for j in range(n) if valid[b, j]] == after.size[b, valid[b]].tolist()
            assert after.size[b, valid[b]].sum() + owned[-1] == patches
    # Tokens are not split: patches that shared a token still share one.
    for old, new in zip(before.owner.tolist(), after.owner.tolist(), strict=True):
        went: dict[int, int] = {}
        for was, now in zip(old, new, strict=True):
            if was < 0:
                assert now < 0
            else:
                assert went.setdefault(was, now) == now


@EACH
@pytest.mark.parametrize(
    ("grid", "keep"), [((1, 2), 1), ((2, 2), 1), ((2, 2), 3), ((3, 4), 11), ((3, 4), 1), ((3, 4), 5), ((6, 5), 13)]
)
@pytest.mark.parametrize("prefix", [1, 3])
def test_the_count_is_as_promised_and_sizes_and_owners_are_consistent(
    variant: Variant, grid: tuple[int, int], keep: int, prefix: int
):
    method, n = made(variant, grid, keep), grid[0] * grid[1]
    x = noisy(2, prefix + n, DIM)
    tokens = Tokens.from_sequence(x, grid, prefix)
    after = reduced(method, tokens, keep)
    assert isinstance(after, Tokens)
    promised = method.count(keep, n, 1, grid)
    assert 1 <= promised <= n
    if not method.adaptive:
        assert after.n_patches == promised
        assert after.valid is None
    if after.n_patches < n:
        assert after.layout == method.layout_after(keep, grid)
    assert after.x.shape == (2, prefix + after.n_patches, DIM)
    assert after.x.dtype == x.dtype
    assert torch.equal(after.prefix, x[:, :prefix])
    assert after.x.isfinite().all()
    assert torch.equal(x, noisy(2, prefix + n, DIM))  # the input is unchanged
    assert_consistent(tokens, after)


@EACH
def test_sizes_and_owners_are_consistent_after_a_second_reduction(variant: Variant):
    method = made(variant, (4, 6), 12)
    first = reduced(method, Tokens.from_sequence(noisy(3, 25, DIM), (4, 6)), 12)
    if first.n_patches < 3:
        pytest.skip("nothing is left to reduce")
    keep = max(1, method.count(12, 24, 1, (4, 6)) // 2)
    assert_consistent(first, reduced(method, first, keep, depth=2))


@EACH
def test_equal_tokens_can_be_reduced(variant: Variant):
    method = made(variant, (3, 4), 5)
    tokens = Tokens.from_sequence(torch.ones(2, 13, DIM), (3, 4))
    after = reduced(method, tokens, 5)
    assert after.x.isfinite().all()
    assert method.adaptive or after.n_patches == method.count(5, 12, 1, (3, 4))
    assert_consistent(tokens, after)


@EACH
def test_a_reduction_is_deterministic(variant: Variant):
    method = made(variant, (3, 4), 5)
    tokens = Tokens.from_sequence(noisy(2, 13, DIM), (3, 4))
    first, second = reduced(method, tokens, 5), reduced(method, tokens, 5)
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.owner, second.owner)


@EACH
def test_an_image_gives_the_same_result_alone_and_in_a_batch(variant: Variant):
    method = made(variant, (4, 5), 8)
    x, ids = noisy(5, 21, DIM), torch.tensor([9, 4, 70, 2, 11])
    together = reduced(method, Tokens.from_sequence(x, (4, 5)), 8, ids=ids)
    for b in range(5):
        alone = reduced(method, Tokens.from_sequence(x[b : b + 1], (4, 5)), 8, ids=ids[b : b + 1])
        valid = slice(None) if together.valid is None else together.valid[b]
        mine = slice(None) if alone.valid is None else alone.valid[0]
        assert torch.allclose(together.patches[b][valid], alone.patches[0][mine], rtol=1e-5, atol=1e-5)
        assert torch.allclose(together.size[b][valid], alone.size[0][mine])
        if together.valid is None:
            assert torch.equal(together.owner[b], alone.owner[0])


@EACH
def test_only_a_stochastic_method_reads_noise(variant: Variant):
    method = made(variant, (3, 4), 5)
    tokens = Tokens.from_sequence(noisy(2, 13, DIM), (3, 4))
    asked = []

    def noise() -> Tensor:
        asked.append(True)
        return uniform(0, torch.arange(2), 1, 12)

    method(tokens, 5, context_of(tokens.x, 12, method.needs, noise=noise))
    assert bool(asked) == method.stochastic


@EACH
def test_gradients_flow_from_each_new_token_to_the_input(variant: Variant):
    method = made(variant, (3, 4), 5)
    x = noisy(2, 13, DIM).requires_grad_()
    after = reduced(method, Tokens.from_sequence(x, (3, 4)), 5)
    for b in range(2):
        for j in range(after.n_patches):
            if after.valid is not None and not after.valid[b, j]:
                continue
            (gradient,) = torch.autograd.grad(after.patches[b, j].sum(), x, retain_graph=True)
            assert gradient.isfinite().all()
            assert (gradient[b, 1:] != 0).any()
            assert (gradient[torch.arange(2) != b] == 0).all()  # there is no gradient between images
    (gradient,) = torch.autograd.grad((after.patches * noisy(*after.patches.shape)).sum(), x)
    sources = (gradient[:, 1:] != 0).any(dim=2).sum(dim=1)
    present = after.n_patches if after.valid is None else after.valid.sum(dim=1)
    assert (sources >= present).all()


@EACH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_data_types_are_kept_and_results_are_finite(variant: Variant, dtype: torch.dtype):
    method = made(variant, (3, 4), 5).to(dtype)
    tokens = Tokens.from_sequence(noisy(2, 13, DIM).to(dtype), (3, 4))
    after = reduced(method, tokens, 5)
    assert after.x.dtype == dtype
    assert after.x.isfinite().all()
    assert torch.equal(after.prefix, tokens.prefix)
    assert_consistent(tokens, after)


@EACH
def test_large_half_precision_activations_do_not_overflow(variant: Variant):
    # Residual streams of trained ViTs reach several hundred, whose squares exceed float16's maximum, 65504.
    method = made(variant, (3, 4), 5).half()
    tokens = Tokens.from_sequence((noisy(2, 13, DIM) * 300).half(), (3, 4))
    after = reduced(method, tokens, 5)
    assert after.x.isfinite().all()
    assert_consistent(tokens, after)
