"""The live view of a run on the terminal: the table so far, the current measurement, and the time left.

It is drawn without a thread, which would disturb the timing: only when a measurement begins or ends.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, Task
from rich.text import Text

from tokbench.kinds import KINDS
from tokbench.report.digits import decimals, number
from tokbench.report.terminal.bars import Bars
from tokbench.report.terminal.progress import Measurement, RowProgress, State, planned_measurements, rows_in_progress
from tokbench.results import COLUMNS, Results

MIN_NUMBER_WIDTH = 6  # characters, the mark of an unfinished number included
MIN_NAME_WIDTH = 8  # characters of a method's name that are shown on the narrowest terminal
MAX_REASONS = 3  # of failed rows: only the latest are shown
OTHER_LINES = 7  # lines besides rows: the heading, the range of rows, four below them, and one spare

STATE_SIGNS = {
    State.RUNNING: ("▶", "cyan"),
    State.DONE: ("✓", "green"),
    State.FAILED: ("✗", "red"),
    State.SKIPPED: ("-", "yellow"),
    State.WAITING: (" ", ""),
}


class LiveView(Bars):
    """A progress bar below the table of the run; an observer of the run."""

    def __init__(self, results: Results, console: Console, *, disable: bool = False) -> None:
        """Read the records of earlier runs.

        Args:
            results: The run's directory.
            console: A terminal.
            disable: Whether to show nothing.
        """
        # Before the base class, whose constructor already draws the view.
        self._results = results
        self._measurements = planned_measurements(results)
        self._rows = rows_in_progress(results.plan.rows, self._measurements)
        super().__init__(console, BarColumn(), MofNCompleteColumn(), disable=disable)

    def get_renderables(self) -> Iterable[RenderableType]:
        """The rows; below them failures, the current measurement, its progress bar, row counts, and the time left."""
        for measurement in self._measurements.values():
            measurement.read(self._results)
        tasks = self.tasks
        fields = tasks[-1].fields if tasks else {}
        running = self._measurements.get((fields.get("kind", ""), fields.get("key", "")))
        states = [row.state(running) for row in self._rows]
        failed = (row for row in self._rows if row.reason and not row.is_skipped)
        reasons = list(dict.fromkeys(f"{row.label}: {row.reason}" for row in failed))[-MAX_REASONS:]
        yield Rows(self._rows, states, other_lines=OTHER_LINES + len(reasons))
        yield from (_one_line(f"✗ {reason}", "red") for reason in reasons)
        yield _one_line(f"now: {self._now(tasks[-1], running)}" if tasks else "", "bold")
        yield self.make_tasks_table(tasks[-1:])
        yield _one_line(" · ".join(f"{count} {state}" for state in State if (count := states.count(state))))
        yield _one_line(f"time left: {time_left(self._left(), self._pace())}", "dim")

    def _now(self, task: Task, running: Measurement | None) -> str:
        """The running measurement, with the settings that all rows sharing it have in common."""
        rows = [row for row in self._rows if running in row.measurements.values()]
        if not rows:
            return task.description
        first = rows[0]
        values = {heading: {row.settings[heading] for row in rows} for heading in first.settings}
        shared = [f"{heading} {text}" for heading, text in first.settings.items() if text and values[heading] == {text}]
        several = len({row.model for row in self._rows}) > 1
        model = [f"in {first.model}"] if several and first.label != first.model else []
        return ", ".join([task.description, first.label, *shared, *model])

    def _left(self) -> dict[str, int]:
        """The number of measurements left, by kind."""
        left: dict[str, int] = defaultdict(int)
        for measurement in self._measurements.values():
            left[measurement.kind.name] += 0 if measurement.reason else measurement.missing
        return left

    def _pace(self) -> dict[str, float]:
        """Mean seconds per measurement in this run, by kind."""
        spent: dict[str, float] = defaultdict(float)
        for task in self.tasks:
            spent[task.fields.get("kind", "")] += task.finished_time or task.elapsed or 0.0
        made: dict[str, int] = defaultdict(int)
        for measurement in self._measurements.values():
            made[measurement.kind.name] += measurement.made
        return {kind: seconds / made[kind] for kind, seconds in spent.items() if made[kind]}


@dataclass(frozen=True)
class Rows:
    """The rows that fit on the terminal.

    Attributes:
        rows: All rows.
        states: The state of each.
        other_lines: The number of the terminal's lines that are needed for other things.
    """

    rows: Sequence[RowProgress]
    states: Sequence[State]
    other_lines: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw as many as the terminal has room for now."""
        wanted = (self.states.index(state) for state in (State.RUNNING, State.WAITING) if state in self.states)
        shown = visible_rows(len(self.rows), next(wanted, 0), max(1, options.size.height - self.other_lines))
        yield from self._draw(shown, options.max_width)
        all_shown = len(shown) == len(self.rows)
        yield _one_line("" if all_shown else f"rows {shown.start + 1} to {shown.stop} of {len(self.rows)}", "dim")

    def _draw(self, shown: range, columns: int) -> Iterator[Text]:
        """Draw some rows. Rich's tables would take several times as long, and their columns would move."""
        names = [
            name
            for kind in KINDS.values()
            for name in kind.live_columns
            if any(kind.name in row.measurements for row in self.rows)
        ]
        settings = {
            heading: max(cell_len(text) for text in (heading, *(row.settings[heading] for row in self.rows)))
            for heading in self.rows[0].settings
        }
        headings = [
            *(heading.rjust(width) for heading, width in settings.items()),
            *(_heading(name) for name in names),
        ]
        room = columns - len(" ".join(["▶ ", *headings]))
        longest = max(MIN_NAME_WIDTH, min(room, max(cell_len(row.label) for row in self.rows)))
        yield _one_line(" ".join([" ", "method".ljust(longest), *headings]), "bold")
        for index in shown:
            row, state = self.rows[index], self.states[index]
            label = Text(row.label)
            label.truncate(longest, overflow="ellipsis", pad=True)
            values = [Text(row.settings[heading].rjust(width)) for heading, width in settings.items()]
            cells = [Text(*STATE_SIGNS[state]), label, *values, *(_number(row, name) for name in names)]
            yield _one_line(" ", "bold" if state is State.RUNNING else "").join(cells)


