"""The cost of training: which rows have it, and what their columns say."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import tokbench


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    out: Path = tmp_path_factory.mktemp("training")
    return tokbench.compare(
        models="digits_deit",
        methods=["tome", "none(attention=eager)"],
        keep=0.3,
        baselines=[24],
        only=["training", "memory"],
        batch_size=64,
        seconds=0.2,
        out=out,
        progress=False,
    )


def test_every_model_that_can_be_trained_has_it(table: pd.DataFrame) -> None:
    assert table["status"].eq("ok").all()
    measured = table["train_images_per_s"] > 0
    names = list(zip(table["method"], table["params"].str.partition("=")[0], measured, strict=True))
    assert names == [
        ("none", "", True),
        ("none", "img_size", False),
        ("tome", "proportional", True),
        ("none", "attention", False),
    ]


def test_a_step_takes_more_memory_than_a_forward_pass_and_less_with_fewer_tokens(table: pd.DataFrame) -> None:
    plain, tome = (table[table["method"] == name].iloc[0] for name in ("none", "tome"))
    assert plain["train_peak_mib"] > plain["peak_mib"]
    assert tome["train_peak_mib"] < plain["train_peak_mib"]
    assert plain["train_speedup_lo"] <= plain["train_speedup"] <= plain["train_speedup_hi"]
