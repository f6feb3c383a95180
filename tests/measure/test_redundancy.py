"""Spectra against NumPy's Fourier transform."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from noise_images import batches_of, noise
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tokbench.measure.redundancy import (
    measure_spectra,
    mixing_energies,
    ring_energies,
    ring_frequencies,
    rings,
)
from tokbench.vit.attention import Heads

MakeVit = Callable[..., VisionTransformer]

GRIDS = [(4, 4), (5, 7), (7, 7), (8, 8), (6, 10), (14, 14), (16, 16)]


def radius(mode: tuple[int, int], grid: tuple[int, int]) -> float:
    """A mode's frequency as a fraction of Nyquist, from the cycles along each side."""
    cycles = [min(k, side - k) / side for k, side in zip(mode, grid, strict=True)]
    return math.hypot(*cycles) / 0.5


# Rings


@pytest.mark.parametrize("grid", GRIDS)
def test_every_mode_is_in_the_ring_of_its_frequency(grid: tuple[int, int]) -> None:
    ring, middle = rings(grid), ring_frequencies(grid)
    width = middle[2] - middle[1]
    for mode in np.ndindex(*grid):
        place = int(ring[mode])
        if mode == (0, 0):
            assert (place, middle[place]) == (0, 0.0)
        else:
            assert place > 0
            assert abs(radius(mode, grid) - middle[place]) <= width / 2 + 1e-9
            # The ring alone shows whether a mode is above half of Nyquist.
            assert (middle[place] > 0.5) == (radius(mode, grid) > 0.5 + 1e-9)
    assert width >= 2 / max(grid) - 1e-9


@pytest.mark.parametrize("grid", GRIDS)
def test_ring_energies_sum_to_the_total_energy(grid: tuple[int, int]) -> None:
    signal = noise(2, 3, math.prod(grid), 5)
    assert ring_energies(signal, grid).sum(-1) == pytest.approx(signal.square().sum((-2, -1)), rel=1e-5)


@pytest.mark.parametrize("mode", [(0, 1), (1, 0), (2, 3), (7, 0), (5, 5), (7, 7)])
def test_wave_has_all_its_energy_in_the_ring_of_its_frequency(mode: tuple[int, int]) -> None:
    grid = (14, 14)
    y, x = torch.meshgrid(torch.arange(14.0), torch.arange(14.0), indexing="ij")
    wave = torch.cos(2 * torch.pi * (mode[0] * y + mode[1] * x) / 14 + 0.3)
    energy = ring_energies(wave.flatten()[:, None], grid)
    below = radius(mode, grid) - 1e-6  # a mode on an edge belongs to the ring inside it
    nearest = np.abs(np.array(ring_frequencies(grid))[1:] - below).argmin() + 1
    assert float(energy[nearest]) == pytest.approx(float(wave.square().sum()), rel=1e-5)


def test_rows_and_columns_are_not_swapped() -> None:
    grid = (4, 16)
    stripes = torch.tensor([1.0, -1.0]).repeat(8).repeat(4, 1)  # the highest frequency along the rows
    energy = ring_energies(stripes.flatten()[:, None], grid)
    assert int(energy.argmax()) == int(rings(grid)[0, 8])
    slow = torch.arange(4.0).sub(1.5).repeat_interleave(16)  # constant along the rows
    assert ring_energies(slow[:, None], grid)[int(rings(grid)[0, 1])] == pytest.approx(0, abs=1e-5)


def test_white_noise_has_a_flat_spectrum() -> None:
    grid = (14, 14)
    energy = ring_energies(noise(400, 196, 8), grid).mean(0)
    modes = np.bincount(rings(grid).flatten().numpy())
    assert energy.numpy() / modes == pytest.approx(8, rel=0.1)


# Spectra


def heads(values: Tensor, matrix: Tensor) -> Heads:
    return Heads(values, values, values, 1.0, None, matrix)


def test_identity_attention_changes_nothing() -> None:
    values = noise(2, 3, 17, 8)
    before, after = mixing_energies(heads(values, torch.eye(17).expand(2, 3, 17, 17)), 1, (4, 4))
    assert after == pytest.approx(before, rel=1e-5)


