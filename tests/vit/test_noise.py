"""The noise is splitmix64 of (seed, image, depth, token), uniform, and independent of the batch."""

import json
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tokbench.vit.noise import hashed, uniform

MASK = 2**64 - 1


def splitmix(state):
    """One output of splitmix64 with Python's unbounded integers."""
    z = (state + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_the_mixing_step_is_splitmix64():
    # From the algorithm's public test vectors: the first outputs for the seed 1234567.
    state, outputs = 1234567, []
    for _ in range(3):
        outputs.append(splitmix(state))
        state += 0x9E3779B97F4A7C15
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**63), 2**63 - 1), st.integers(0, 50), st.integers(0, 40))
def test_each_number_is_the_hash_of_its_four_keys(seed, image, depth, token):
    state = splitmix(seed & MASK)
    state = splitmix(state ^ (image & MASK))
    state = splitmix(state ^ depth)
    state = splitmix(state ^ token)
    given_noise = uniform(seed, torch.tensor([image]), depth, token + 1)
    assert given_noise.dtype == torch.float32
    assert given_noise.shape == (1, token + 1)
    assert float(given_noise[0, token]) == (state >> 40) / 2**24


@pytest.mark.parametrize("seed", [2**63, 2**64 - 1, 2**70, -(2**63) - 1])
def test_any_integer_is_a_seed(seed):
    assert uniform(seed, torch.arange(2), 0, 3).shape == (2, 3)


def test_an_images_noise_does_not_depend_on_the_batch():
    ids = torch.tensor([7, 0, 3, 12345678901, 5])
    noise = uniform(1, ids, 4, 30)
    order = torch.tensor([3, 0, 4, 2, 1])
    assert torch.equal(uniform(1, ids[order], 4, 30), noise[order])
    for position, image in enumerate(ids):
        assert torch.equal(uniform(1, image[None], 4, 30)[0], noise[position])
    assert torch.equal(uniform(1, ids, 4, 9), noise[:, :9])  # nor on the number of tokens


def test_seed_image_depth_and_token_each_change_it():
    noise = {
        (seed, depth): uniform(seed, torch.arange(50), depth, 50) for seed in (0, 1, -1, 2**40) for depth in (0, 1, 11)
    }
    numbers = torch.stack(list(noise.values()))
    # 30000 draws of 2^24 values coincide about 27 times by chance; whole rows or columns never.
    assert numbers.unique().numel() > 30000 - 60
    assert len({tuple(row) for row in numbers.reshape(-1, 50).tolist()}) == 600


@pytest.mark.parametrize(("seed", "depth"), [(0, 0), (1, 5), (-3, 11)])
def test_it_is_uniform_over_images_and_over_tokens(seed, depth):
    noise = uniform(seed, torch.arange(200), depth, 200)
    assert float(noise.min()) >= 0
    assert float(noise.max()) < 1
    assert stats.kstest(noise.flatten().numpy(), "uniform").pvalue > 0.001
    assert stats.kstest(noise[0].numpy(), "uniform").pvalue > 0.001
    assert stats.kstest(noise[:, 0].numpy(), "uniform").pvalue > 0.001


def test_neighbours_are_not_correlated():
    noise = uniform(0, torch.arange(300), 0, 301).double()
    images = noise[1:, 0], noise[:-1, 0]
    tokens = noise[:, 1:].flatten(), noise[:, :-1].flatten()
    depths = noise.flatten(), uniform(0, torch.arange(300), 1, 301).double().flatten()
    for one, other in (images, tokens, depths):
        assert abs(stats.pearsonr(one.numpy(), other.numpy()).statistic) < 3.3 / one.numel() ** 0.5


KEYS = [(0, [0, 1, 2**63 - 1, -1, -(2**63)], 0, 300), (-1, [7], 1, 1), (2**40, [12345678901, 5], 11, 196)]


def test_the_operator_for_gpus_says_the_same_to_a_compiler():
    torch.library.opcheck(hashed, (torch.arange(3), -5, 4, 30))
    seed_state = splitmix(7)
    signed = seed_state - 2**64 if seed_state >= 2**63 else seed_state
    assert torch.equal(hashed(torch.arange(3), signed, 4, 30), uniform(7, torch.arange(3), 4, 30))


def interpreted():
    """Print the numbers of the interpreted kernel."""
    from tokbench.vit import noise_kernel

    for seed, ids, depth, n in KEYS:
        print(json.dumps(noise_kernel.uniform(torch.tensor(ids), splitmix(seed & MASK), depth, n).tolist()))


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton comes with torch's CUDA builds only")
def test_the_kernel_gives_the_same_numbers(run_interpreted: Callable[[str], str]):
    printed = run_interpreted(__file__)
    for line, (seed, ids, depth, n) in zip(printed.splitlines(), KEYS, strict=True):
        assert json.loads(line) == uniform(seed, torch.tensor(ids), depth, n).tolist()


if __name__ == "__main__":
    interpreted()
