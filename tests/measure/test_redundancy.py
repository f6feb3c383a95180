"""Spectra against NumPy's Fourier transform, and reconstruction errors against the sum in the paper."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tokbench import Context, DownsampledViT, Downsampler, Schedule, Tokens, create
from tokbench.data.loading import Batch
from tokbench.downsampler import DownsamplerError
from tokbench.measure.redundancy import (
    measure_reconstruction,
    measure_spectra,
    mixing_energies,
    reconstruction_error,
    ring_energies,
    ring_frequencies,
    rings,
)
from tokbench.vit.attention import Heads

Run = Callable[..., tuple[int, str, str]]
MakeVit = Callable[..., VisionTransformer]

GRIDS = [(4, 4), (5, 7), (7, 7), (8, 8), (6, 10), (14, 14), (16, 16)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def batches_of(count: int, of: int = 4, seed: int = 0) -> list[Batch]:
    """Batches of `of` random images for the tiny ViT."""
    images = noise(count, 3, 32, 32, seed=seed)
    index = torch.arange(count)
    return [Batch(images[i : i + of], index[i : i + of], index[i : i + of]) for i in range(0, count, of)]


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


# Reconstruction errors


def error_by_loops(before: Tensor, after: Tensor) -> float:
    f, reduced = before.double().numpy(), after.double().numpy()
    loss = sum(min(float(((one - other) ** 2).sum()) for other in reduced) for one in f)
    return loss / sum(float(((one - f.mean(0)) ** 2).sum()) for one in f)


def test_error_is_the_sum_of_the_paper() -> None:
    before, after = noise(3, 9, 5), noise(3, 4, 5, seed=1)
    expected = [error_by_loops(*pair) for pair in zip(before, after, strict=True)]
    assert reconstruction_error(before, after) == pytest.approx(expected)


def test_padding_represents_no_token() -> None:
    before, after = noise(2, 9, 5), noise(2, 4, 5, seed=1)
    after[1, 2:] = before[1, :2]
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    expected = [error_by_loops(before[0], after[0]), error_by_loops(before[1], after[1, :2])]
    assert reconstruction_error(before, after, valid) == pytest.approx(expected)


def test_error_is_0_with_all_tokens_and_1_with_their_mean() -> None:
    before = noise(3, 12, 6)
    assert reconstruction_error(before, before.flip(1)) == pytest.approx(0, abs=1e-12)
    assert reconstruction_error(before, before.mean(1, keepdim=True)) == pytest.approx(1, rel=1e-6)


def test_error_is_invariant_to_scale_and_shift() -> None:
    before, after = noise(3, 12, 6), noise(3, 4, 6, seed=1)
    moved = reconstruction_error(1e3 * before + 40, 1e3 * after + 40)
    assert moved == pytest.approx(reconstruction_error(before, after), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("random_selection", {}),
        ("token_pooling", {"algorithm": "kmeans"}),
        ("grid_pooling", {}),
        ("evit", {}),
        ("tome", {}),
        ("ats", {}),
        ("dpc_knn", {}),
    ],
)
def test_each_depth_is_measured_independently_of_the_others(
    tiny_vit: MakeVit, name: str, params: dict[str, Any]
) -> None:
    vit, ids = tiny_vit(), torch.tensor([5, 3, 8, 1, 9, 2])
    stages = measure_reconstruction(
        vit, create(name, **params), Schedule.stages(0.5, (1, 3)), batches_of(6), ids, seed=4
    )
    assert [stage.depth for stage in stages] == [1, 3]
    for stage in stages:
        before: list[Tensor] = []
        after: list[Tensor] = []

        def note(
            module: torch.nn.Module,
            given: tuple[Tokens, int, Context],
            made: Tokens,
            before: list[Tensor] = before,
            after: list[Tensor] = after,
        ) -> None:
            before.extend(given[0].patches)
            valid = torch.ones_like(made.size, dtype=torch.bool) if made.valid is None else made.valid
            after.extend(patches[kept] for patches, kept in zip(made.patches, valid, strict=True))

        method = create(name, **params)
        method.register_forward_hook(note)
        model = DownsampledViT(vit, method, Schedule.explicit((8,), (stage.depth,)), seed=4).eval()
        with torch.inference_mode():
            for batch in batches_of(6):
                model(batch.images, ids[batch.index])
        errors = [error_by_loops(*pair) for pair in zip(before, after, strict=True)]
        assert stage.patches == 16
        assert stage.tokens == np.mean([len(kept) for kept in after])
        assert stage.error == pytest.approx(np.mean(errors), rel=1e-5)
        assert stage.error_sd == pytest.approx(np.std(errors, ddof=1), rel=1e-4)


def error_of(vit: VisionTransformer, name: str, **params: Any) -> float:
    ids = torch.arange(8)
    return measure_reconstruction(vit, create(name, **params), Schedule.stages(0.5, (2,)), batches_of(8), ids)[0].error


def test_clustering_reconstructs_better_than_random_selection(tiny_vit: MakeVit) -> None:
    vit = tiny_vit()
    settings = {"weighted": False, "init": "farthest", "iterations": 20}
    means = error_of(vit, "token_pooling", algorithm="kmeans", **settings)
    medoids = error_of(vit, "token_pooling", algorithm="kmedoids", output="medoid", **settings)
    chance = error_of(vit, "random_selection")
    assert 0 < means < medoids < chance < 1


def test_keeping_all_tokens_has_no_error(tiny_vit: MakeVit) -> None:
    stages = measure_reconstruction(
        tiny_vit(), create("evit"), Schedule.stages(1.0, (1, 2)), batches_of(1), torch.arange(1)
    )
    assert [(stage.patches, stage.tokens, stage.error, stage.error_sd) for stage in stages] == [(16, 16, 0, 0)] * 2


class Toy(Downsampler):
    """Keeps the first tokens, `extra` too many, and multiplies them."""

    def __init__(self, extra: int = 0, factor: float = 1.0) -> None:
        super().__init__()
        self.extra, self.factor = extra, factor

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.select(torch.arange(keep + self.extra).expand(len(tokens.x), -1))
        return kept.replace(patches=kept.patches * self.factor)


@pytest.mark.parametrize(
    ("toy", "message"),
    [(Toy(extra=1), r"returned 9 patch tokens, count\(\) says 8"), (Toy(factor=math.nan), "not finite")],
)
def test_method_that_breaks_its_contract_raises(tiny_vit: MakeVit, toy: Toy, message: str) -> None:
    with pytest.raises(DownsamplerError, match=message):
        measure_reconstruction(tiny_vit(), toy, Schedule.stages(0.5, (1,)), batches_of(2), torch.arange(2))
