"""Committed results that charts are drawn from."""

import pandas as pd
import pytest

from tokbench.results import Results


@pytest.fixture(scope="session")
def embedded(reference: Results) -> pd.DataFrame:
    return reference.table
