"""The DCT baseline against scipy's transforms."""

import math

import pytest
import scipy.fft
import torch
from blank_models import blank
from plain_math import noisy

from tokbench import Context, DownsampledViT, Schedule, Tokens, create
from tokbench.measure.macs import count_macs

NOTHING = Context(depth=0, depths=(0,), stage=0, noise=torch.zeros(0))


@pytest.mark.parametrize(
    ("n", "keeps"), [(2, [1]), (3, [1, 2]), (7, range(1, 7)), (12, range(1, 12)), (196, [1, 50, 138, 195])]
)
def test_the_lowest_frequencies_are_resampled(n: int, keeps: list[int]):
    x = noisy(2, 2 + n, 5, seed=n)
    tokens = Tokens.from_sequence(x, (1, n), prefix=2)
    for keep in keeps:
        after = create("dct")(tokens, keep, NOTHING)
        spectrum = scipy.fft.dct(x[:, 2:].double().numpy(), type=2, norm="ortho", axis=1)[:, :keep]
        expected = scipy.fft.idct(spectrum, type=2, norm="ortho", axis=1) * math.sqrt(keep / n)
        torch.testing.assert_close(after.patches.double(), torch.from_numpy(expected), rtol=1e-5, atol=1e-5)
        assert torch.equal(after.prefix, x[:, :2])


@pytest.mark.parametrize("n", [2, 5, 196])
def test_a_constant_and_a_slow_wave_are_preserved(n: int):
    place = (torch.arange(n) + 0.5) / n
    x = torch.stack([torch.full((n,), 3.0), (torch.pi * place).cos()], dim=1)
    tokens = Tokens.from_sequence(torch.cat([torch.zeros(1, 2), x])[None], (1, n))
    for keep in {max(2, n // 3), n - 1} - {n} | ({1} if n == 2 else set()):
        after = create("dct")(tokens, keep, NOTHING).patches[0]
        torch.testing.assert_close(after[:, 0], torch.full((keep,), 3.0))
        if keep > 1:
            torch.testing.assert_close(
                after[:, 1], (torch.pi * (torch.arange(keep) + 0.5) / keep).cos(), rtol=0, atol=1e-5
            )


@pytest.mark.parametrize("n", [2, 3, 10, 13])
def test_each_patch_belongs_to_the_part_that_contains_it(n: int):
    tokens = Tokens.from_sequence(noisy(1, 1 + n, 3, seed=0), (1, n))
    for keep in range(1, n):
        after = create("dct")(tokens, keep, NOTHING)
        for i in range(n):
            # The part's bounds k/K and (k+1)/K around the token's centre (2i+1)/2N, multiplied out.
            k = after.owner[0, i].item()
            assert 2 * n * k <= (2 * i + 1) * keep < 2 * n * (k + 1)
        assert after.size.sum() == n
        assert after.size.min() >= 1
        assert after.size[0].tolist() == [after.owner[0].tolist().count(k) for k in range(keep)]


def test_macs_are_those_of_the_resampling():
    vit = blank("deit_tiny_patch16_224")
    macs = count_macs(
        DownsampledViT(vit, create("dct"), Schedule.stages(0.5, (3,))).eval(), torch.zeros(1, 3, 224, 224)
    )
    assert macs.ledger.leaving == (196,) * 3 + (98,) * 9
    matrix, product = 98 * 98 * 196, 98 * 196 * 192
    accounts = 196 * 192 + 2 * 196  # at most: vectors, weights, sizes
    assert 0 <= macs.method - matrix - product <= accounts
