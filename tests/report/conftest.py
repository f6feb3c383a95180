"""The committed reference: real results that tests of reading share."""

from pathlib import Path

import pytest
from stored_results import REFERENCE

from tokbench.results import Results, load


@pytest.fixture(scope="session")
def reference() -> Results:
    """The results of the embedded suite in this repository; not to be changed."""
    return load(REFERENCE)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
