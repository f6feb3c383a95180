"""Results to render: a copy of the committed ones for each test, and their page, read once."""

import shutil
from pathlib import Path

import pytest
from page_reader import PIXEL, Reader
from stored_results import REFERENCE, plan_with_methods, write_plan

from tokbench.report.html.page import render_page
from tokbench.results import load


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A copy of a real comparison, with what the present version writes about its methods."""
    return copy_of_reference(tmp_path / "embedded")


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """The page of that comparison with an additional picture."""
    results = copy_of_reference(tmp_path_factory.mktemp("real") / "embedded")
    (results / "tokens.png").write_bytes(PIXEL)
    return Reader(render_page(load(results)))


def copy_of_reference(directory: Path) -> Path:
    shutil.copytree(REFERENCE, directory)
    write_plan(directory, plan_with_methods(directory))
    return directory