def visible_rows(count: int, at: int, room: int) -> range:
    """The page of rows that contains a given row; the pages are fixed, so the view only moves from page to page.

    Args:
        count: The number of rows.
        at: The row that must be shown.
        room: The number of rows on a page.
    """
    start = min(at // room * room, max(0, count - room))
    return range(start, min(count, start + room))


def time_left(left: Mapping[str, int], pace: Mapping[str, float]) -> str:
    """The time left at the pace of this run, as text.

    Args:
        left: The number of measurements left, by kind.
        pace: Mean seconds per measurement; kinds without a measurement yet are missing, and are named in the text.
    """
    seconds = sum(count * pace[kind] for kind, count in left.items() if kind in pace)
    unknown = [kind for kind, count in left.items() if count and kind not in pace]
    if unknown and not seconds:
        return "unknown"
    about = f"about {timedelta(seconds=round(seconds))}"
    return f"{about}, not counting {', '.join(unknown)}" if unknown else about


def _number(row: RowProgress, name: str) -> Text:
    """A number with three digits; top-1 is over the images so far, marked by `…` until all are done."""
    kind = next(kind for kind in KINDS.values() if name in kind.live_columns)
    measurement = row.measurements.get(kind.name)
    text, style = "", ""
    if measurement is not None and measurement.reason:
        text, style = STATE_SIGNS[State.SKIPPED if measurement.skipped else State.FAILED]
    elif measurement is not None:
        value = measurement.numbers.get(name)
        if value is not None:
            text = number(value, decimals({name: value, f"{name}_half": math.nan}, name))
        if measurement.missing:
            text, style = f"{text}…", "dim"
    return Text(text.rjust(len(_heading(name))), style)


def _heading(name: str) -> str:
    return COLUMNS[name].title.rjust(MIN_NUMBER_WIDTH)


def _one_line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")
