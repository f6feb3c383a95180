"""A row whose model a runtime has no operator for is skipped and not failed, and keeps what else was measured."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("onnxruntime", reason="tokbench[onnx] is not installed")
pytest.importorskip("onnxscript", reason="tokbench[onnx] is not installed")

Run = Callable[..., tuple[int, str, str]]

METHODS = '''
import torch
from torch import Tensor

from tokbench import Context, Downsampler, Tokens, register


@torch.library.custom_op("of_my_own::doubled", mutates_args=())
def doubled(x: Tensor) -> Tensor:
    return 2 * x


@doubled.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


def first(tokens: Tokens, keep: int) -> Tokens:
    return tokens.select(torch.arange(keep).expand(len(tokens.x), keep))


@register("own_operator")
class OwnOperator(Downsampler):
    """Keeps the first tokens, and calls an operator that no exporter knows."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = first(tokens, keep)
        return kept.replace(patches=doubled(kept.patches) / 2)


@register("centred")
class Centred(Downsampler):
    """Keeps the first tokens, minus their median, whose MACs are known and which ONNX does not have."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = first(tokens, keep)
        return kept.replace(patches=kept.patches - kept.patches.median(dim=1, keepdim=True).values)
'''

SETTINGS = (
    *("--models", "digits_deit_16", "--baselines", "none", "--plugins", "mine.py", "--keep", "0.5"),
    *("--batch-size", "1", "--seconds", "0.02", "--limit", "40", "--mode", "onnxruntime"),
)


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(METHODS)
    return tmp_path


def table(directory: Path) -> pd.DataFrame:
    return pd.read_parquet(directory / "table.parquet").set_index("method")


def test_a_row_that_cannot_be_exported_is_skipped(run: Run, mine: Path) -> None:
    code, out, _ = run("compare", *SETTINGS, "--methods", "own_operator", "--only", "latency", "--out", "x")
    assert code == 0
    rows = table(mine / "x")
    assert rows["status"].to_dict() == {"none": "ok", "own_operator": "skipped"}
    assert "of_my_own" in rows.loc["own_operator", "reason"]
    assert "doubled" in rows.loc["own_operator", "reason"]
    assert f"own_operator — skipped: {rows.loc['own_operator', 'reason']}"[:60] in out
    assert rows.loc["none", "latency_ms"] > 0
    assert rows.loc["none", "same_top1"] == 100


def test_a_row_keeps_its_macs_where_only_its_time_is_skipped(run: Run, mine: Path) -> None:
    code, out, _ = run("compare", *SETTINGS, "--methods", "centred", "--only", "macs,latency", "--out", "x")
    assert code == 0
    rows = table(mine / "x")
    assert set(rows["status"]) == {"ok"}
    assert rows.loc["none", "reason"] == ""
    assert rows.loc["centred", "reason"].startswith("latency is skipped: ")
    assert "median" in rows.loc["centred", "reason"]
    assert 0 < rows.loc["centred", "gmacs"] < rows.loc["none", "gmacs"]
    assert pd.isna(rows.loc["centred", "latency_ms"])
    assert "centred 0.5 — latency is skipped: " in out
