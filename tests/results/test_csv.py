"""A csv file holds no cell that a spreadsheet would run."""

import io

import pandas as pd
import pytest

from tokbench.results.directory import without_formulas


@pytest.mark.parametrize("text", ["=1+1", "+1", "-cmd", "@sum(A1)", "\t=1", "\r=1", "\n=1"])
@pytest.mark.parametrize("dtype", ["string", "object", "category"])
def test_a_formula_becomes_a_text(text: str, dtype: str) -> None:
    table = pd.DataFrame({"model": pd.Series([text, "deit"], dtype=dtype), "delta": [-1.5, float("nan")]})
    written = without_formulas(table).to_csv(index=False)
    cells = pd.read_csv(io.StringIO(written), dtype=str, keep_default_na=False, lineterminator="\n")
    assert cells["model"].tolist() == [f"'{text}", "deit"]
    assert cells["delta"].tolist() == ["-1.5", ""]
