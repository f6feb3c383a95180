"""Progress bars of a run on the terminal: an observer of the run.

They are drawn without a thread, which would disturb the timing: only when a measurement begins or ends.
"""

from __future__ import annotations

from rich.console import Console
from rich.progress import Progress, ProgressColumn, TaskID


class Bars(Progress):
    """A bar for each kind of measurement.

    The task field `kind` is the kind of measurement that a task counts, and `key` the one that is running.
    """

    def __init__(self, console: Console, *columns: ProgressColumn, disable: bool = False) -> None:
        """Begin without bars.

        Args:
            console: A terminal.
            columns: What a bar consists of; rich's usual columns by default.
            disable: Whether to show nothing.
        """
        super().__init__(*columns, console=console, auto_refresh=False, transient=True, disable=disable)
        self._bars: dict[str, TaskID] = {}

    def announce(self, text: str) -> None:
        """Show what is being done."""
        self.add_task(text, total=None)

    def planned(self, kind: str, total: int) -> None:
        """Show a bar for so many measurements."""
        self._bars[kind] = self.add_task(kind, total=total, kind=kind)

    def measuring(self, kind: str, key: str) -> None:
        """Mark a measurement as running."""
        self.update(self._bars[kind], key=key, refresh=True)

    def measured(self, kind: str, count: int = 1) -> None:
        """Advance the bar."""
        self.update(self._bars[kind], advance=count, key="", refresh=True)
