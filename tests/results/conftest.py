"""A comparison measured as a whole and in parts, and copies of the parts to change."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from measured_parts import make


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole, and parts of it cut in several ways."""
    root = tmp_path_factory.mktemp("made")
    whole = make(root / "whole")
    for number in (1, 2):
        make(root / f"images-{number}", f"{number}/2", whole)
    cuts: dict[str, dict[str, Any]] = {
        "grid": {"methods": ["grid_pooling"]},
        "random": {"methods": ["random_selection"]},
        "keep-7": {"keep": [0.7]},
        "keep-5": {"keep": [0.5]},
        "macs": {"only": ["macs"]},
        "accuracy": {"only": ["accuracy"]},
        "seed-0": {"seeds": [0]},
        "seed-1": {"seeds": [1]},
    }
    for name, changes in cuts.items():
        make(root / name, known=whole, **changes)
    return root


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Callable[..., list[Path]]:
    """Copies of directories, to be tampered with."""

    def copy(*names: str) -> list[Path]:
        return [Path(shutil.copytree(made / name, tmp_path / f"copy-{name}")) for name in names]

    return copy
