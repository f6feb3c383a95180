"""A finished comparison as a table for the terminal: one block a model, the plain model first.

What is the same for every row of a block stands once in its title; what differs becomes a column. On a narrow
console the columns of `DROPPED_FIRST` go, in that order, and long methods take several lines: nothing is cut.
"""

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import IO

import numpy as np
import pandas as pd
from rich import box
from rich.console import Console, JustifyMethod
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from tokbench.report.digits import Line, aligned, decimals, number
from tokbench.report.labels import PARAMETER, labels, word

# Where nobody says how wide a pipe or a file is: what a mail, a log and an issue still show unbroken.
PIPED_WIDTH = 100

# Least needed first; a setting without which the rows are still told apart counts as "setting". What stays
# answers the question: how much faster, and how much less accurate.
DROPPED_FIRST = ("setting", "peak", "img/s", "top-5", "method %", "latency", "saved", "GMACs")

# Characters that a method's name keeps, folded if need be, before intervals go.
LEAST_ROOM = 14

PLAIN = "none"
TIMES = "\N{MULTIPLICATION SIGN}"
METHOD_SETTINGS = ("schedule", "site", "regime")
SETTINGS = ("device", "dtype", "batch_size", "mode", "attention_kernel", *METHOD_SETTINGS)
IDENTITY = ["method", "params", "label", "keep", *SETTINGS]
NUMBERS = [
    *("gmacs", "gmacs_method", "gmacs_saved", "latency_ms", "latency_ms_lo", "latency_ms_hi", "images_per_s"),
    *("speedup", "speedup_lo", "speedup_hi", "peak_mib", "top1", "top5", "images", "top1_lo", "top1_hi"),
    *("delta_top1", "delta_lo", "delta_hi", "noise_floor", "other_load"),
]
# Of the CPUs, taken by other processes: worth a line under the table.
MUCH_LOAD = 0.1

HEADS = {"batch_size": "batch", "attention_kernel": "attention"}
SIGNS = {"FASTER": ("▲", "green"), "SLOWER": ("▼", "red"), "SAME": ("=", "dim"), "AMBIGUOUS": ("?", "yellow")}


@dataclass(frozen=True)
class Column:
    """One column: `key` is its name in `DROPPED_FIRST`, `unit` stands under its head, `notes` behind its cells."""

    key: str
    head: str
    unit: str
    cells: Sequence[Text]
    justify: JustifyMethod = "right"
    notes: Sequence[str] = ()


