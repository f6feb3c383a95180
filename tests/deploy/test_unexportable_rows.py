"""A row whose model a runtime has no operator for is skipped and not failed."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("onnxruntime", reason="tokbench[onnx] is not installed")
pytest.importorskip("onnxscript", reason="tokbench[onnx] is not installed")

Run = Callable[..., tuple[int, str, str]]

METHOD = '''
import torch
from torch import Tensor

from tokbench import Context, Downsampler, Tokens, register


@torch.library.custom_op("of_my_own::doubled", mutates_args=())
def doubled(x: Tensor) -> Tensor:
    return 2 * x


@doubled.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


@register("own_operator")
class OwnOperator(Downsampler):
    """Keeps the first tokens, and calls an operator that no exporter knows."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.select(torch.arange(keep).expand(len(tokens.x), keep))
        return kept.replace(patches=doubled(kept.patches) / 2)
'''


def test_a_row_that_cannot_be_exported_is_skipped(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(METHOD)
    code, out, _ = run(
        "compare", "--models", "digits_deit_16", "--baselines", "none", "--methods", "own_operator", "--keep", "0.5",
        "--plugins", "mine.py", "--only", "latency", "--mode", "onnxruntime", "--batch-size", "1", "--seconds", "0.02",
        "--limit", "40", "--out", "x",
    )  # fmt: skip
    assert code == 0
    rows = pd.read_parquet(tmp_path / "x/table.parquet").set_index("method")
    assert rows["status"].to_dict() == {"none": "ok", "own_operator": "skipped"}
    assert "of_my_own.doubled" in rows.loc["own_operator", "reason"]
    assert f"own_operator — skipped: {rows.loc['own_operator', 'reason']}"[:60] in out
    assert rows.loc["none", "latency_ms"] > 0
    assert rows.loc["none", "same_top1"] == 100
