"""What attention filters out, and how well fewer tokens stand for all: against Fourier's and the paper's own sums."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tokbench import Context, DownsampledViT, Downsampler, Schedule, Tokens, create
from tokbench.cli import main
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
from tokbench.report.charts.redundancy import reconstruction_chart, spectrum_chart
from tokbench.results.table import read_reconstruction, read_spectra, read_table
from tokbench.vit.attention import Heads

Run = Callable[..., tuple[int, str, str]]
MakeVit = Callable[..., VisionTransformer]

GRIDS = [(4, 4), (5, 7), (7, 7), (8, 8), (6, 10), (14, 14), (16, 16)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seen(count: int, of: int = 4, seed: int = 0) -> list[Batch]:
    """Images of noise for the tiny ViT, so many a batch."""
    images = noise(count, 3, 32, 32, seed=seed)
    index = torch.arange(count)
    return [Batch(images[i : i + of], index[i : i + of], index[i : i + of]) for i in range(0, count, of)]


def radius(mode: tuple[int, int], grid: tuple[int, int]) -> float:
    """A mode's frequency as a fraction of Nyquist, from the cycles along each side."""
    cycles = [min(k, side - k) / side for k, side in zip(mode, grid, strict=True)]
    return math.hypot(*cycles) / 0.5


# Rings


@pytest.mark.parametrize("grid", GRIDS)
def test_every_mode_lies_in_the_ring_around_its_frequency(grid: tuple[int, int]) -> None:
    ring, middle = rings(grid), ring_frequencies(grid)
    width = middle[2] - middle[1]
    for mode in np.ndindex(*grid):
        place = int(ring[mode])
        if mode == (0, 0):
            assert (place, middle[place]) == (0, 0.0)
        else:
            assert place > 0
            assert abs(radius(mode, grid) - middle[place]) <= width / 2 + 1e-9
            # What lies above half of Nyquist is told by its ring alone.
            assert (middle[place] > 0.5) == (radius(mode, grid) > 0.5 + 1e-9)
    assert width >= 2 / max(grid) - 1e-9


@pytest.mark.parametrize("grid", GRIDS)
def test_no_energy_is_lost(grid: tuple[int, int]) -> None:
    signal = noise(2, 3, math.prod(grid), 5)
    assert ring_energies(signal, grid).sum(-1) == pytest.approx(signal.square().sum((-2, -1)), rel=1e-5)


@pytest.mark.parametrize("mode", [(0, 1), (1, 0), (2, 3), (7, 0), (5, 5), (7, 7)])
def test_a_wave_falls_into_the_ring_of_its_frequency(mode: tuple[int, int]) -> None:
    grid = (14, 14)
    y, x = torch.meshgrid(torch.arange(14.0), torch.arange(14.0), indexing="ij")
    wave = torch.cos(2 * torch.pi * (mode[0] * y + mode[1] * x) / 14 + 0.3)
    energy = ring_energies(wave.flatten()[:, None], grid)
    below = radius(mode, grid) - 1e-6  # on an edge, the ring inside of it
    nearest = np.abs(np.array(ring_frequencies(grid))[1:] - below).argmin() + 1
    assert float(energy[nearest]) == pytest.approx(float(wave.square().sum()), rel=1e-5)


def test_rows_and_columns_are_not_mixed_up() -> None:
    grid = (4, 16)
    stripes = torch.tensor([1.0, -1.0]).repeat(8).repeat(4, 1)  # the fastest there is along the rows
    energy = ring_energies(stripes.flatten()[:, None], grid)
    assert int(energy.argmax()) == int(rings(grid)[0, 8])
    slow = torch.arange(4.0).sub(1.5).repeat_interleave(16)  # constant along the rows
    assert ring_energies(slow[:, None], grid)[int(rings(grid)[0, 1])] == pytest.approx(0, abs=1e-5)


def test_white_noise_is_flat() -> None:
    grid = (14, 14)
    energy = ring_energies(noise(400, 196, 8), grid).mean(0)
    modes = np.bincount(rings(grid).flatten().numpy())
    assert energy.numpy() / modes == pytest.approx(8, rel=0.1)


# Spectra


def heads(values: Tensor, matrix: Tensor) -> Heads:
    return Heads(values, values, values, 1.0, None, matrix)


def test_attention_to_nobody_else_changes_nothing() -> None:
    values = noise(2, 3, 17, 8)
    before, after = mixing_energies(heads(values, torch.eye(17).expand(2, 3, 17, 17)), 1, (4, 4))
    assert after == pytest.approx(before, rel=1e-5)


