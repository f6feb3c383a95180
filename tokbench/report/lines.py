"""A comparison as lines and columns of text: what the terminal's table and a paper's have in common."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from rich.console import JustifyMethod
from rich.text import Text

from tokbench.names import PLAIN
from tokbench.report.digits import Line, aligned, decimals, number
from tokbench.report.labels import labels, word
from tokbench.results.times import MUCH_LOAD

TIMES = "\N{MULTIPLICATION SIGN}"
METHOD_SETTINGS = ("schedule", "site", "regime")
SETTINGS = ("device", "dtype", "batch_size", "mode", "attention_kernel", *METHOD_SETTINGS)
IDENTITY = ["method", "params", "label", "keep", *SETTINGS]
NUMBERS = [
    *("gmacs", "gmacs_method", "gmacs_saved", "latency_ms", "latency_ms_lo", "latency_ms_hi", "images_per_s"),
    *("speedup", "speedup_lo", "speedup_hi", "peak_mib", "top1", "top5", "images", "top1_lo", "top1_hi"),
    *("delta_top1", "delta_lo", "delta_hi", "noise_floor", "other_load"),
]

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


def blocks(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, list[Line]]]:
    """The models, each with its rows and with the lines of those that were measured.

    Args:
        table: The rows of a comparison, with the columns of the design's row.

    Returns:
        Rows have a `label` besides; of the plain model's, the method's settings are blank: they say nothing about it.

    Raises:
        KeyError: A column is missing.
    """
    if "mode" not in table:  # written before there were three of them
        mode = np.where(table["compiled"].eq(True), "compile", "eager")
        table = table.assign(mode=mode, noise_floor=None, other_load=None)
    for model, rows in table.groupby("model", sort=False, dropna=False):
        block = rows.assign(label=labels(rows), keep=pd.to_numeric(rows["keep"]))
        block.loc[block["method"] == PLAIN, list(METHOD_SETTINGS)] = None
        yield word(model), block, _lines(block[block["status"] == "ok"])


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


def known(lines: Iterable[Line], name: str) -> list[str]:
    """The different values of a column in the order they come."""
    return list(dict.fromkeys(text for line in lines if (text := word(line[name]))))


def title(model: str, lines: Sequence[Line]) -> Text:
    """The model and what all of its lines have in common."""
    common = {name: words[0] for name in SETTINGS if len(words := known(lines, name)) == 1}
    where = " ".join(common.pop(name) for name in ("device", "dtype") if name in common)
    images = [f"{float(most):,.0f} images" for most in known(lines, "images")[:1]]
    parts = [*images, where, *(f"{HEADS[name]} {word}" if name in HEADS else word for name, word in common.items())]
    return Text.assemble((model, "bold"), *((f" · {part}", "dim") for part in parts if part not in ("", "eager")))


def legend(lines: Sequence[Line]) -> Text:
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


def columns(lines: Sequence[Line]) -> list[Column]:
    """All columns that have anything to show."""
    names = [line["label"] for line in lines]
    methods = ["" if name == above else name for above, name in zip(["", *names], names, strict=False)]
    signs = [SIGNS[line["verdict"]] if word(line["verdict"]) and line["speedup"] > 0 else ("",) for line in lines]
    shown = [
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
    return [column for column in shown if any(cell.plain.strip() for cell in column.cells)]


def _settings(lines: Sequence[Line]) -> list[Column]:
    """The settings that differ; those without which all lines would still be told apart may be dropped."""
    telling = varying = [name for name in SETTINGS if len(known(lines, name)) > 1]
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