def open_console(file: IO[str] | None = None) -> Console:
    """A console on `file` (standard output by default), where it is no terminal `PIPED_WIDTH` or COLUMNS wide."""
    console = Console(file=file, highlight=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPED_WIDTH
    return console


def render(table: pd.DataFrame, console: Console) -> None:
    """Print a comparison: for each model a title, the table, its legend, and what has no result and why.

    The seeds of a stochastic method become one line: top-1 is their mean ± their standard deviation, every
    other number (an interval's ends included) the mean over the seeds that have it.

    Args:
        table: The rows of a comparison, with the columns of the design's row.
        console: Where to print; its width decides how much is shown.

    Raises:
        KeyError: A column is missing, or a verdict is none of `tokbench.stats.Verdict`.
    """
    if "mode" not in table:  # written before there were three of them
        mode = np.where(table["compiled"].eq(True), "compile", "eager")
        table = table.assign(mode=mode, noise_floor=None, other_load=None)
    for place, (model, rows) in enumerate(table.groupby("model", sort=False, dropna=False)):
        block = rows.assign(label=labels(rows), keep=pd.to_numeric(rows["keep"]))
        # A method's settings on the plain model's row say nothing about it.
        block.loc[block["method"] == PLAIN, list(METHOD_SETTINGS)] = None
        lines = _lines(block[block["status"] == "ok"])
        console.print(*([""] if place else []), _title(str(model), lines), sep="\n")
        if lines:
            console.print("", _fitting(_columns(lines), console), "", _legend(lines), sep="\n")
        if notes := _without_result(block):
            console.print("", *notes, sep="\n")


def _lines(measured: pd.DataFrame) -> list[Line]:
    """One line for all seeds of a cell: the plain model's first, then by method, keeps descending.

    A line has the numbers of its rows and, as `NAME_half`, half the width of each one's interval.
    """
    numbers = {name: pd.to_numeric(measured[name]) for name in NUMBERS}
    cells = measured.assign(**numbers, pareto=measured["pareto"].eq(True)).groupby(IDENTITY, sort=False, dropna=False)
    folded = cells[NUMBERS].mean().rename(columns={"delta_top1": "delta"})
    for name in ("latency_ms", "speedup", "top1", "delta"):
        folded[f"{name}_half"] = (folded[f"{name}_hi"] - folded[f"{name}_lo"]) / 2
    folded["images_per_s_half"] = folded["images_per_s"] * folded["latency_ms_half"] / folded["latency_ms"]
    folded["top5_half"] = folded["top1_half"]
    folded["gmacs_half"] = 10 ** (np.floor(np.log10(folded["gmacs"].max())) - 2)  # three digits of the largest
    folded["share"] = 100 * folded["gmacs_method"] / folded["gmacs"]
    folded["spread"], folded["seeds"] = cells["top1"].std(), cells["top1"].count()
    folded["verdict"], folded["pareto"] = cells["verdict"].first(), cells["pareto"].any()
    folded = folded.reset_index()
    # The plain model against itself is 0 or 1 by definition; its speedup stays where a measured one shows the noise.
    folded["other"] = folded["method"] != PLAIN
    folded.loc[~folded["other"], ["share", "gmacs_saved", "delta"]] = math.nan
    folded.loc[~folded["other"] & ~(folded["speedup_half"] > 0), "speedup"] = math.nan
    folded["method_rank"], folded["label_rank"] = (pd.factorize(folded[n])[0] for n in ("method", "label"))
    order = ["other", "method_rank", "label_rank", "keep"]
    return folded.sort_values(order, ascending=[True, True, True, False], kind="stable").to_dict("records")


def _known(lines: Iterable[Line], name: str) -> list[str]:
    """The different values of a column in the order they come."""
    return list(dict.fromkeys(word for line in lines if (word := word(line[name]))))


def _title(model: str, lines: Sequence[Line]) -> Text:
    """The model and what all of its lines have in common."""
    common = {name: words[0] for name in SETTINGS if len(words := _known(lines, name)) == 1}
    where = " ".join(common.pop(name) for name in ("device", "dtype") if name in common)
    images = [f"{float(most):,.0f} images" for most in _known(lines, "images")[:1]]
    parts = [*images, where, *(f"{HEADS[name]} {word}" if name in HEADS else word for name, word in common.items())]
    return Text.assemble((model, "bold"), *((f" · {part}", "dim") for part in parts if part not in ("", "eager")))


def _legend(lines: Sequence[Line]) -> Text:
    """What the signs mean that these lines use."""
    used = {word(line["verdict"]) for line in lines}
    verdicts = ", ".join(f"{sign} {verdict.lower()}" for verdict, (sign, _) in SIGNS.items() if verdict in used)
    seeds = " or ".join(sorted({word(line["seeds"]) for line in lines if line["seeds"] > 1}))
    notes = [
        "★ Pareto: no other row costs no more and is surely better in top-1 (paired 95 % interval above 0)"
        if any(x["pareto"] for x in lines)
        else "",
        f"{verdicts}: against the plain model" if verdicts else "",
        "[ ] 95 % interval" if any(x["speedup_half"] > 0 or x["delta_half"] > 0 for x in lines) else "",
        *_circumstances(lines),
        f"± standard deviation over {seeds} seeds" if seeds else "",
    ]
    return Text("\n".join(filter(None, notes)), "dim")


def _circumstances(lines: Sequence[Line]) -> list[str]:
    """What the times were taken under."""
    floor, load = (max((x[name] for x in lines if x[name] > 0), default=0.0) for name in ("noise_floor", "other_load"))
    return [
        f"the plain model's time differed from itself by up to {floor:.1f} %" if floor else "",
        f"other processes had up to {100 * load:.0f} % of the CPUs" if load > MUCH_LOAD else "",
    ]


def _without_result(block: pd.DataFrame) -> list[Text]:
    """`method keep — failed: reason`, what has one reason together; a method is skipped at every keep alike."""
    rows = block.to_dict("records")
    varying = [name for name in SETTINGS if len(_known(rows, name)) > 1]
    told: dict[tuple[str, str], dict[str, list[str]]] = {}
    for row in rows:
        keep = "" if row["method"] == PLAIN else word(row["keep"])
        told_settings = ((n, word(row[n])) for n in varying)
        settings = [f"{HEADS[n]} {text}" if n in HEADS else text for n, text in told_settings if text]
        skipped = row["status"] == "skipped"
        what = row["label"] if skipped else " ".join(filter(None, (row["label"], keep, *settings)))
        seeds = told.setdefault((row["status"], word(row["reason"])), {}).setdefault(what, [])
        seeds += [] if skipped else filter(None, [word(row["seed"])])
    listed = {
        why: ", ".join(f"{name} (seed {', '.join(seeds)})" if seeds else name for name, seeds in what.items())
        for why, what in told.items()
    }
    colours = {"failed": "red", "skipped": "yellow"}
    return [
        Text.assemble(what, " — ", (s, colours[s]), f": {why}") for (s, why), what in listed.items() if s in colours
    ]


def _columns(lines: Sequence[Line]) -> list[Column]:
    """All columns that have anything to show."""
    names = [line["label"] for line in lines]
    methods = ["" if name == above else name for above, name in zip(["", *names], names, strict=False)]
    signs = [SIGNS[line["verdict"]] if word(line["verdict"]) and line["speedup"] > 0 else ("",) for line in lines]
    columns = [
        Column("pareto", "", "", [Text("★" if line["pareto"] else "", "yellow") for line in lines]),
        Column("method", "method", "", [Text(method) for method in methods], "left"),
        *_settings(lines),
        Column("keep", "keep", "", [Text(keep) for keep in aligned([word(line["keep"]) for line in lines])]),
        Column("GMACs", "GMACs", "", _cells(lines, "gmacs")),
        Column("saved", "saved", "%", _cells(lines, "gmacs_saved")),
        Column("method %", "method", "%", _cells(lines, "share")),
        Column("latency", "latency", "ms", _cells(lines, "latency_ms")),
        Column("img/s", "img/s", "", _cells(lines, "images_per_s")),
        Column("peak", "peak", "MiB", _cells(lines, "peak_mib")),
        Column("verdict", "", "", [Text(*sign) for sign in signs]),
        Column("speedup", "speedup", TIMES, _cells(lines, "speedup"), notes=_notes(lines, "speedup")),
        Column("top-1", "top-1", "%", _cells(lines, "top1"), notes=_notes(lines, "top1")),
        Column("top-5", "top-5", "%", _cells(lines, "top5")),
        Column("delta", "Δ top-1", "points", _cells(lines, "delta"), notes=_notes(lines, "delta")),
    ]
    return [column for column in columns if any(cell.plain.strip() for cell in column.cells)]


def _settings(lines: Sequence[Line]) -> list[Column]:
    """The settings that differ; those without which all lines would still be told apart may be dropped."""
    telling = varying = [name for name in SETTINGS if len(_known(lines, name)) > 1]
    for name in reversed(varying):
        rest = [other for other in telling if other != name]
        if len({tuple(word(line[key]) for key in ("label", "keep", *rest)) for line in lines}) == len(lines):
            telling = rest
    cells = {name: [Text(word(line[name])) for line in lines] for name in varying}
    keys = {name: name if name in telling else "setting" for name in varying}
    return [Column(keys[name], HEADS.get(name, name), "", cells[name], "left") for name in varying]


def _cells(lines: Sequence[Line], name: str) -> list[Text]:
    """The numbers of a column, cut to the digits they deserve."""
    return [Text(n) for n in aligned([number(line[name], decimals(line, name)) for line in lines])]


def _notes(lines: Sequence[Line], name: str) -> list[str]:
    """What stands behind a comparison: its interval. What stands behind top-1: the spread over the seeds."""

    def note(line: Line) -> str:
        digits = decimals(line, name)
        if name == "top1":
            return f" ±{number(line['spread'], digits)}" if line["seeds"] > 1 else ""
        lo, hi = (number(line[f"{name}_{end}"], digits) for end in ("lo", "hi"))
        return f" [{lo}, {hi}]" if lo and hi and not math.isnan(line[name]) else ""

    notes = [note(line) for line in lines]
    return [text.ljust(max(map(len, notes))) for text in notes]


def _fitting(columns: Sequence[Column], console: Console) -> Table:
    """The table with as many of the columns as the console has room for, and at the last without the notes."""
    endless = console.options.update(max_width=10_000)
    for dropped in range(len(DROPPED_FIRST) + 1):
        kept = [column for column in columns if column.key not in DROPPED_FIRST[:dropped]]
        for tall in (False, True):
            table = _table(kept, tall)
            if Measurement.get(console, endless, table).maximum <= console.width:
                return table
    folded = Measurement.get(console, endless, _table(kept, tall=True, room=LEAST_ROOM)).maximum
    return table if folded <= console.width else _table([replace(column, notes=()) for column in kept], tall=True)


def _table(columns: Sequence[Column], tall: bool, room: int | None = None) -> Table:
    """The table of these columns; `tall` gives each parameter a line, `room` limits a method's name."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    rows = []
    for column in columns:
        head = Text.assemble((column.head, "bold"), (f"\n{column.unit}", "dim"))
        if column.key == "method":  # Alone it may break, and that anywhere, so that it is always whole.
            table.add_column(head, overflow="fold", max_width=room)
            labels = [cell.plain for cell in column.cells]
            rows.append([Text("\n ".join(PARAMETER.split(x)).removesuffix(")") if tall else x) for x in labels])
        else:
            table.add_column(head, justify="center" if column.notes else column.justify, no_wrap=True)
            notes = column.notes or [""] * len(column.cells)
            rows.append([Text.assemble(cell, (note, "dim")) for cell, note in zip(column.cells, notes, strict=True)])
    for cells in zip(*rows, strict=True):
        table.add_row(*cells)
    return table
