"""Zero-TPrune against plain loops."""

import math

import pytest
import timm
import torch
from plain_math import cosine
from torch import Tensor

from tokbench import Context, DownsampledViT, Schedule, Tokens, create
from tokbench.errors import UserError
from tokbench.measure.macs import count_macs


def made(batch: int, n: int, seed: int, heads: int = 4, prefix: int = 1, depth: int = 3) -> tuple[Tokens, Context]:
    """Tokens and attention with heads of different sharpness, some of them outside the variance bounds."""
    generator = torch.Generator().manual_seed(seed)
    sharpness = torch.tensor([0.05, 0.6, 1.0, 3.0])[:heads, None, None]
    logits = torch.randn(batch, heads, prefix + n, prefix + n, generator=generator, dtype=torch.float64)
    logits = logits + torch.randn(batch, heads, 1, prefix + n, generator=generator, dtype=torch.float64)
    context = Context(
        depth=depth,
        depths=(depth,),
        stage=0,
        noise=torch.empty(0),
        attention=(sharpness * logits).softmax(dim=-1),
        keys=torch.randn(batch, n, 3, generator=generator, dtype=torch.float64),
    )
    x = torch.randn(batch, prefix + n, 4, generator=generator, dtype=torch.float64)
    return Tokens.from_sequence(x, (1, n), prefix), context


def voted(matrix: list[list[list[float]]], prefix: int, present: list[int], rounds: int) -> tuple[list[float], int]:
    """The importance of each patch in `present`, in that order, and the number of heads used."""
    here = list(range(prefix)) + [prefix + i for i in present]
    everyone = len(matrix[0])
    of_heads = []
    for head in matrix:
        graph = {(q, k): head[q][k] / sum(head[q][j] for j in here) for q in here for k in here}
        s = {k: math.sqrt(everyone) if prefix and k == 0 else 1.0 for k in here}
        for _ in range(rounds):
            s = {k: sum(graph[q, k] * s[q] for q in here) for k in here}
        of_heads.append([s[prefix + i] for i in present])
    chosen = []
    for s in of_heads:
        mean = sum(s) / len(s)
        if 0.01 <= sum((value - mean) ** 2 for value in s) / len(s) <= 0.7:
            chosen.append(s)
    heads = chosen or of_heads
    return [math.sqrt(sum(s[i] ** 2 for s in heads) / len(heads)) for i in range(len(present))], len(chosen)


def expected(matrix: list, keys: list, prefix: int, keep: int, share: float, rounds: int) -> tuple[list[int], int]:
    n = len(keys)
    first, _ = voted(matrix, prefix, list(range(n)), 1)
    ranked = sorted(range(n), key=lambda i: -first[i])
    half = n - n // 2
    similarity = {i: max(cosine(keys[i], keys[j]) for j in ranked[:half]) for i in ranked[half:]}
    removed = sorted(similarity, key=lambda i: -similarity[i])[: round(share * (n - keep))]
    left = [i for i in range(n) if i not in removed]
    score, heads = voted(matrix, prefix, left, rounds)
    best = sorted(range(len(left)), key=lambda i: -score[i])[:keep]
    return sorted(left[i] for i in best), heads


def test_each_stage_matches_its_formula():
    heads_seen = set()
    for seed in range(7):
        for prefix in (1, 0, 2):
            tokens, context = made(2, 9, seed, prefix=prefix)
            for share, keep in [(0.0, 4), (0.25, 2), (0.5, 5), (1.0, 3), (1.0, 8), (0.4, 1)]:
                after = create("zero_tprune", similar=share, shallow=7)(tokens, keep, context)
                for b in range(2):
                    wanted, heads = expected(
                        context.attention[b].tolist(), context.keys[b].tolist(), prefix, keep, share, 7
                    )
                    heads_seen.add(heads)
                    assert torch.equal(after.patches[b], tokens.patches[b, wanted])
    assert heads_seen >= {0, 1, 2, 3}  # of four heads, so the bounds matter


def test_all_heads_are_used_if_none_is_informative():
    tokens, context = made(3, 8, seed=1, heads=1)  # one head, near uniform
    for b in range(3):
        assert voted(context.attention[b].tolist(), 1, list(range(8)), 30)[1] == 0
    after = create("zero_tprune")(tokens, 5, context)
    for b in range(3):
        wanted, _ = expected(context.attention[b].tolist(), context.keys[b].tolist(), 1, 5, 0.25, 30)
        assert torch.equal(after.patches[b], tokens.patches[b, wanted])


@pytest.mark.parametrize(("depth", "rounds"), [(0, 30), (3, 30), (4, 5), (7, 5), (8, 1), (11, 1)])
def test_shallow_blocks_use_more_rounds(depth: int, rounds: int):
    tokens, context = made(40, 9, seed=5, depth=depth)
    chosen = create("zero_tprune")(tokens, 4, context).owner
    shallow = made(40, 9, seed=5, depth=0)[1]
    assert torch.equal(chosen, create("zero_tprune", shallow=rounds)(tokens, 4, shallow).owner)
    other = create("zero_tprune", shallow=31 - rounds)(tokens, 4, shallow).owner
    assert not torch.equal(chosen, other)


@pytest.mark.parametrize("n", [2, 3, 5, 6])
def test_the_smallest_counts(n: int):
    tokens, context = made(3, n, seed=2)
    for keep in range(1, n):
        for share in (0.0, 0.5, 1.0):
            after = create("zero_tprune", similar=share)(tokens, keep, context)
            assert after.n_patches == keep
            assert ((after.owner >= 0).sum(dim=1) == keep).all()


def test_an_image_gives_the_same_result_in_any_batch():
    tokens, context = made(6, 11, seed=3)
    together = create("zero_tprune")(tokens, 5, context)
    for b in range(6):
        alone = Context(
            depth=3,
            depths=(3,),
            stage=0,
            noise=torch.empty(0),
            attention=context.attention[b : b + 1],
            keys=context.keys[b : b + 1],
        )
        single = Tokens.from_sequence(tokens.x[b : b + 1], (1, 11))
        assert torch.equal(create("zero_tprune")(single, 5, alone).owner[0], together.owner[b])


def test_a_round_of_voting_is_counted_as_a_matrix_product():
    vit = timm.create_model("deit_tiny_patch16_224", pretrained=False).eval()
    image = torch.zeros(1, 3, 224, 224)

    def cost(rounds: int) -> int:
        method = create("zero_tprune", shallow=rounds)
        return count_macs(DownsampledViT(vit, method, Schedule.explicit((138,), (2,))).eval(), image).method

    assert cost(30) - cost(10) == 20 * 3 * 197**2


@pytest.mark.parametrize("params", [{"similar": 1.5}, {"similar": -0.1}, {"shallow": 0}, {"deep": 0}])
def test_invalid_parameters_are_rejected(params: dict[str, Tensor]):
    with pytest.raises(UserError, match="zero_tprune"):
        create("zero_tprune", **params)
