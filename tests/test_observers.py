"""Progress in a notebook, and nowhere else than where it is wanted."""

from typing import Any

from tokbench.comparison import unwatched
from tokbench.observers import NotebookBar, watch_in_place


class Display:
    """Stands in for IPython's display: keeps what would be shown."""

    def __init__(self) -> None:
        self.shown: list[str] = []

    def __call__(self, bar: Any, display_id: bool) -> "Display":
        self.update(bar)
        return self

    def update(self, bar: Any) -> None:
        self.shown.append(bar._repr_html_())


def test_the_bar_counts_all_kinds_together() -> None:
    display = Display()
    bar = NotebookBar(display)
    bar.planned("macs", 2)
    bar.planned("accuracy", 6)
    bar.measuring("macs", "a")
    bar.measured("macs")
    bar.announce("noise floor")
    bar.measured("accuracy", 3)
    assert display.shown[1:] == [
        '<progress value="0" max="8"></progress> macs: 0 of 2',
        '<progress value="1" max="8"></progress> macs: 1 of 2',
        '<progress value="1" max="8"></progress> noise floor',
        '<progress value="4" max="8"></progress> accuracy: 3 of 6',
    ]


def test_texts_are_escaped() -> None:
    display = Display()
    NotebookBar(display).announce("<script>")
    assert display.shown[-1].endswith("&lt;script&gt;")


def test_without_a_terminal_or_a_notebook_nothing_is_shown() -> None:
    assert watch_in_place() is unwatched
