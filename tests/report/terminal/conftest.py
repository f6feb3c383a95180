"""A terminal, and a results directory with a plan but no measurements."""

import io
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from stored_results import REFERENCE

from tokbench.results.plan import PLAN


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.setenv("TERM", "xterm-256color")
    return Console(file=io.StringIO(), force_terminal=True, color_system=None, width=80, height=24)


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    """A directory with the plan of the reference, without records."""
    shutil.copy(REFERENCE / PLAN, tmp_path)
    return tmp_path
