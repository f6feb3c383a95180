"""Showing a run where it was started: on a terminal, in a notebook, or nowhere."""

from __future__ import annotations

import html
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from tokbench.comparison import Watch, unwatched
from tokbench.report.terminal.live import LiveView
from tokbench.results import Results
from tokbench.run.observer import Observer


def watch_in_place() -> Watch:
    """How to show a run here."""
    if _in_notebook():
        return in_notebook
    return on_terminal if Console(stderr=True).is_interactive else unwatched


@contextmanager
def on_terminal(results: Results) -> Iterator[Observer]:
    """The table filling in, on standard error."""
    with LiveView(results, Console(stderr=True)) as view:
        yield view


@contextmanager
def in_notebook(results: Results) -> Iterator[Observer]:
    """A bar below the cell; it stays when the run is done."""
    from IPython.display import display

    yield NotebookBar(display)


class NotebookBar:
    """An observer that shows one bar in a notebook.

    It needs no widgets, and changes only when a measurement begins or ends.
    """

    def __init__(self, display: Any) -> None:
        """Show an empty bar.

        Args:
            display: IPython's function.
        """
        self._done: dict[str, int] = {}
        self._total: dict[str, int] = {}
        self._now = "starting"
        self._handle = display(self, display_id=True)

    def announce(self, text: str) -> None:
        """Show what is being done."""
        self._show(text)

    def planned(self, kind: str, total: int) -> None:
        """Count so many measurements."""
        self._total[kind] = self._total.get(kind, 0) + total

    def measuring(self, kind: str, key: str) -> None:
        """Show the kind that is measured now."""
        self._show(kind)

    def measured(self, kind: str, count: int = 1) -> None:
        """Count what is done."""
        self._done[kind] = self._done.get(kind, 0) + count
        self._show(kind)

    def _show(self, text: str) -> None:
        total = self._total.get(text)
        self._now = f"{text}: {self._done.get(text, 0)} of {total}" if total else text
        self._handle.update(self)

    def _repr_html_(self) -> str:
        done, total = sum(self._done.values()), max(1, sum(self._total.values()))
        return f'<progress value="{done}" max="{total}"></progress> {html.escape(self._now)}'

    def __repr__(self) -> str:
        return self._now


def _in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel; asks only a module that is loaded there already."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")
