"""Frequency-aware reduction against plain loops."""

import pytest
import timm
import torch

from tokbench import Context, DownsampledViT, Schedule, Tokens, create
from tokbench.errors import UserError
from tokbench.measure.macs import count_macs

PUBLISHED = {"deit_tiny_patch16_224": 0.8, "deit_small_patch16_224": 3.0}  # arXiv 2511.21477, table 1


def noisy(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def context_of(received: torch.Tensor, stage: int = 0) -> Context:
    return Context(depth=stage, depths=(0, 1, 2), stage=stage, noise=torch.empty(0), received=received)


def expected(
    members: list[list[int]], score: list[float], grid: tuple[int, int], keep: int, side: int
) -> list[list[int]]:
    """The image patches of each new token, from those of each old one; DC tokens last, by window."""
    h, w = grid
    down, across = min(side, h), min(side, w)
    if keep < down * across:
        down = across = 1
    window = []
    for patches in members:
        row = sum(p // w for p in patches) / len(patches)
        column = sum(p % w for p in patches) / len(patches)
        window.append((int(row * down / h), int(column * across / w)))
    mean = [value if len(patches) == 1 else float("-inf") for value, patches in zip(score, members, strict=True)]
    ranked = sorted(range(len(members)), key=lambda i: -mean[i])  # the sort is stable, as the method's is
    places = [(i, j) for i in range(down) for j in range(across)]
    low = {[i for i in ranked if window[i] == place][-1] for place in places}
    high = [i for i in ranked if i not in low][: keep - len(places)]
    rest = [i for i in range(len(members)) if i not in high]
    dc = [sorted(p for i in rest if window[i] == place for p in members[i]) for place in places]
    return [members[i] for i in sorted(high)] + dc


def patches_of(owner: list[int], count: int) -> list[list[int]]:
    return [[p for p, token in enumerate(owner) if token == k] for k in range(count)]


@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (1, 6), (6, 2), (2, 1), (1, 2)])
@pytest.mark.parametrize(("side", "local"), [(2, 1), (2, 2), (3, 1), (1, 0)])
def test_three_reductions_match_the_formula(grid: tuple[int, int], side: int, local: int):
    n0 = grid[0] * grid[1]
    method = create("frequency", windows=side, local=local)
    for seed in range(4):
        image = noisy(2, 1 + n0, 5, seed=seed)
        tokens = Tokens.from_sequence(image, grid)
        for stage in range(3):
            n = tokens.n_patches
            if n < 2:
                break
            keep = (n - 1, (2 * n + 2) // 3, 1, n // 2)[(seed + stage) % 4] or 1
            received = noisy(2, n, seed=10 * seed + stage).abs()
            after = method(tokens, keep, context_of(received, stage))
            assert after.n_patches == keep == method.count(keep, n, stage, None)
            for b in range(2):
                before = patches_of(tokens.owner[b].tolist(), n)
                groups = expected(before, received[b].tolist(), grid, keep, side if stage < local else 1)
                assert patches_of(after.owner[b].tolist(), keep) == groups
                assert after.size[b].tolist() == [len(group) for group in groups]
                for k, group in enumerate(groups):
                    mean = image[b, [1 + p for p in group]].mean(dim=0)
                    assert torch.allclose(after.patches[b, k], mean, atol=1e-5)
            tokens = after
        assert (tokens.size.sum(dim=1) == n0).all()
        assert (tokens.owner >= 0).all()


def test_high_frequency_tokens_are_columns_above_the_mean():
    attention = noisy(3, 4, 10, 10, seed=7).softmax(dim=-1)
    received = attention.sum(dim=(1, 2))[:, 1:]
    tokens = Tokens.from_sequence(noisy(3, 10, 2, seed=8), (3, 3))
    after = create("frequency", windows=1)(tokens, 5, context_of(received))
    for b in range(3):
        high_pass = (attention[b] - 1 / 10).mean(dim=(0, 1))[1:].tolist()
        best = sorted(sorted(range(9), key=lambda i: -high_pass[i])[:4])
        assert torch.equal(after.patches[b, :4], tokens.patches[b, best])
        assert after.size[b].tolist() == [1, 1, 1, 1, 5]


def test_a_window_of_high_frequencies_has_a_dc_token():
    received = torch.zeros(1, 16)
    received[0, [0, 1, 4, 5]] = torch.tensor([9.0, 8.0, 6.0, 7.0])  # the whole upper left window
    after = create("frequency")(Tokens.from_sequence(noisy(1, 17, 2, seed=1), (4, 4)), 8, context_of(received))
    assert (after.size > 0).all()
    assert after.owner[0, 4] == 4  # the lowest of the four goes into the window's DC token, after the four kept tokens
    assert after.size[0, 4] == 1


def test_an_image_gives_the_same_result_in_any_batch():
    received, x = noisy(5, 20, seed=1).abs(), noisy(5, 21, 3, seed=2)
    together = create("frequency")(Tokens.from_sequence(x, (4, 5)), 9, context_of(received))
    for b in range(5):
        alone = create("frequency")(Tokens.from_sequence(x[b : b + 1], (4, 5)), 9, context_of(received[b : b + 1]))
        assert torch.equal(alone.x[0], together.x[b])
        assert torch.equal(alone.owner[0], together.owner[b])


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_compute_matches_the_paper(name: str):
    vit = timm.create_model(name, pretrained=False).eval()
    model = DownsampledViT(vit, create("frequency"), Schedule.stages(0.7)).eval()
    macs = count_macs(model, torch.zeros(1, 3, 224, 224))
    assert macs.ledger.leaving == (196,) * 3 + (138,) * 3 + (97,) * 3 + (68,) * 3
    assert round((macs.total - macs.method) / 1e9, 1) == PUBLISHED[name]


@pytest.mark.parametrize("params", [{"windows": 0}, {"local": -1}])
def test_invalid_parameters_are_rejected(params: dict[str, int]):
    with pytest.raises(UserError, match="frequency"):
        create("frequency", **params)
