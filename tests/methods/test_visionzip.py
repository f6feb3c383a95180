"""VisionZip against its formulas in plain loops."""

import pytest
import torch
from plain_math import cosine, drawn, merged
from torch import Tensor

from tokbench import Context, Tokens, create
from tokbench.errors import UserError


def context_of(attention: Tensor, keys: Tensor) -> Context:
    return Context(depth=3, depths=(3,), stage=0, noise=torch.zeros(0), cls_attention=attention, keys=keys)


def mean(vectors: list[list[float]]) -> list[float]:
    return [sum(channel) / len(vectors) for channel in zip(*vectors, strict=True)]


def expected(
    x: list[list[float]], a: list[float], keys: list[list[float]], keep: int, share: float, how: str
) -> tuple[list[list[float]], list[list[int]]]:
    """The returned tokens, and the members of each."""
    targets = max(1, round(share * keep))
    ranked = sorted(range(len(a)), key=lambda i: (-a[i], i))
    dominant = sorted(ranked[: keep - targets])
    rest = [i for i in range(len(a)) if i not in dominant]
    step = len(rest) // targets
    groups = {rest[t * step]: list[int]() for t in range(targets)}
    for i in rest:
        if i not in groups:
            groups[max(groups, key=lambda t: cosine(keys[i], keys[t]))].append(i)
    contextual = []
    for target, others in groups.items():
        if how == "mean":
            contextual.append(mean([x[target]] + [x[i] for i in others]))
        else:
            added = mean([x[i] for i in others]) if others else [0.0] * len(x[0])
            contextual.append([u + v for u, v in zip(x[target], added, strict=True)])
    return [x[i] for i in dominant] + contextual, [[i] for i in dominant] + [[t, *g] for t, g in groups.items()]


def check(
    tokens: Tokens, attention: Tensor, keys: Tensor, keep: int, share: float = 10 / 64, how: str = "sum"
) -> Tokens:
    method = create("visionzip", contextual=share, merged=how)
    after = method(tokens, keep, context_of(attention, keys))
    assert after.n_patches == keep == method.count(keep, tokens.n_patches, 3, None)
    assert torch.equal(after.prefix, tokens.prefix)
    for b in range(tokens.x.shape[0]):
        x, groups = expected(tokens.patches[b].tolist(), attention[b].tolist(), keys[b].tolist(), keep, share, how)
        torch.testing.assert_close(after.patches[b], torch.tensor(x, dtype=torch.float64))
        assert after.size[b].tolist() == [sum(tokens.size[b, i].item() for i in group) for group in groups]
        moved = {i: k for k, group in enumerate(groups) for i in group}
        assert after.owner[b].tolist() == [moved.get(i, -1) for i in tokens.owner[b].tolist()]
    return after


def attention_of(n: int, seed: int, images: int = 3) -> Tensor:
    return drawn(seed, images, n + 1).softmax(dim=1)[:, 1:]


@pytest.mark.parametrize("how", ["sum", "mean"])
@pytest.mark.parametrize("share", [0.01, 10 / 64, 0.5, 1.0])
def test_dominant_tokens_are_kept_and_the_others_merged_into_targets(share: float, how: str) -> None:
    for n, prefix in [(2, 1), (3, 1), (9, 2), (16, 1), (25, 1)]:
        tokens = Tokens.from_sequence(drawn(n, 3, prefix + n, 5), (1, n), prefix)
        for keep in range(1, n):
            check(tokens, attention_of(n, 40 + n), drawn(80 + n, 3, n, 4), keep, share, how)


@pytest.mark.parametrize("how", ["sum", "mean"])
def test_a_second_reduction_counts_tokens_alike_whatever_their_size(how: str) -> None:
    tokens = Tokens.from_sequence(drawn(1, 3, 1 + 20, 5), (4, 5))
    first = check(tokens, attention_of(20, 1), drawn(2, 3, 20, 4), 12, 0.3, how)
    check(first, attention_of(12, 3), drawn(4, 3, 12, 4), 6, 0.4, how)
    check(merged([3, 1, 2, 1, 4, 1, 1]), attention_of(7, 5), drawn(6, 3, 7, 4), 4, 0.5, how)


def test_patches_dropped_before_stay_dropped_and_the_others_are_all_kept() -> None:
    tokens = Tokens.from_sequence(drawn(1, 1, 7, 3), (1, 6)).select(torch.tensor([[0, 2, 4, 5]]))
    after = check(tokens, attention_of(4, 1, 1), drawn(2, 1, 4, 4), 2)
    assert after.owner[0, [1, 3]].tolist() == [-1, -1]
    assert after.size.sum() == 4


def by_hand() -> tuple[Tokens, Tensor, Tensor]:
    x = torch.tensor([[[0.0], [1.0], [2.0], [4.0], [8.0], [16.0], [32.0]]], dtype=torch.float64)
    attention = torch.tensor([[0.1, 0.3, 0.1, 0.05, 0.1, 0.2]])
    keys = torch.tensor([[[1.0, 0], [9, 9], [0, 1], [0, 2], [3, 1], [5, 5]]], dtype=torch.float64)
    return Tokens.from_sequence(x, (2, 3)), attention, keys


def test_by_hand() -> None:
    # Tokens 1 and 5 are dominant. Of 0, 2, 3, 4, the targets are 0 and 3. By their keys, 2 belongs to 3 and 4 to 0.
    after = check(*by_hand(), 4, share=0.5)
    assert after.owner.tolist() == [[2, 0, 3, 3, 2, 1]]
    assert after.patches[0, :, 0].tolist() == [2, 32, 1 + 16, 8 + 4]
    assert check(*by_hand(), 4, 0.5, "mean").patches[0, :, 0].tolist() == [2, 32, (1 + 16) / 2, (8 + 4) / 2]
    # With one contextual token, the target is 0 and all the others are its.
    assert check(*by_hand(), 3, share=0.2).patches[0, :, 0].tolist() == [2, 32, 1 + (4 + 8 + 16) / 3]


def test_a_target_without_tokens_stays_as_it_is() -> None:
    tokens, attention, keys = by_hand()
    keys[0, [2, 4]] = torch.tensor([2.0, 0], dtype=torch.float64)
    after = check(tokens, attention, keys, 4, share=0.5)
    assert after.patches[0, :, 0].tolist() == [2, 32, 1 + (4 + 16) / 2, 8]


def test_ties_go_to_the_earlier_token_and_the_earlier_target() -> None:
    tokens, _, keys = by_hand()
    after = check(tokens, torch.full((1, 6), 0.1), torch.ones_like(keys), 4, share=0.5)
    assert after.owner.tolist() == [[0, 1, 2, 2, 3, 2]]


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_impossible_parameters(share: float) -> None:
    with pytest.raises(UserError, match="must be above 0"):
        create("visionzip", contextual=share)
