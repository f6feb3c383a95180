"""Fixtures shared by the tests of checkpoints."""

from __future__ import annotations

from typing import Any

import pytest
from small_checkpoints import folder_for, small_vit


@pytest.fixture(scope="module")
def source() -> Any:
    """A small model, whose weights are saved in many layouts."""
    return small_vit()


@pytest.fixture(scope="module")
def name(source: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name under which its architecture is built, with other weights."""
    return folder_for(source, tmp_path_factory.mktemp("model") / "small")
