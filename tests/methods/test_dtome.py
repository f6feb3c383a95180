"""DToMe against its formulas in plain loops."""

from collections.abc import Callable

import pytest
import torch
from plain_math import cosine, drawn
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tokbench import Context, DownsampledViT, Downsampler, Geometry, Schedule, Tokens, create

GRID = (1, 9)


def made(*thresholds: float, counts: tuple[int, ...] = (6, 4)) -> Downsampler:
    method = create("dtome")
    method.setup(Geometry(4, 2, (1, 2), GRID, counts))
    if thresholds:
        method.set_extra_state(torch.tensor(thresholds, dtype=torch.float64))
    return method


def context_of(keys: Tensor, stage: int = 0) -> Context:
    return Context(depth=stage + 1, depths=(1, 2), stage=stage, noise=torch.empty(0), keys=keys)


def matches(keys: list[list[float]], prefix: int, present: int) -> dict[int, tuple[float, int]]:
    """The best target of each source among the first `present` tokens, and how similar the two are."""
    sources = [i for i in range(present) if (prefix + i) % 2 == 0]
    targets = [i for i in range(present) if (prefix + i) % 2 == 1]
    return {a: max((cosine(keys[a], keys[b]), -b) for b in targets) for a in sources if targets}


def groups(keys: list[list[float]], prefix: int, threshold: float, present: int) -> list[list[int]]:
    """The members of each token that is left: unmerged sources, then targets."""
    merged = {a: -b for a, (similarity, b) in matches(keys, prefix, present).items() if similarity > threshold}
    sources = [i for i in range(present) if (prefix + i) % 2 == 0]
    targets = [i for i in range(present) if (prefix + i) % 2 == 1]
    left = [[a] for a in sources if a not in merged]
    return left + [[b] + [a for a in merged if merged[a] == b] for b in targets]


@pytest.mark.parametrize("prefix", [0, 1, 2])
@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.6, 0.95, 1.0])
def test_pairs_above_the_threshold_are_merged_by_size(prefix: int, threshold: float):
    for seed, n in enumerate((2, 3, 8, 9)):
        present = [n, max(1, n // 2), n]
        valid = torch.arange(n) < torch.tensor(present)[:, None]
        keys, x = drawn(seed, 3, n, 3), drawn(seed + 20, 3, prefix + n, 4)
        size = torch.randint(1, 4, (3, n), generator=torch.Generator().manual_seed(seed)).float()
        tokens = Tokens.from_sequence(x, (1, n), prefix).replace(size=size)
        tokens = Tokens(tokens.x, tokens.size, tokens.owner, tokens.grid, valid=valid)
        after = made(0.5, threshold)(tokens, 1, context_of(keys, stage=1))
        assert torch.equal(after.prefix, x[:, :prefix])
        for b in range(3):
            expected = groups(keys[b].tolist(), prefix, threshold, present[b])
            kept = [k for k in range(after.n_patches) if after.valid[b, k]]
            assert len(kept) == len(expected)
            for k, members in zip(kept, expected, strict=True):
                mass = size[b, members].sum()
                assert after.size[b, k] == mass
                assert [i for i in range(n) if after.owner[b, i] == k] == sorted(members)
                mean = (size[b, members, None] * tokens.patches[b, members]).sum(dim=0) / mass
                torch.testing.assert_close(after.patches[b, k], mean)


def test_equal_similarities_are_merged_into_the_earlier_target():
    after = made(0.9, 0.9)(Tokens.from_sequence(drawn(0, 1, 9, 4), (1, 8)), 4, context_of(torch.ones(1, 8, 3)))
    # Sources are 1, 3, 5, 7; all are equal to target 0, which is the first of the four groups after the sources'.
    assert after.owner[0, 1::2].unique().tolist() == after.owner[0, :1].tolist()
    assert after.size[after.valid].tolist() == [5, 1, 1, 1]


def threshold_of(keys: Tensor, prefix: int, removed: int) -> float:
    """The largest similarity that is left when the most similar pairs of a batch are merged, at least 0."""
    every = [found for image in keys.tolist() for found, _ in matches(image, prefix, len(image)).values()]
    descending = sorted(every, reverse=True)
    return max(descending[min(removed * len(keys), len(descending) - 1)], 0.0)


@pytest.mark.parametrize("prefix", [0, 1])
def test_thresholds_are_the_mean_over_images_of_those_of_their_batches(prefix: int):
    batches = [drawn(seed, images, 9, 3) for seed, images in enumerate((5, 5, 2))]
    x = [drawn(30 + seed, len(keys), prefix + 9, 4) for seed, keys in enumerate(batches)]
    for counts in [(7, 5), (6, 5), (5, 5), (9, 8)]:
        method = made(counts=counts)

        def run(reduction, method=method, counts=counts):
            for keys, sequence in zip(batches, x, strict=True):
                tokens = Tokens.from_sequence(sequence, GRID, prefix)
                after = reduction(tokens, counts[0], context_of(keys))
                removed = len(keys) * 9 - int(after.valid.sum())
                # No two similarities are equal here, so the most similar pairs are merged, as many as asked for, unless
                # the similarities that are left are negative.
                assert removed <= len(keys) * (9 - counts[0])

        method.calibrate(run)
        expected = sum(len(keys) * threshold_of(keys, prefix, method.removed[0]) for keys in batches) / sum(
            map(len, batches)
        )
        assert method.thresholds[0] == pytest.approx(expected, rel=1e-12)
        assert method.thresholds[1] == torch.inf  # it was never reached
        again = made(counts=counts)
        again.load_state_dict(method.state_dict())
        assert again.thresholds == method.thresholds


def test_a_batch_loses_as_many_tokens_as_the_schedule_says():
    keys = drawn(3, 40, 9, 2).abs()  # all similarities are positive
    method = made(counts=(6, 4))
    tokens = Tokens.from_sequence(drawn(4, 40, 10, 4), GRID)
    method.calibrate(lambda reduction: reduction(tokens, 6, context_of(keys)))
    after = method(tokens, 6, context_of(keys))
    assert int(after.valid.sum()) == 40 * 6
    counts = set(after.valid.sum(dim=1).tolist())
    assert len(counts) > 1
    assert min(counts) >= 5 == method.count(1, 9, 1, GRID)


def test_an_image_does_not_depend_on_one_that_merges_nothing(tiny_vit: Callable[..., VisionTransformer]):
    x = drawn(7, 6, 3, 32, 32).float()
    x[0] = drawn(8, 3, 32, 32).float() * 20  # unlike the others
    model = DownsampledViT(tiny_vit(), create("dtome"), Schedule.stages(0.7, (0, 1, 2))).eval()
    model.needs_calibration = False
    uneven = 0
    for threshold in torch.linspace(0.2, 0.99, 25).tolist():
        model.downsampler.thresholds = (threshold, 0.3, 0.3)
        counts: list[int] = []
        with torch.no_grad():
            together = model(x, observe=lambda depth, tokens, into=counts: into.append(tokens.n_patches))
            alone = torch.cat([model(x[i : i + 1]) for i in range(6)])
            tokens = [model.through(model.embed(x[i : i + 1]), range(1), torch.tensor([i])).n_patches for i in range(6)]
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)
        uneven += max(tokens) == 16 > min(tokens)
    assert uneven > 1  # thresholds at which some image keeps all of its tokens, and others do not


def test_thresholds_keep_their_digits_in_half_precision():
    method = made(0.9001234567, 0.8).to(torch.bfloat16)
    assert method.thresholds == (0.9001234567, 0.8)
