"""Tests of every method, and of the baselines against plain loops."""

import inspect
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch
from scipy import stats
from torch import Tensor

from tokbench import Context, DownsampledViT, Downsampler, Geometry, Schedule, Tokens, create
from tokbench.errors import UserError
from tokbench.registry import discover
from tokbench.vit.noise import uniform

HEADS, WIDTH = 2, 4  # of the attention in the contexts below
DIM = HEADS * WIDTH


def variants() -> Iterator[Any]:
    """Every method with every combination of its Literal and bool parameters (one at a time if there are many)."""
    for name, cls in discover()[0].items():
        hints = get_type_hints(cls.__init__)
        choices: dict[str, tuple[Any, ...]] = {}
        for parameter in inspect.signature(cls).parameters:
            if get_origin(hints[parameter]) is Literal:
                choices[parameter] = get_args(hints[parameter])
            elif hints[parameter] is bool:
                choices[parameter] = (False, True)
        every = [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
        if len(every) > 16:
            every = [{}] + [{parameter: value} for parameter, values in choices.items() for value in values]
        for params in every:
            try:
                create(name, **params)
            except UserError:
                continue  # a combination that the method rejects
            yield pytest.param((name, params), id=f"{name}({','.join(f'{k}={v}' for k, v in params.items())})")


Variant = tuple[str, dict[str, Any]]
VARIANTS = list(variants())
EACH = pytest.mark.parametrize("variant", VARIANTS)


def noisy(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def context_of(
    x: Tensor,
    n: int,
    needs: frozenset[str],
    depth: int = 1,
    ids: Tensor | None = None,
    noise: Callable[[], Tensor] | None = None,
) -> Context:
    """A context with the self-attention of x (B, P+N, D)."""
    batch, length, _ = x.shape
    prefix = length - n
    q, k, v = (
        (x.detach().float() @ noisy(DIM, DIM, seed=10 + part)).view(batch, length, HEADS, WIDTH).transpose(1, 2)
        for part in range(3)
    )
    matrix = (q @ k.mT / WIDTH**0.5).softmax(dim=-1)
    fields = {
        "keys": k[:, :, prefix:].mean(dim=1).to(x.dtype),
        "values": v[:, :, prefix:].to(x.dtype),
        "attention": matrix.to(x.dtype),
        "cls_attention": matrix[:, :, 0, prefix:].mean(dim=1),
        "received": matrix[..., prefix:].sum(dim=(1, 2)),
    }
    ids = torch.arange(batch) if ids is None else ids
    return Context(
        depth=depth,
        depths=(1, 2),
        stage=depth - 1,
        noise=noise or (lambda: uniform(0, ids, depth, n)),
        **{name: fields[name] for name in needs},
    )


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


# Every method


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


@EACH
def test_every_method_runs_in_a_model_at_each_of_its_sites(variant: Variant, tiny_vit: Callable[..., Any]):
    name, params = variant
    vit, x = tiny_vit(), noisy(3, 3, 32, 32)
    for site in create(name, **params).sites:
        torch.manual_seed(0)
        method = create(name, **params)
        schedule = Schedule.stages(0.5, (1, 2))
        model = DownsampledViT(vit, method, schedule, site=site).eval()
        counts: list[int] = []
        pixels = x.clone().requires_grad_()
        logits = model(pixels, observe=lambda _, tokens, into=counts: into.append(tokens.n_patches))
        assert logits.shape == (3, 10)
        assert logits.isfinite().all()
        if not method.adaptive:
            n, layout, plan = 16, (4, 4), []
            for depth in (1, 2):
                keep = -(-n // 2)
                n, layout = method.count(keep, n, depth, layout), method.layout_after(keep, layout)
                plan.append(n)
            assert counts == [16, *plan, plan[-1]]
        logits.square().sum().backward()
        assert pixels.grad.isfinite().all()
        assert (pixels.grad != 0).flatten(1).any(dim=1).all()
        with torch.no_grad():
            assert torch.equal(model(x), model(x))
            for b in range(3):
                alone = model(x[b : b + 1], torch.tensor([b]))
                assert torch.allclose(alone[0], logits[b], rtol=1e-4, atol=1e-4)


@EACH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_method_runs_in_a_half_precision_model(
    variant: Variant, dtype: torch.dtype, tiny_vit: Callable[..., Any]
):
    name, params = variant
    torch.manual_seed(0)
    model = DownsampledViT(tiny_vit(std=0.05).to(dtype), create(name, **params), Schedule.stages(0.5, (1, 2)))
    with torch.no_grad():
        logits = model(noisy(2, 3, 32, 32).to(dtype))
    assert logits.dtype == dtype
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", list(discover()[0]))
def test_every_method_is_described(name: str):
    cls = discover()[0][name]
    assert cls.__doc__
    assert cls.paper is not None
    assert cls.site in cls.sites
    assert len(name.splitlines()) == 1
    assert name.isidentifier()  # so that the command line can name it
    if cls.schedule is not None:
        schedules = []
        for keep in (None, 0.7):
            try:
                schedules.append(Schedule.parse(cls.schedule, keep))
            except UserError:
                continue
        assert len(schedules) == 1
    for parameter in inspect.signature(cls).parameters.values():
        assert parameter.default is not parameter.empty
        assert f"{parameter.name}:" in cls.__init__.__doc__


# Selecting by score


def scored(scores: list[list[float]], field: str, seed: int = 0) -> tuple[Tokens, Context]:
    score = torch.tensor(scores)
    batch, n = score.shape
    noise = uniform(seed, torch.arange(batch), 0, n)
    context = Context(depth=0, depths=(0,), stage=0, noise=noise, **{field: score})
    return Tokens.from_sequence(noisy(batch, 1 + n, 3), (1, n)), context


@pytest.mark.parametrize(("score", "field"), [("received", "received"), ("cls", "cls_attention")])
def test_score_pruning_keeps_the_highest_scores_in_order(score: str, field: str):
    scores = noisy(20, 9, seed=4).abs().tolist()
    tokens, context = scored(scores, field)
    method = create("score_pruning", score=score)
    assert method.needs == {field}
    for keep in range(1, 9):
        after = method(tokens, keep, context)
        for b, row in enumerate(scores):
            ranked = sorted(range(9), key=lambda i: -row[i])
            best = sorted(ranked[:keep])
            assert [after.owner[b].tolist().index(j) for j in range(keep)] == best
            assert torch.equal(after.patches[b], tokens.patches[b, best])


def test_random_selection_keeps_every_subset_equally_often():
    method, batch = create("random_selection"), 6000
    tokens = Tokens.from_sequence(torch.zeros(batch, 6, 1), (1, 5))
    for keep in (1, 2, 4):
        context = Context(depth=3, depths=(3,), stage=0, noise=uniform(7, torch.arange(batch), 3, 5))
        after = method(tokens, keep, context)
        assert ((after.owner >= 0).sum(dim=1) == keep).all()
        seen = Counter(tuple(i for i in range(5) if row[i] >= 0) for row in after.owner.tolist())
        subsets = list(itertools.combinations(range(5), keep))
        assert set(seen) == set(subsets)
        assert stats.chisquare([seen[subset] for subset in subsets]).pvalue > 0.001


@pytest.mark.parametrize("name", ["random_selection", "importance_sampling"])
def test_a_random_subset_keeps_its_order(name: str):
    method = create(name)
    tokens = Tokens.from_sequence(noisy(50, 10, 2), (3, 3))
    after = method(tokens, 5, context_of(noisy(50, 10, DIM), 9, frozenset({"received"})))
    for b, row in enumerate(after.owner.tolist()):
        kept = [i for i in range(9) if row[i] >= 0]
        assert [row[i] for i in kept] == list(range(5))
        assert torch.equal(after.patches[b], tokens.patches[b, kept])


@pytest.mark.parametrize(("score", "field"), [("received", "received"), ("cls", "cls_attention")])
def test_importance_sampling_draws_one_token_in_proportion_to_its_score(score: str, field: str):
    weights = [0.5, 3.0, 1.0, 1.5, 4.0]
    tokens, context = scored([weights] * 8000, field, seed=11)
    method = create("importance_sampling", score=score)
    assert method.needs == {field}
    drawn = Counter(row.index(0) for row in method(tokens, 1, context).owner.tolist())
    assert stats.chisquare([drawn[i] for i in range(5)], [8000 * w / sum(weights) for w in weights]).pvalue > 0.001


def test_importance_sampling_draws_pairs_without_replacement():
    weights = [0.5, 3.0, 1.0, 1.5]
    tokens, context = scored([weights] * 8000, "received", seed=12)
    after = create("importance_sampling")(tokens, 2, context)
    assert ((after.owner >= 0).sum(dim=1) == 2).all()
    drawn = Counter(tuple(i for i in range(4) if row[i] >= 0) for row in after.owner.tolist())
    total = sum(weights)
    chance = {
        (i, j): weights[i] / total * weights[j] / (total - weights[i])
        + weights[j] / total * weights[i] / (total - weights[j])
        for i, j in itertools.combinations(range(4), 2)
    }
    assert sum(chance.values()) == pytest.approx(1)
    assert stats.chisquare([drawn[pair] for pair in chance], [8000 * p for p in chance.values()]).pvalue > 0.001


def test_importance_sampling_draws_tokens_with_score_zero_last():
    tokens, context = scored([[0.0, 1.0, 0.0, 2.0, 0.0]] * 200, "received")
    method = create("importance_sampling")
    assert ((method(tokens, 2, context).owner >= 0) == torch.tensor([False, True, False, True, False])).all()
    after = method(tokens, 3, context)
    assert ((after.owner >= 0).sum(dim=1) == 3).all()
    assert (after.owner[:, [1, 3]] >= 0).all()