def test_uniform_attention_leaves_the_mean_only() -> None:
    values = noise(2, 3, 17, 8)
    before, after = mixing_energies(heads(values, torch.full((2, 3, 17, 17), 1 / 17)), 1, (4, 4))
    assert after[:, 1:] == pytest.approx(0, abs=1e-6)
    assert after[:, 0] == pytest.approx(16 * values.mean(2).square().sum((1, 2)), rel=1e-4)
    assert (before[:, 1:].sum(1) > 0.5 * before.sum(1)).all()


def test_prefix_tokens_take_part_in_the_mixing_only() -> None:
    values = noise(1, 1, 18, 8)
    values[:, :, 2:] = 0
    matrix = torch.eye(18)[None, None].clone()
    matrix[..., 2:, :] = torch.eye(18)[1]  # every patch looks at the second prefix token
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
def test_spectra_are_those_of_what_timm_computes(tiny_vit: MakeVit, fused: bool) -> None:
    vit = tiny_vit()
    found = measure_spectra(vit, seen(6))
    values: list[Tensor] = []
    mixed: list[Tensor] = []
    for block in vit.blocks:
        block.attn.fused_attn = fused
        # Of queries, keys and values the last third; and what the projection is given.
        block.attn.qkv.register_forward_hook(lambda module, given, out: values.append(out[:, 1:, 64:]))
        block.attn.proj.register_forward_pre_hook(lambda module, given: mixed.append(given[0][:, 1:]))
    with torch.no_grad():
        vit(torch.cat([batch.images for batch in seen(6)]))
    assert found.images == 6
    assert found.frequency == ring_frequencies((4, 4))
    for depth in range(4):
        before, after = by_ring(values[depth]), by_ring(mixed[depth])
        whole = before.sum(1, keepdims=True)
        assert found.before[depth] == pytest.approx((before / whole).mean(0), rel=1e-4)
        assert found.after[depth] == pytest.approx((after / whole).mean(0), rel=1e-4)
        assert sum(found.before[depth]) == pytest.approx(1)


def test_the_values_scale_does_not_matter(tiny_vit: MakeVit) -> None:
    vit = tiny_vit(depth=1)
    found = measure_spectra(vit, seen(3))
    with torch.no_grad():
        vit.blocks[0].attn.qkv.weight[64:] *= 7
        vit.blocks[0].attn.qkv.bias[64:] *= 7
    again = measure_spectra(vit, seen(3))
    assert again.before[0] == pytest.approx(found.before[0], rel=1e-4)
    assert again.after[0] == pytest.approx(found.after[0], rel=1e-4)


def test_spectra_that_are_no_numbers_are_an_error(tiny_vit: MakeVit) -> None:
    vit = tiny_vit()
    with torch.no_grad():
        vit.blocks[2].attn.qkv.bias[64:] = torch.nan
    with pytest.raises(ValueError, match="not a finite number"):
        measure_spectra(vit, seen(2))


# Reconstruction errors


def error_by_loops(before: Tensor, after: Tensor) -> float:
    f, reduced = before.double().numpy(), after.double().numpy()
    loss = sum(min(float(((one - other) ** 2).sum()) for other in reduced) for one in f)
    return loss / sum(float(((one - f.mean(0)) ** 2).sum()) for one in f)


def test_the_error_is_the_papers_sum() -> None:
    before, after = noise(3, 9, 5), noise(3, 4, 5, seed=1)
    expected = [error_by_loops(*pair) for pair in zip(before, after, strict=True)]
    assert reconstruction_error(before, after) == pytest.approx(expected)


def test_padding_stands_for_nothing() -> None:
    before, after = noise(2, 9, 5), noise(2, 4, 5, seed=1)
    after[1, 2:] = before[1, :2]
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    expected = [error_by_loops(before[0], after[0]), error_by_loops(before[1], after[1, :2])]
    assert reconstruction_error(before, after, valid) == pytest.approx(expected)


def test_the_scale_goes_from_all_tokens_to_one() -> None:
    before = noise(3, 12, 6)
    assert reconstruction_error(before, before.flip(1)) == pytest.approx(0, abs=1e-12)
    assert reconstruction_error(before, before.mean(1, keepdim=True)) == pytest.approx(1, rel=1e-6)


