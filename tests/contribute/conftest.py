"""A run, measured once, and copies of it to tamper with."""

import shutil
from pathlib import Path

import pytest
from contributed_run import measured, with_failure

from tokbench.results import Results, load


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A complete run with a failure."""
    return with_failure(measured(tmp_path_factory.mktemp("run") / "run"))


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The same rows and images measured once more, without times."""
    return load(measured(tmp_path_factory.mktemp("reference") / "reference", only=["macs", "accuracy"]))


@pytest.fixture
def copy(run: Path, tmp_path: Path) -> Path:
    """A copy of the run, as `tokbench contribute` leaves it."""
    return Path(shutil.copytree(run, tmp_path / "copy", ignore=shutil.ignore_patterns(".lock")))
