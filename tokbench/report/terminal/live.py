"""A run as it goes, on the terminal: the table filling in, what is measured now, and the time left.

No thread draws it: one would take its time from what is being timed. The picture changes where a measurement begins
or ends, and stands still in between.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, Progress, Task
from rich.text import Text

from tokbench.report.digits import decimals, number
from tokbench.report.terminal.progress import Line, Measurement, State, lines, planned
from tokbench.results.store import Records
from tokbench.results.table import read_plan

# The numbers that are shown: their heads, as wide as they get, and the kind of measurement that each comes from.
NUMBERS = {
    "gmacs": ("GMACs", "macs"),
    "latency_ms": ("    ms", "latency"),
    "speedup": ("speedup", "latency"),
    "top1": (" top-1", "accuracy"),
}
LEAST_NAME = 8  # characters of a method's name on the narrowest terminal
REASONS = 3  # that are shown of those why rows failed: the last ones
AROUND = 7  # lines that are no rows: the heads, which rows are shown, four below, and one to spare

SIGNS = {
    State.RUNNING: ("▶", "cyan"),
    State.DONE: ("✓", "green"),
    State.FAILED: ("✗", "red"),
    State.SKIPPED: ("-", "yellow"),
    State.WAITING: (" ", ""),
}


class Watch(Progress):
    """A progress above which the table of the run fills in.

    Of a task's fields, `kind` tells what kind of measurement it counts, and `key` which one is being made. The
    picture is drawn when a task is added and when a refresh is asked for.
    """

    def __init__(self, store: Records, console: Console, *, disable: bool = False) -> None:
        """Read the plan, and what was measured before.

        Args:
            store: What the run writes to; the plan is in its directory.
            console: A terminal.
            disable: Show nothing.

        Raises:
            UserError: The directory holds no plan.
        """
        plan = read_plan(store.directory)
        # Before all else: a Progress draws itself while it is made.
        self._store = store
        self._measurements = planned(plan, store)
        self._lines = lines(plan, self._measurements)
        bar = (BarColumn(), MofNCompleteColumn())
        super().__init__(*bar, console=console, auto_refresh=False, transient=True, disable=disable)

    def get_renderables(self) -> Iterable[RenderableType]:
        """The rows; below them why some failed, what is measured now, its bar, the counts of rows, the time left."""
        for measurement in self._measurements.values():
            measurement.read(self._store)
        tasks = self.tasks
        fields = tasks[-1].fields if tasks else {}
        running = self._measurements.get((fields.get("kind", ""), fields.get("key", "")))
        states = [line.state(running) for line in self._lines]
        failed = (line for line in self._lines if line.reason and not line.skipped)
        reasons = list(dict.fromkeys(f"{line.label}: {line.reason}" for line in failed))[-REASONS:]
        yield Rows(self._lines, states, around=AROUND + len(reasons))
        yield from (_one_line(f"✗ {reason}", "red") for reason in reasons)
        yield _one_line(f"now: {self._now(tasks[-1], running)}" if tasks else "", "bold")
        yield self.make_tasks_table(tasks[-1:])
        yield _one_line(" · ".join(f"{count} {state}" for state in State if (count := states.count(state))))
        yield _one_line(f"time left: {time_left(self._left(), self._pace())}", "dim")

    def _now(self, task: Task, running: Measurement | None) -> str:
        """The measurement that is being made; several rows may share it, and what they differ in is left out."""
        rows = [line for line in self._lines if running in line.measurements.values()]
        if not rows:
            return task.description
        first = rows[0]
        told = {head: {line.settings[head] for line in rows} for head in first.settings}
        shared = [f"{head} {text}" for head, text in first.settings.items() if text and told[head] == {text}]
        several = len({line.model for line in self._lines}) > 1
        model = [f"in {first.model}"] if several and first.label != first.model else []
        return ", ".join([task.description, first.label, *shared, *model])

    def _left(self) -> dict[str, int]:
        """How many measurements are still to be made, by kind."""
        left: dict[str, int] = defaultdict(int)
        for measurement in self._measurements.values():
            left[measurement.kind] += 0 if measurement.reason else measurement.missing
        return left

    def _pace(self) -> dict[str, float]:
        """Seconds that one measurement has taken on average in this run, by kind."""
        spent: dict[str, float] = defaultdict(float)
        for task in self.tasks:
            spent[task.fields.get("kind", "")] += task.finished_time or task.elapsed or 0.0
        made: dict[str, int] = defaultdict(int)
        for measurement in self._measurements.values():
            made[measurement.kind] += measurement.made
        return {kind: seconds / made[kind] for kind, seconds in spent.items() if made[kind]}


@dataclass(frozen=True)
class Rows:
    """The rows, or the pageful of them that the terminal has room for.

    Attributes:
        lines: All of them.
        states: How far each has come.
        around: Lines of the terminal that are no rows.
    """

    lines: Sequence[Line]
    states: Sequence[State]
    around: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw them into the room that the terminal has now."""
        wanted = (self.states.index(state) for state in (State.RUNNING, State.WAITING) if state in self.states)
        shown = page(len(self.lines), next(wanted, 0), max(1, options.size.height - self.around))
        yield from self._drawn(shown, options.max_width)
        all_shown = len(shown) == len(self.lines)
        yield _one_line("" if all_shown else f"rows {shown.start + 1} to {shown.stop} of {len(self.lines)}", "dim")

    def _drawn(self, shown: range, columns: int) -> Iterator[Text]:
        """A page, drawn without rich's tables: they cost several times as much, and move their columns."""
        names = [name for name, (_, kind) in NUMBERS.items() if any(kind in line.measurements for line in self.lines)]
        settings = {
            head: max(cell_len(text) for text in (head, *(line.settings[head] for line in self.lines)))
            for head in self.lines[0].settings
        }
        heads = [*(head.rjust(width) for head, width in settings.items()), *(NUMBERS[name][0] for name in names)]
        room = columns - len(" ".join(["▶ ", *heads]))
        longest = max(LEAST_NAME, min(room, max(cell_len(line.label) for line in self.lines)))
        yield _one_line(" ".join([" ", "method".ljust(longest), *heads]), "bold")
        for index in shown:
            line, state = self.lines[index], self.states[index]
            label = Text(line.label)
            label.truncate(longest, overflow="ellipsis", pad=True)
            told = [Text(line.settings[head].rjust(width)) for head, width in settings.items()]
            cells = [Text(*SIGNS[state]), label, *told, *(_number(line, name) for name in names)]
            yield _one_line(" ", "bold" if state is State.RUNNING else "").join(cells)


