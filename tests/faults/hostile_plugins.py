"""Plugins that fail in every way: the other rows are exact, the plugin's own failed, and a later run is exact too."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from lab import COMPARE, Case, Lab, unequal
from plugin_sources import CHANGES, ENDS, FILES, HANGS, MEMORY, NOISY, PLUGIN, RAISES
from warm_process import Ended

ACTS = {**RAISES, **ENDS, **HANGS, **MEMORY, **CHANGES}
SPEECHLESS = ("closes stderr", "closes descriptor 2")  # nothing can be printed after these
SOUND = ("none", "grid_pooling")  # the methods of the other rows
NAME = "hostile"

TIMEOUT = "3"  # seconds without progress; the slowest step of a sound method takes half of one
LIMIT = 30.0  # seconds for a whole command, which may wait for several steps


@dataclass(frozen=True)
class HostileAct:
    """A method that does something in a certain phase.

    Attributes:
        act: What.
        phase: When: at import, or in a function of the method.
    """

    act: str
    phase: str

    @property
    def name(self) -> str:
        """The two."""
        return f"{self.act} in {self.phase}"

    def wrong(self, lab: Lab) -> str:
        """Measure it together with a sound method, then that alone."""
        source = PLUGIN.format(phase=self.phase, act=f"    {ACTS[self.act]}")
        prints = self.act not in SPEECHLESS
        return _wrong(lab, source.encode(), must_fail=self.act not in CHANGES, noisy=self.act in NOISY, prints=prints)


@dataclass(frozen=True)
class HostileFile:
    """A file that is no plugin, or a plugin whose method is not one."""

    file: str

    @property
    def name(self) -> str:
        """What it does."""
        return f"file: {self.file}"

    def wrong(self, lab: Lab) -> str:
        """Measure it together with a sound method, then that alone."""
        source = FILES[self.file]
        return _wrong(lab, source.encode() if isinstance(source, str) else source, must_fail=False)


def _wrong(lab: Lab, source: bytes, *, must_fail: bool, noisy: bool = False, prints: bool = True) -> str:
    with lab.folder() as folder:
        (folder / f"{NAME}.py").write_bytes(source)
        directory = folder / "results"
        command = (*COMPARE, f"{NAME},grid_pooling", "--plugins", f"{NAME}.py", "--timeout", TIMEOUT)
        ended = lab.warm.run(*command, "--out", "results", folder=folder, limit=LIMIT)
        wrong = _wrong_end(ended, noisy=noisy, prints=prints)
        if not wrong and ended.code != 2:
            wrong = unequal(directory, lab.oracle, SOUND) or _wrong_row(directory, ended, must_fail=must_fail)
        if wrong:
            return wrong
        before = _measured(directory)
        again = lab.warm.run(*COMPARE, "grid_pooling", "--out", "results", folder=folder)
        if again.code != 0 or again.crashed:
            return f"later, without it: {again}"
        wrong = unequal(directory, lab.oracle, SOUND)
        if not wrong and ended.code != 2 and _measured(directory) != before:
            wrong = "measured again"
        return wrong and f"later, without it: {wrong}"


def _wrong_end(ended: Ended, *, noisy: bool, prints: bool) -> str:
    """Whether the run neither went on to its end nor refused the plugin by its name."""
    if ended.code is None or ended.code < 0 or ("Traceback" in ended.err and not noisy):
        return str(ended)
    if ended.code == 2:
        told_in_lines = all(line.startswith("tokbench: ") for line in ended.err.splitlines())
        return "" if told_in_lines and NAME in ended.err else f"{ended}; the plugin is not named"
    return "" if ended.code in (0, 1) and (ended.out or not prints) else f"{ended}, {len(ended.out)} characters printed"


def _wrong_row(directory: Path, ended: Ended, *, must_fail: bool) -> str:
    """Whether the plugin's row looks like a sound one."""
    table = pd.read_parquet(directory / "table.parquet")
    rows = table[table["method"] == NAME].to_dict("records")
    if not rows:
        return "" if NAME in ended.err else "the plugin has no row, and is not named"
    statuses = {row["status"] for row in rows}
    unmeasured = [row for row in rows if row["status"] in ("failed", "skipped")]
    if any(not row["reason"] or not str(row["reason"]).isprintable() for row in unmeasured):
        return f"{unmeasured[0]['status']} with the reason {unmeasured[0]['reason']!r}"
    if must_fail and len(unmeasured) != len(rows):
        return f"its row is {rows[0]['status']}"
    return "" if ended.code == int("failed" in statuses) else f"{ended}, with rows that are {sorted(statuses)}"


def _measured(directory: Path) -> list[tuple[str, str]]:
    """What is measured, as often as it is."""
    records = directory / "records.jsonl"
    lines = records.read_bytes().splitlines() if records.is_file() else []
    return sorted((record["kind"], record["key"]) for record in map(json.loads, lines))


def short() -> Sequence[Case]:
    """Some that go deep."""
    return [HostileAct("segfault", "forward"), HostileAct("zeroes weights", "setup"), HostileFile("registers none")]


def cases(count: int, seed: int = 0) -> Sequence[Case]:
    """A sample of them."""
    return random.Random(seed).sample([*_every()], count)


def _every() -> Iterator[Case]:
    for act in RAISES:
        yield from (HostileAct(act, phase) for phase in ("import", "forward"))
    for act in ("ValueError", "SystemExit(0)", "KeyboardInterrupt", "__str__ raises", "UserError"):
        others = ("init", "setup", "count", "layout_after", "property", "late")
        yield from (HostileAct(act, phase) for phase in others)
    for act in ENDS:
        yield from (HostileAct(act, phase) for phase in ("import", "init", "forward", "late"))
    for act in (*HANGS, *MEMORY):
        yield from (HostileAct(act, phase) for phase in ("import", "forward"))
    for act in CHANGES:
        yield from (HostileAct(act, phase) for phase in ("import", "forward"))
    for act in ("Mlp.forward", "zeroes weights", "fuses weights", "swaps the head", "default dtype", "another method"):
        yield from (HostileAct(act, phase) for phase in ("init", "setup", "count"))
    yield from (HostileFile(file) for file in FILES)
