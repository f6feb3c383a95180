"""`tokbench.compare` from Python: the same table and directory as from the command line."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

import tokbench
from tokbench.errors import UserError

Run = Callable[..., tuple[int, str, str]]
QUICK = {"methods": "grid_pooling", "keep": 0.5, "only": ["macs", "accuracy"], "limit": 40}
QUICK |= {"models": "digits_deit", "baselines": "none", "progress": False}


def test_it_returns_the_table_that_it_writes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    table = tokbench.compare(out=tmp_path / "x", **QUICK)
    pd.testing.assert_frame_equal(table, pd.read_parquet(tmp_path / "x/table.parquet"))
    pd.testing.assert_frame_equal(table, tokbench.load(tmp_path / "x").table)
    assert list(table["method"]) == ["none", "grid_pooling"]
    assert capfd.readouterr() == ("", "")


def test_it_is_the_command(run: Run, tmp_path: Path) -> None:
    table = tokbench.compare(out="python", **QUICK)
    code, _, _ = run("compare", "--methods", "grid_pooling", "--keep", "0.5", "--only", "macs,accuracy",
                     "--limit", "40", "--out", "command")  # fmt: skip
    assert code == 0
    pd.testing.assert_frame_equal(table, pd.read_parquet(tmp_path / "command/table.parquet"))


def test_a_second_call_measures_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        tokbench.compare(out=tmp_path, **QUICK)
        records = (tmp_path / "records.jsonl").read_bytes()
    assert len(records.splitlines()) == 4  # two rows, each with its MACs and one shard of answers


def test_a_broken_plugin_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import there_is_no_such_module\n")
    with pytest.warns(UserWarning, match="broken plugin .*broken.py"):
        tokbench.compare(out=tmp_path / "x", plugins=[tmp_path / "broken.py"], **{**QUICK, "only": "macs"})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"methods": "tomme"}, "did you mean 'tome'"),
        ({"keeps": 0.5}, "unknown key 'keeps': did you mean 'keep'"),
        ({"only": "weight"}, "choose from macs, latency, throughput, memory, training, energy, accuracy, agreement"),
        ({"suite": "imagnet"}, "did you mean 'imagenet'"),
    ],
)
def test_mistakes_are_user_errors(settings: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        tokbench.compare(out=tmp_path / "x", progress=False, **settings)
    assert not (tmp_path / "x").exists()
