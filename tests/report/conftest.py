"""Real results that tests of reading share."""

from pathlib import Path

import pandas as pd
import pytest
from stored_results import REFERENCE

from tokbench.results import COLUMNS, Results, load
from tokbench.results.columns import TYPES


@pytest.fixture(scope="session")
def reference() -> Results:
    """One model on the digits; not to be changed."""
    return load(REFERENCE)


@pytest.fixture(scope="session")
def photographs() -> pd.DataFrame:
    """The table of a comparison of many methods on photographs, with times; of an earlier version."""
    stored = pd.read_csv(REFERENCE.with_name("photographs.csv"))
    table = stored.reindex(columns=list(COLUMNS)).assign(mode="eager")
    texts = [name for name, dtype in TYPES.items() if dtype == "string"]  # in CSV an empty text is a missing value
    return table.astype(dict.fromkeys(texts, "string")).fillna(dict.fromkeys(texts, ""))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