def test_neither_scale_nor_place_matters() -> None:
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
def test_each_depth_is_as_if_reduced_there_alone(tiny_vit: MakeVit, name: str, params: dict[str, Any]) -> None:
    vit, ids = tiny_vit(), torch.tensor([5, 3, 8, 1, 9, 2])
    stages = measure_reconstruction(vit, create(name, **params), Schedule.stages(0.5, (1, 3)), seen(6), ids, seed=4)
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
            for batch in seen(6):
                model(batch.images, ids[batch.index])
        errors = [error_by_loops(*pair) for pair in zip(before, after, strict=True)]
        assert stage.patches == 16
        assert stage.tokens == np.mean([len(kept) for kept in after])
        assert stage.error == pytest.approx(np.mean(errors), rel=1e-5)
        assert stage.error_sd == pytest.approx(np.std(errors, ddof=1), rel=1e-4)


def error_of(vit: VisionTransformer, name: str, **params: Any) -> float:
    ids = torch.arange(8)
    return measure_reconstruction(vit, create(name, **params), Schedule.stages(0.5, (2,)), seen(8), ids)[0].error


def test_clustering_reconstructs_better_than_chance(tiny_vit: MakeVit) -> None:
    vit = tiny_vit()
    settings = {"weighted": False, "init": "farthest", "iterations": 20}
    means = error_of(vit, "token_pooling", algorithm="kmeans", **settings)
    medoids = error_of(vit, "token_pooling", algorithm="kmedoids", output="medoid", **settings)
    chance = error_of(vit, "random_selection")
    assert 0 < means < medoids < chance < 1


def test_who_keeps_everything_loses_nothing(tiny_vit: MakeVit) -> None:
    stages = measure_reconstruction(tiny_vit(), create("evit"), Schedule.stages(1.0, (1, 2)), seen(1), torch.arange(1))
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
def test_a_method_that_breaks_its_contract_has_no_error(tiny_vit: MakeVit, toy: Toy, message: str) -> None:
    with pytest.raises(DownsamplerError, match=message):
        measure_reconstruction(tiny_vit(), toy, Schedule.stages(0.5, (1,)), seen(2), torch.arange(2))


# In a comparison

MARKUP = "<b>bold</b>"
SHOUTER = f'''
import torch
from tokbench import Context, Downsampler, Tokens, register


@register("shouter")
class Shouter(Downsampler):
    """Keeps the first tokens."""

    def __init__(self, text: str = "{MARKUP}"):
        super().__init__()

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        return tokens.select(torch.arange(keep).expand(len(tokens.x), keep))
'''
METHODS = "token_pooling(algorithm=kmeans),random_selection,ats,shouter,shouter(text=calm),none(attention=eager)"
COMPARE = [
    *("compare", "--analyse", "--limit", "4", "--keep", "0.5,0.25", "--seeds", "0,1", "--batch-size", "1,2"),
    *("--at", "3,6", "--only", "macs", "--methods", METHODS, "--plugins", "shouter.py"),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("analysed")
    (folder / "shouter.py").write_text(SHOUTER)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["tokbench", *COMPARE, "--out", "results"])
        with pytest.raises(SystemExit) as exit_:
            main()
    assert exit_.value.code == 0
    return folder / "results"


def test_every_block_of_the_plain_model_has_a_spectrum(results: Path) -> None:
    found = read_spectra(results)
    assert set(found["depth"]) == set(range(12))
    assert set(found["images"]) == {4}
    blocks = found.groupby("depth")
    assert (blocks["frequency"].apply(list).map(tuple) == ring_frequencies((8, 8))).all()
    assert blocks[["before", "after"]].sum().to_numpy() == pytest.approx(1)
    # A gain is of energies, not of shares.
    assert (blocks["gain"].max() / blocks["gain"].min()).gt(1).all()
    shares = found["after"] / found["before"]
    assert (found["gain"] / shares).groupby(found["depth"]).std().to_numpy() == pytest.approx(0, abs=1e-9)
    pd.testing.assert_frame_equal(pd.read_csv(results / "spectra.csv"), found, check_dtype=False)


def test_every_method_has_an_error_at_each_keep_and_depth(results: Path) -> None:
    found = read_reconstruction(results)
    assert not found.duplicated(["method", "params", "keep", "seed", "depth"]).any()
    assert len(found) == 2 * 2 * (2 + 1 + 1 + 2)  # depths × keeps × (seeds and methods)
    assert set(found["depth"]) == {3, 6}
    assert set(found["patches"]) == {64}
    fixed = found[found["method"] != "ats"]
    assert (fixed["tokens"] == 64 * fixed["keep"]).all()  # of all 64 at either depth
    assert (found["tokens"] <= 64 * found["keep"]).all()
    assert (found["error"] > 0).all()
    mean = found.groupby(["keep", "depth", "method"])["error"].mean().unstack()
    assert (mean["token_pooling"] < mean["random_selection"]).all()
    assert (mean.loc[0.5] < mean.loc[0.25]).all(axis=None)
    assert len((results / "reconstruction.csv").read_text().splitlines()) == len(found) + 1


