"""EViT against its formulas in plain loops."""

import torch
from blank_models import blank
from torch import Tensor

from tokbench import Context, DownsampledViT, Schedule, Tokens, create
from tokbench.measure.macs import count_macs


def noisy(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def context_of(attention: Tensor) -> Context:
    return Context(depth=3, depths=(3,), stage=0, noise=torch.zeros(0), cls_attention=attention)


def expected(x: list[list[float]], a: list[float], keep: int) -> tuple[list[list[float]], list[int]]:
    """The returned tokens, and the indices of the kept ones."""
    by_attention = sorted(range(len(a)), key=lambda i: (-a[i], i))
    kept = sorted(by_attention[:keep])
    fused = [0.0] * len(x[0])
    for i in by_attention[keep:]:
        for d in range(len(fused)):
            fused[d] += a[i] * x[i][d]
    return [x[i] for i in kept] + [fused], kept


def test_attentive_tokens_keep_their_order_and_the_others_are_fused():
    method = create("evit")
    for seed, (n, prefix) in enumerate([(2, 1), (3, 1), (9, 1), (9, 2), (12, 1)]):
        x = noisy(3, prefix + n, 4, seed=seed)
        attention = noisy(3, prefix + n, seed=50 + seed).softmax(dim=1)[:, prefix:]  # sums to less than one
        tokens = Tokens.from_sequence(x, (1, n), prefix)
        for keep in range(1, n):
            after = method(tokens, keep, context_of(attention))
            assert after.n_patches == keep + 1 == method.count(keep, n, 3, (1, n))
            assert torch.equal(after.prefix, x[:, :prefix])
            for b in range(3):
                patches, kept = expected(x[b, prefix:].tolist(), attention[b].tolist(), keep)
                torch.testing.assert_close(after.patches[b], torch.tensor(patches, dtype=torch.float64))
                owner = [kept.index(i) if i in kept else keep for i in range(n)]
                assert after.owner[b].tolist() == owner
                assert after.size[b].tolist() == [1.0] * keep + [n - keep]


def test_ties_go_to_the_earlier_token():
    tokens = Tokens.from_sequence(noisy(1, 7, 2, seed=0), (2, 3))
    after = create("evit")(tokens, 2, context_of(torch.full((1, 6), 0.1)))
    assert after.owner.tolist() == [[0, 1, 2, 2, 2, 2]]


def test_later_reductions_treat_the_fused_token_like_any_other():
    method = create("evit")
    tokens = Tokens.from_sequence(noisy(1, 7, 3, seed=1), (1, 6))
    first = method(tokens, 3, context_of(torch.tensor([[0.3, 0.1, 0.05, 0.2, 0.15, 0.02]])))
    assert first.owner.tolist() == [[0, 3, 3, 1, 2, 3]]
    kept = method(first, 2, context_of(torch.tensor([[0.1, 0.2, 0.3, 0.4]])))  # the fused token is first
    assert kept.size.tolist() == [[1, 3, 2]]
    assert kept.owner.tolist() == [[2, 1, 1, 2, 0, 1]]
    torch.testing.assert_close(kept.patches[:, 1], first.patches[:, 3])
    fused = method(first, 2, context_of(torch.tensor([[0.4, 0.3, 0.1, 0.2]])))  # and here the third highest
    assert fused.size.tolist() == [[1, 1, 4]]
    torch.testing.assert_close(fused.patches[:, 2], 0.1 * first.patches[:, 2] + 0.2 * first.patches[:, 3])


def test_dropped_patches_stay_dropped():
    tokens = Tokens.from_sequence(noisy(1, 7, 3, seed=2), (1, 6)).select(torch.tensor([[0, 2, 4, 5]]))
    after = create("evit")(tokens, 2, context_of(torch.tensor([[0.1, 0.4, 0.2, 0.3]])))
    assert after.owner.tolist() == [[2, -1, 0, -1, 2, 1]]
    assert after.size.tolist() == [[1, 1, 2]]


def test_counts_and_compute_match_the_paper():
    vit = blank("deit_small_patch16_224")
    model = DownsampledViT(vit, create("evit"), Schedule.stages(0.7)).eval()
    macs = count_macs(model, torch.zeros(1, 3, 224, 224))
    assert macs.ledger.leaving == (196,) * 3 + (139,) * 3 + (99,) * 3 + (71,) * 3
    assert round((macs.total - macs.method) / 1e9, 3) == 3.029
