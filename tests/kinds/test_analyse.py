"""`--analyse`: spectra and reconstruction errors as a run measures, stores and draws them."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tokbench import registry
from tokbench.cli import main
from tokbench.measure.redundancy import ring_frequencies
from tokbench.report.charts.redundancy import reconstruction_chart, spectrum_chart
from tokbench.results import load

Run = Callable[..., tuple[int, str, str]]
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
    *("--models", "digits_deit", "--baselines", "none"),
]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("analysed")
    (folder / "shouter.py").write_text(SHOUTER)
    with registry.isolated(), pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["tokbench", *COMPARE, "--out", "results"])
        with pytest.raises(SystemExit) as exit_:
            main()
    assert exit_.value.code == 0
    return folder / "results"


def test_spectrum_is_stored_for_every_block(results: Path) -> None:
    found = load(results).spectra
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


def test_error_is_stored_for_every_method_keep_and_depth(results: Path) -> None:
    found = load(results).reconstruction
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


def test_analysis_adds_no_columns_and_no_failures(results: Path) -> None:
    table = load(results).table
    assert set(table["status"]) == {"ok"}
    assert "error" not in table


def test_second_run_measures_nothing_again(run: Run, results: Path, tmp_path: Path) -> None:
    before = (results / "records.jsonl").read_bytes()
    (tmp_path / "shouter.py").write_text(SHOUTER)
    code, _, _ = run(*COMPARE, "--out", str(results))
    assert code == 0
    assert (results / "records.jsonl").read_bytes() == before


def test_failing_method_affects_only_its_own_rows(run: Run, tmp_path: Path) -> None:
    (tmp_path / "shouter.py").write_text(SHOUTER.replace("return tokens", "raise RuntimeError('too loud')  #"))
    code, _, _ = run("compare", "--analyse", "--limit", "2", "--only", "macs", "--keep", "0.5", "--plugins",
                     "shouter.py", "--methods", "shouter,grid_pooling", "--out", "x")  # fmt: skip
    assert code == 1
    assert list(load(tmp_path / "x").table["status"]) == ["ok", "failed", "ok"]
    assert set(load(tmp_path / "x").reconstruction["method"]) == {"grid_pooling"}
    records = [json.loads(line) for line in (tmp_path / "x/records.jsonl").read_text().splitlines()]
    failed = [record for record in records if record["key"].startswith("reconstruction/")]
    assert ["too loud" in record["value"]["reason"] for record in failed] == [True]


def test_analysis_requires_images(run: Run) -> None:
    code, out, err = run("compare", "latency", "--analyse", "--only", "macs")
    assert (code, out) == (2, "")
    assert "no data to analyse" in err
    assert "--data" in err
    assert len(err.splitlines()) == 1


# Charts


def test_spectrum_chart_has_a_line_per_block(results: Path) -> None:
    figure = spectrum_chart(load(results).spectra)
    assert figure is not None
    before, after, gains = figure.data
    found = load(results).spectra
    high = 100 * found[found["frequency"] > 0.5].groupby("depth")[["before", "after"]].sum()
    assert list(before.x) == list(after.x) == list(gains.x) == list(range(12))
    assert before.y == pytest.approx(high["before"])
    assert after.y == pytest.approx(high["after"])
    lower = (high["after"] < high["before"]).sum()
    assert f"{lower} of 12" in figure.layout.xaxis.title.text
    last = found[found["depth"] == 11]
    assert np.array(gains.z, dtype=float)[:, 11] == pytest.approx(10 * np.log10(last["gain"]))
    assert figure.layout.paper_bgcolor == "rgba(0, 0, 0, 0)"


def test_error_chart_has_every_block(results: Path) -> None:
    found = load(results).reconstruction
    figure = reconstruction_chart(found, load(results).table)
    assert figure is not None
    (menu,) = figure.layout.updatemenus
    assert [button.label for button in menu.buttons] == ["block 3", "block 6"]
    lines = {trace.name: trace for trace in figure.data if trace.x}
    assert {name for name in lines if name.startswith("shouter")} == {
        "shouter(text='&lt;b&gt;bold&lt;/b&gt;')",
        "shouter(text=calm)",
    }
    chance = lines["random_selection"]
    own = found[(found["method"] == "random_selection") & (found["depth"] == 3)]
    assert list(chance.x) == [25, 50]
    assert chance.y == pytest.approx(100 * own.groupby("keep")["error"].mean())
    assert MARKUP not in figure.to_json().replace("\\u003c", "<").replace("\\u003e", ">")
    switched = menu.buttons[1].args[0]["y"]
    later = found[(found["method"] == "random_selection") & (found["depth"] == 6)].groupby("keep")["error"].mean()
    place = [trace.name for trace in figure.data].index("random_selection")
    assert list(switched[place]) == pytest.approx(list(100 * later))


def test_nothing_is_drawn_without_analysis(run: Run, tmp_path: Path) -> None:
    run("compare", "--only", "macs", "--keep", "0.5", "--methods", "evit", "--out", "x")
    found = load(tmp_path / "x")
    assert found.spectra.empty
    assert found.reconstruction.empty
    assert spectrum_chart(found.spectra) is None
    assert reconstruction_chart(found.reconstruction, found.table) is None
    assert not (tmp_path / "x/spectra.csv").exists()