def test_the_table_has_no_new_columns_and_nothing_failed(results: Path) -> None:
    table = read_table(results)
    assert set(table["status"]) == {"ok"}
    assert "error" not in table


def test_what_was_measured_is_not_measured_again(run: Run, results: Path, tmp_path: Path) -> None:
    before = (results / "records.jsonl").read_bytes()
    (tmp_path / "shouter.py").write_text(SHOUTER)
    code, _, _ = run(*COMPARE, "--out", str(results))
    assert code == 0
    assert (results / "records.jsonl").read_bytes() == before


def test_a_method_that_fails_costs_its_own_rows_only(run: Run, tmp_path: Path) -> None:
    (tmp_path / "shouter.py").write_text(SHOUTER.replace("return tokens", "raise RuntimeError('too loud')  #"))
    code, _, _ = run("compare", "--analyse", "--limit", "2", "--only", "macs", "--keep", "0.5", "--plugins",
                     "shouter.py", "--methods", "shouter,grid_pooling", "--out", "x")  # fmt: skip
    assert code == 1
    assert list(read_table(tmp_path / "x")["status"]) == ["ok", "failed", "ok"]
    assert set(read_reconstruction(tmp_path / "x")["method"]) == {"grid_pooling"}
    records = [json.loads(line) for line in (tmp_path / "x/records.jsonl").read_text().splitlines()]
    failed = [record for record in records if record["key"].startswith("reconstruction/")]
    assert ["too loud" in record["value"]["reason"] for record in failed] == [True]


def test_without_images_there_is_nothing_to_analyse(run: Run) -> None:
    code, out, err = run("compare", "latency", "--analyse", "--only", "macs")
    assert (code, out) == (2, "")
    assert "no data to analyse" in err
    assert "--data" in err
    assert len(err.splitlines()) == 1


# Charts


def test_the_spectrum_is_drawn_block_by_block(results: Path) -> None:
    figure = spectrum_chart(results)
    assert figure is not None
    before, after, gains = figure.data
    found = read_spectra(results)
    high = 100 * found[found["frequency"] > 0.5].groupby("depth")[["before", "after"]].sum()
    assert list(before.x) == list(after.x) == list(gains.x) == list(range(12))
    assert before.y == pytest.approx(high["before"])
    assert after.y == pytest.approx(high["after"])
    lower = (high["after"] < high["before"]).sum()
    assert f"{lower} of 12" in figure.layout.xaxis.title.text
    last = found[found["depth"] == 11]
    assert np.array(gains.z, dtype=float)[:, 11] == pytest.approx(10 * np.log10(last["gain"]))
    assert figure.layout.paper_bgcolor == "rgba(0, 0, 0, 0)"


def test_the_errors_are_drawn_for_each_block(results: Path) -> None:
    figure = reconstruction_chart(results)
    assert figure is not None
    (menu,) = figure.layout.updatemenus
    assert [button.label for button in menu.buttons] == ["block 3", "block 6"]
    lines = {trace.name: trace for trace in figure.data if trace.x}
    assert {name for name in lines if name.startswith("shouter")} == {
        "shouter(text=&lt;b&gt;bold&lt;/b&gt;)",
        "shouter(text=calm)",
    }
    chance = lines["random_selection"]
    found = read_reconstruction(results)
    own = found[(found["method"] == "random_selection") & (found["depth"] == 3)]
    assert list(chance.x) == [25, 50]
    assert chance.y == pytest.approx(100 * own.groupby("keep")["error"].mean())
    assert MARKUP not in figure.to_json().replace("\\u003c", "<").replace("\\u003e", ">")
    switched = menu.buttons[1].args[0]["y"]
    later = found[(found["method"] == "random_selection") & (found["depth"] == 6)].groupby("keep")["error"].mean()
    place = [trace.name for trace in figure.data].index("random_selection")
    assert list(switched[place]) == pytest.approx(list(100 * later))


def test_nothing_is_drawn_of_what_was_not_analysed(run: Run, tmp_path: Path) -> None:
    run("compare", "--only", "macs", "--keep", "0.5", "--methods", "evit", "--out", "x")
    assert read_spectra(tmp_path / "x").empty
    assert read_reconstruction(tmp_path / "x").empty
    assert spectrum_chart(tmp_path / "x") is None
    assert reconstruction_chart(tmp_path / "x") is None
    assert not (tmp_path / "x/spectra.csv").exists()