def test_uniform_attention_keeps_only_the_mean() -> None:
    values = noise(2, 3, 17, 8)
    before, after = mixing_energies(heads(values, torch.full((2, 3, 17, 17), 1 / 17)), 1, (4, 4))
    assert after[:, 1:] == pytest.approx(0, abs=1e-6)
    assert after[:, 0] == pytest.approx(16 * values.mean(2).square().sum((1, 2)), rel=1e-4)
    assert (before[:, 1:].sum(1) > 0.5 * before.sum(1)).all()


def test_prefix_tokens_are_mixed_in_but_not_counted() -> None:
    values = noise(1, 1, 18, 8)
    values[:, :, 2:] = 0
    matrix = torch.eye(18)[None, None].clone()
    matrix[..., 2:, :] = torch.eye(18)[1]  # every patch attends only to the second prefix token
    before, after = mixing_energies(heads(values, matrix), 2, (4, 4))
    assert before.sum() == 0
    assert float(after[0, 0]) == pytest.approx(16 * float(values[0, 0, 1].square().sum()), rel=1e-5)
    assert after[0, 1:] == pytest.approx(0, abs=1e-5)


def by_ring(signal: Tensor) -> NDArray[np.float64]:
    """(B, 16, C) to (B, rings) by numpy and loops."""
    ring, count = rings((4, 4)), len(ring_frequencies((4, 4)))
    modes = np.abs(np.fft.fft2(signal.double().reshape(len(signal), 4, 4, -1).numpy(), axes=(1, 2))) ** 2 / 16
    energy = np.zeros((len(signal), count))
    for y, x in np.ndindex(4, 4):
        energy[:, int(ring[y, x])] += modes[:, y, x].sum(-1)
    return energy


@pytest.mark.parametrize("fused", [True, False])
def test_spectra_match_the_values_that_timm_computes(tiny_vit: MakeVit, fused: bool) -> None:
    vit = tiny_vit()
    found = measure_spectra(vit, batches_of(6))
    values: list[Tensor] = []
    mixed: list[Tensor] = []
    for block in vit.blocks:
        block.attn.fused_attn = fused
        # The values are the last third of queries, keys and values; the mixed values are the projection's input.
        block.attn.qkv.register_forward_hook(lambda module, given, out: values.append(out[:, 1:, 64:]))
        block.attn.proj.register_forward_pre_hook(lambda module, given: mixed.append(given[0][:, 1:]))
    with torch.no_grad():
        vit(torch.cat([batch.images for batch in batches_of(6)]))
    assert found.images == 6
    assert found.frequency == ring_frequencies((4, 4))
    for depth in range(4):
        before, after = by_ring(values[depth]), by_ring(mixed[depth])
        whole = before.sum(1, keepdims=True)
        assert found.before[depth] == pytest.approx((before / whole).mean(0), rel=1e-4)
        assert found.after[depth] == pytest.approx((after / whole).mean(0), rel=1e-4)
        assert sum(found.before[depth]) == pytest.approx(1)


def test_spectra_do_not_depend_on_the_scale_of_the_values(tiny_vit: MakeVit) -> None:
    vit = tiny_vit(depth=1)
    found = measure_spectra(vit, batches_of(3))
    with torch.no_grad():
        vit.blocks[0].attn.qkv.weight[64:] *= 7
        vit.blocks[0].attn.qkv.bias[64:] *= 7
    again = measure_spectra(vit, batches_of(3))
    assert again.before[0] == pytest.approx(found.before[0], rel=1e-4)
    assert again.after[0] == pytest.approx(found.after[0], rel=1e-4)


def test_non_finite_spectra_are_an_error(tiny_vit: MakeVit) -> None:
    vit = tiny_vit()
    with torch.no_grad():
        vit.blocks[2].attn.qkv.bias[64:] = torch.nan
    with pytest.raises(ValueError, match="not a finite number"):
        measure_spectra(vit, batches_of(2))