def page(count: int, at: int, room: int) -> range:
    """The pageful of rows that one of them is on: it stands still until the run goes on to the next.

    Args:
        count: Of all rows.
        at: The row that must be on it.
        room: How many a page holds.
    """
    start = min(at // room * room, max(0, count - room))
    return range(start, min(count, start + room))


def time_left(left: Mapping[str, int], pace: Mapping[str, float]) -> str:
    """How long the rest takes at the pace of this run, in words.

    Args:
        left: How many measurements are to be made, by kind.
        pace: Seconds that one has taken on average; a kind that has not begun has none, and is named.
    """
    seconds = sum(count * pace[kind] for kind, count in left.items() if kind in pace)
    unknown = [kind for kind, count in left.items() if count and kind not in pace]
    if unknown and not seconds:
        return "unknown"
    about = f"about {timedelta(seconds=round(seconds))}"
    return f"{about}, not counting {', '.join(unknown)}" if unknown else about


def _number(line: Line, name: str) -> Text:
    """A number with three digits; while images are still shown to a row, what its top-1 is so far."""
    head, kind = NUMBERS[name]
    measurement = line.measurements.get(kind)
    text, style = "", ""
    if measurement is not None and measurement.reason:
        text, style = "✗", "red"
    elif measurement is not None:
        value = measurement.numbers.get(name)
        if value is not None:
            text = number(value, decimals({name: value, f"{name}_half": math.nan}, name))
        if measurement.missing:
            text, style = f"{text}…", "dim"
    return Text(text.rjust(len(head)), style)


def _one_line(text: str, style: str = "") -> Text:
    return Text(text, style, no_wrap=True, overflow="ellipsis")
