"""Whom a training run tells how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tokbench.finetune.job import Step
    from tokbench.finetune.prepare import Task
    from tokbench.results.training import TrainedCell


class Watcher(Protocol):
    """Who shows the progress of a training run; its methods return at once."""

    def begin(self, number: int, task: Task) -> None:
        """A cell's training begins; `number` counts from 0 in the order of the plan."""

    def step(self, step: Step) -> None:
        """A step of the cell that is trained is done."""

    def end(self, number: int, result: TrainedCell) -> None:
        """A cell is done, be it in this run or in an earlier one."""


class Unwatched:
    """Shows nothing."""

    def begin(self, number: int, task: Task) -> None:
        """See `Watcher`."""

    def step(self, step: Step) -> None:
        """See `Watcher`."""

    def end(self, number: int, result: TrainedCell) -> None:
        """See `Watcher`."""
