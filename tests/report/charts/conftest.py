"""Committed results that charts are drawn from."""

import pandas as pd
import pytest
from stored_results import RESULTS

from tokbench.results import COLUMNS, Results
from tokbench.results.columns import TYPES


@pytest.fixture(scope="session")
def embedded(reference: Results) -> pd.DataFrame:
    return reference.table


@pytest.fixture(scope="session")
def photographs() -> pd.DataFrame:
    stored = pd.read_csv(RESULTS / "photographs" / "stages" / "table.csv")
    table = stored.reindex(columns=list(COLUMNS)).assign(mode="eager")
    texts = [name for name, dtype in TYPES.items() if dtype == "string"]  # in CSV an empty text is a missing value
    return table.astype(dict.fromkeys(texts, "string")).fillna(dict.fromkeys(texts, ""))
