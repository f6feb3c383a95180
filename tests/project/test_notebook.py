"""docs/compare.ipynb runs from the first cell to the last, and shows a table and a figure."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs/compare.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    folder = tmp_path_factory.mktemp("notebook")
    return NotebookClient(notebook, timeout=300, resources={"metadata": {"path": folder}}).execute()


def outputs(notebook: nbformat.NotebookNode, number: int) -> list[dict[str, str]]:
    """What the cell of this number shows, by MIME type."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [output.data for output in code[number].outputs if "data" in output]


def test_it_shows_the_table_of_both_methods(executed: nbformat.NotebookNode) -> None:
    table = outputs(executed, 0)[-1]
    assert "<table" in table["text/html"]
    for text in ("tome", "random_selection", "none", "delta_top1"):
        assert text in table["text/plain"]


def test_it_shows_progress_and_nothing_else(executed: nbformat.NotebookNode) -> None:
    first = executed.cells[1]
    assert "<progress" in outputs(executed, 0)[0]["text/html"]
    streams = [output.text for output in first.outputs if output.output_type == "stream"]
    # The hub's library asks for widgets when it is imported, whether anything is downloaded or not.
    assert [text for text in streams if "TqdmWarning" not in text] == []


def test_it_plots_accuracy_against_compute(executed: nbformat.NotebookNode) -> None:
    assert any("image/png" in data for data in outputs(executed, 1))


def test_it_opens_the_results_again(executed: nbformat.NotebookNode) -> None:
    assert "row_s" in outputs(executed, 2)[-1]["text/plain"]
