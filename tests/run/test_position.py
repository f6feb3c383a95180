"""`--position`: what its rows say, when it is measured again, and where it has no effect."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def compared(run: Run, tmp_path: Path) -> Callable[..., pd.DataFrame]:
    def compare(*more: str) -> pd.DataFrame:
        given = (
            "--methods",
            "tome",
            "--keep",
            "0.5",
            "--only",
            "macs,accuracy",
            "--baselines",
            "none",
            "--limit",
            "64",
        )
        code, _, error = run("compare", *given, "--batch-size", "1", "--out", str(tmp_path / "out"), *more)
        assert code == 0, error
        return pd.read_parquet(tmp_path / "out" / "table.parquet").set_index("method")

    return compare


def recorded(tmp_path: Path) -> int:
    return len((tmp_path / "out" / "records.jsonl").read_text().splitlines())


def test_another_rule_is_measured_again_and_said_in_the_row(compared: Callable[..., pd.DataFrame], tmp_path: Path):
    first = compared("--models", "digits_rope")
    assert "rotary" not in str(first.loc["tome", "remarks"])
    before = recorded(tmp_path)
    compared("--models", "digits_rope")
    assert recorded(tmp_path) == before
    other = compared("--models", "digits_rope", "--position", "none")
    assert "rotary position of merged tokens: none" in other.loc["tome", "remarks"]
    assert "rotary" not in str(other.loc["none", "remarks"])
    assert recorded(tmp_path) > before
    assert other.loc["tome", "gmacs"] <= first.loc["tome", "gmacs"]
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert plan["suite"]["position"] == "none"


def test_a_model_without_rotary_positions_is_not_measured_again(compared: Callable[..., pd.DataFrame], tmp_path: Path):
    compared("--models", "digits_deit_16")
    before = recorded(tmp_path)
    table = compared("--models", "digits_deit_16", "--position", "destination")
    assert recorded(tmp_path) == before
    assert not table["remarks"].fillna("").str.contains("rotary").any()


def test_an_unknown_rule_is_refused(run: Run):
    code, _, error = run("compare", "--models", "digits_rope", "--position", "centre", "--plan")
    assert code == 2
    assert "position" in error
    assert "'mean', 'destination', 'rotation' or 'none'" in error
