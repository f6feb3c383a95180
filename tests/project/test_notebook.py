"""docs/compare.ipynb runs from the first cell to the last, and shows a table and a figure."""

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[2] / "docs/compare.ipynb"
# With fewer rows, images and rounds than in the notebook.
QUICKER = {"keep=[0.7, 0.5, 0.3]": "keep=[0.5]", "seconds=0.2": "seconds=0.02, limit=80, batch_size=[1]"}


def outputs(notebook: nbformat.NotebookNode, number: int) -> list[dict[str, str]]:
    """What the cell of this number shows, by MIME type."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [output.data for output in code[number].outputs if "data" in output]


def test_it_runs_and_shows_progress_a_table_a_figure_and_the_times(tmp_path: Path) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    comparison = notebook.cells[1]
    for setting, quicker in QUICKER.items():
        assert comparison.source.count(setting) == 1
        comparison.source = comparison.source.replace(setting, quicker)
    executed = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": tmp_path}}).execute()

    progress, *_, table = outputs(executed, 0)
    assert "<progress" in progress["text/html"]
    assert "<table" in table["text/html"]
    for text in ("tome", "random_selection", "none", "delta_top1"):
        assert text in table["text/plain"]
    streams = [output.text for output in executed.cells[1].outputs if output.output_type == "stream"]
    # Warnings of libraries: the hub's asks for widgets, torch's about a function that fvcore calls.
    assert [text for text in streams if "TqdmWarning" not in text and "torch.jit" not in text] == []
    assert any("image/png" in data for data in outputs(executed, 1))
    assert "row_s" in outputs(executed, 2)[-1]["text/plain"]
