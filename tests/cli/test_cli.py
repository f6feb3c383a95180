"""The command line, as a user runs it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

REFERENCE = Path(__file__).parents[1] / "stored/digits"
TOKBENCH = [sys.executable, "-m", "tokbench"]
QUICK = ["compare", "--limit", "80", "--keep", "0.5", "--seeds", "0,1", "--methods", "grid_pooling,random_selection"]

Run = Callable[..., tuple[int, str, str]]


def test_a_comparison_has_a_row_for_every_cell(run: Run, tmp_path: Path) -> None:
    code, out, err = run(*QUICK, "--batch-size", "1", "--seconds", "0.02", "--out", "results/x")
    assert (code, err) == (0, "")
    table = pd.read_parquet(tmp_path / "results/x/table.parquet")
    assert list(table["method"]) == ["none", "grid_pooling", "random_selection", "random_selection"]
    assert list(table["seed"].astype(object).where(table["seed"].notna(), None)) == [None, None, 0, 1]
    assert set(table["status"]) == {"ok"}
    assert set(table["images"]) == {80}
    assert (table[["gmacs", "latency_ms", "speedup", "top1", "top1_lo", "delta_top1"]].notna()).all().all()
    assert ((table["latency_ms_lo"] <= table["latency_ms"]) & (table["latency_ms"] <= table["latency_ms_hi"])).all()
    plain, *others = table.to_dict("records")
    assert plain["keep"] == 1
    assert plain["delta_top1"] == 0
    assert plain["tokens_per_block"] == " ".join(["64"] * 12)
    for row in others:
        assert row["tokens_per_block"] == " ".join(map(str, [64] * 3 + [32] * 3 + [16] * 3 + [8] * 3))
        assert row["gmacs_saved"] == pytest.approx(100 * (1 - row["gmacs"] / plain["gmacs"]))
    for name in ("grid_pooling", "random_selection", "GMACs", "results/x"):
        assert name in out
    read_back = pd.read_csv(tmp_path / "results/x/table.csv")
    assert list(read_back.columns) == list(table.columns)
    assert read_back["top1"].tolist() == pytest.approx(table["top1"].tolist())


def test_correctness_is_stored_for_each_image(run: Run, tmp_path: Path) -> None:
    run(*QUICK, "--only", "accuracy", "--out", "x")
    table = pd.read_parquet(tmp_path / "x/table.parquet")
    answers = pd.read_parquet(tmp_path / "x/correctness.parquet")
    assert len(answers) == 80 * len(table)
    for row in table.to_dict("records"):
        same_seed = answers["seed"].isna() if pd.isna(row["seed"]) else answers["seed"] == row["seed"]
        own = answers[(answers["method"] == row["method"]) & same_seed]
        assert len(own) == own["image"].nunique() == 80
        assert (100 * own["top1"].mean(), 100 * own["top5"].mean()) == pytest.approx((row["top1"], row["top5"]))


def test_a_second_run_measures_only_what_is_missing(run: Run, tmp_path: Path) -> None:
    def records() -> list[dict[str, str]]:
        return [json.loads(line) for line in (tmp_path / "x/records.jsonl").read_text().splitlines()]

    base = [*QUICK, "--only", "macs,accuracy", "--out", "x"]
    run(*base)
    before, table = records(), (tmp_path / "x/table.csv").read_text()
    run(*base)
    assert records() == before
    assert (tmp_path / "x/table.csv").read_text() == table
    run(*base, "--keep", "0.5,0.25")
    added = records()[len(before) :]
    # One more keep of grid_pooling and of two seeds of random_selection; 80 images are one shard.
    assert sorted(record["kind"] for record in added) == ["accuracy"] * 3 + ["macs"] * 2
    run(*base, "--fresh")
    assert len(records()) == len(before)


def test_json_output_is_only_json(run: Run) -> None:
    code, out, err = run(*QUICK, "--only", "macs", "--out", "x", "--json")
    rows = json.loads(out)
    assert (code, err) == (0, "")
    assert [row["method"] for row in rows] == ["none", "grid_pooling", "random_selection", "random_selection"]


def test_plan_shows_cells_and_time_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    code, out, _ = run(*QUICK, "--plan")
    assert code == 0
    assert "4 cells, about 0:00:" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("methods", "token_pooling"),
        ("models", "deit_small_patch16_224"),
        ("suites", "embedded"),
        ("schedules", "every_block"),
    ],
)
def test_lists_are_json_arrays(run: Run, what: str, name: str) -> None:
    code, out, _ = run("list", what, "--json")
    assert code == 0
    assert name in [item["name"] for item in json.loads(out)]


def test_help_does_not_import_torch(tmp_path: Path) -> None:
    program = "import sys, tokbench.cli; print('torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert printed.stdout == "False\n"
    shown = subprocess.run([*TOKBENCH, "compare", "--help"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "Example:" in shown.stdout


def test_an_ascii_pipe_gets_the_table(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    command = [*TOKBENCH, "merge", str(REFERENCE), "--out", "x"]  # prints the table as compare does, without torch
    printed = subprocess.run(command, capture_output=True, check=True, cwd=tmp_path, env=environment)
    lines = printed.stdout.decode("ascii").splitlines()
    assert any("random_selection" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_models_of_one_family_are_compared_together(run: Run, tmp_path: Path) -> None:
    models = ("digits_deit", "digits_deit_32", "digits_deit_16")
    options = ("--only", "macs,accuracy", "--limit", "100", "--methods", "grid_pooling", "--keep", "0.7", "--out", "x")
    code, out, err = run("compare", "--models", ",".join(models), *options)
    assert (code, err) == (0, "")
    table = pd.read_parquet(tmp_path / "x/table.parquet")
    plain = table[table["method"] == "none"]
    assert tuple(plain["model"]) == models
    assert plain["gmacs"].is_monotonic_decreasing
    assert "fewer MACs at the top-1 of digits_deit" in " ".join(out.split())


def test_the_users_config_is_merged_over_the_packaged_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods/first_tokens.py").write_text(
        "import torch\nfrom tokbench import Downsampler, register\n\n\n"
        '@register("first_tokens")\nclass FirstTokens(Downsampler):\n    """Keep the first ones."""\n\n'
        "    def forward(self, tokens, keep, context):\n"
        "        return tokens.select(torch.arange(keep).expand(len(tokens.x), keep))\n"
    )
    (tmp_path / "tokbench.toml").write_text(
        '[plugins]\npaths = ["methods"]\n\n[methods.score_pruning]\nscore = "cls"\n\n'
        '[suites.mine]\nmodels = ["digits_deit"]\ndata = "embedded"\nlimit = 50\nkeep = [0.5]\n'
        'only = ["macs"]\nmethods = ["first_tokens", "score_pruning"]\n'
    )
    code, out, _ = run("compare", "mine", "--json")
    assert code == 0
    rows = {row["method"]: row for row in json.loads(out)}
    assert set(rows) == {"none", "first_tokens", "score_pruning"}
    assert rows["score_pruning"]["params"] == "score=cls"
    assert (tmp_path / "results/mine/table.parquet").exists()
