"""What identifies a row."""

from dataclasses import asdict

import numpy as np
import pandas as pd

from tokbench.rows import ANSWER, FIELDS, RowId, columns_without

ROW = RowId("m", "tome", "a=1", "off-the-shelf", "after_attention", "every_block(r=13)", None, 2, "fp32", 32, "eager")


def test_a_row_of_a_table_is_identified_by_its_columns() -> None:
    table = pd.DataFrame([{**asdict(ROW), "top1": 80.0}]).astype({"seed": "Int64", "keep": "float64"})
    assert RowId.of(table.iloc[0]) == ROW
    assert RowId.of(table.to_dict("records")[0]) == ROW
    missing = {**asdict(ROW), "keep": np.nan, "seed": pd.NA, "site": None}
    assert RowId.of(missing) == ROW.without("seed", "site")


def test_the_regime_tells_rows_apart() -> None:
    tuned = RowId.of({**asdict(ROW), "regime": "fine-tuned"})
    assert tuned != ROW
    assert "regime" in ANSWER
    assert tuned.without("seed") != ROW.without("seed")


def test_a_row_with_blanks_covers_those_it_stands_for() -> None:
    assert ROW.without("seed", "batch_size", "mode").covers(ROW)
    assert ROW.without("seed").covers(ROW)
    assert ROW.covers(ROW)
    assert not ROW.covers(ROW.without("seed"))
    assert not ROW.without("seed").covers(RowId.of({**asdict(ROW), "keep": 0.5}))


def test_grouping_columns_leave_out_what_is_named() -> None:
    assert columns_without() == list(FIELDS)
    assert set(FIELDS) - set(columns_without("seed", "mode")) == {"seed", "mode"}
