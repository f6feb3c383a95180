"""The progress of a training run on the terminal: bars, or lines where the output is a file or a pipe."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.text import Text

if TYPE_CHECKING:
    from tokbench.finetune.job import Step
    from tokbench.finetune.prepare import Task
    from tokbench.results.training import TrainedCell

LINE_EVERY = 60.0  # seconds between two lines about the same epoch, where lines are printed
REFRESH = 0.2  # seconds between two drawings of the bars


class TrainingBars(Progress):
    """A bar for the cells, one for the steps of the present cell, and its numbers; a watcher of the run."""

    def __init__(self, console: Console, cells: int, epochs: int) -> None:
        """Begin with no cell.

        Args:
            console: A terminal.
            cells: How many there are.
            epochs: Of each.
        """
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[now]}"),
        )
        super().__init__(*columns, console=console, auto_refresh=False, transient=True)
        self._epochs = epochs
        self._cells = self.add_task("cells", total=cells, now="")
        self._steps = self.add_task("steps", total=None, now="")
        self._drawn = 0.0

    def begin(self, number: int, task: Task) -> None:
        """Show the cell."""
        self.update(self._cells, completed=number, now=escape(str(task.cell)))
        self.reset(self._steps, total=None, now="", description="steps")
        self.refresh()

    def step(self, step: Step) -> None:
        """Show the numbers of a step."""
        now = time.monotonic()
        if now - self._drawn < REFRESH and step.top1 is None:
            return
        self._drawn = now
        self.update(self._steps, completed=step.step, total=step.steps, now=step_text(step, self._epochs), refresh=True)

    def end(self, number: int, result: TrainedCell) -> None:
        """Advance, and leave a line about a failure above the bars."""
        self.update(self._cells, completed=number + 1)
        if result.failed:
            self.console.print(Text(f"{result}: {result.reason}", "red"))
        self.refresh()


class TrainingLines:
    """A line when a cell begins and ends, when an epoch ends, and each minute; a watcher of the run."""

    def __init__(self, console: Console, cells: int, epochs: int) -> None:
        """Begin with no cell.

        Args:
            console: Where lines go.
            cells: How many there are.
            epochs: Of each.
        """
        self._console = console
        self._total = cells
        self._epochs = epochs
        self._last: Step | None = None
        self._printed = time.monotonic()

    def begin(self, number: int, task: Task) -> None:
        """Name the cell."""
        self._print(f"cell {number + 1} of {self._total}: {task.cell}")
        self._last, self._printed = None, time.monotonic()

    def step(self, step: Step) -> None:
        """Print the numbers of a step if its epoch is over, or a minute has passed."""
        last, self._last = self._last, step
        if last is not None and last.epoch != step.epoch:
            self._print(f"  {step_text(last, self._epochs)}")
        elif time.monotonic() - self._printed > LINE_EVERY:
            self._print(f"  {step_text(step, self._epochs)}")

    def end(self, number: int, result: TrainedCell) -> None:
        """Print what came of the cell."""
        if self._last is not None:
            self._print(f"  {step_text(self._last, self._epochs)}")
            self._last = None
        if result.reason:
            self._print(f"  {'skipped' if result.skipped else 'failed'}: {result.reason}")

    def _print(self, line: str) -> None:
        self._printed = time.monotonic()
        self._console.print(Text(line), soft_wrap=True)


def step_text(step: Step, epochs: int) -> str:
    """The numbers of a step in one line.

    Args:
        step: The step.
        epochs: How many there are.
    """
    left = timedelta(seconds=round(step.seconds_left))
    top1 = [] if step.top1 is None else [f"top-1 {step.top1:.1f} %"]
    numbers = (f"loss {step.loss:.3f}", f"lr {step.lr:.1e}", f"{step.images_per_second:.0f} images/s", f"{left} left")
    return " · ".join([f"epoch {step.epoch} of {epochs}", *numbers, *top1])
