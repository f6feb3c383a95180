"""Published numbers for the terminal: beside the measured ones, and as a list."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokbench.names import FINE_TUNED, OFF_THE_SHELF, PLAIN
from tokbench.published.counted import Counted, printed, setting
from tokbench.published.obstacles import Obstacle, obstacles

CountedByKey = Mapping[tuple[Any, ...], Counted]
Judged = tuple[Mapping[Hashable, Any], tuple[Obstacle, ...]]

NEAREST = 8  # numbers that are not comparable, in a list of one method
NEAREST_OF_SEVERAL = 2  # and of each method, in a list of several

MORE = "tokbench list claims --method NAME --model NAME shows them, --json shows all."


def render_claims(frame: pd.DataFrame, console: Console) -> None:
    """Print measured rows beside the published numbers of the same setting, for each model, with notes and sources.

    Models that were only measured on a part of the validation images share one line instead: their accuracies cannot
    be compared with published ones.

    Args:
        frame: What `tokbench.published.claims.beside` gives.
        console: Where to print; no text is cut at 80 columns.
    """
    partial: dict[str, None] = {}
    for model, block in frame.groupby("model", sort=False):
        rows = block.to_dict("records")
        if all(row["not_comparable"] and not pd.isna(row["top1"]) for row in rows):
            partial |= dict.fromkeys(row["not_comparable"] for row in rows)
            continue
        table = _table(
            ["setting", "GMACs", "published", "top-1", "published", "Δ", "source"], wrapping=("setting", "source")
        )
        for row in rows:
            gmacs = (_number(row["gmacs"], ".3f"), _as_published(row["claimed_gmacs"]))
            top1 = (_number(row["top1"], ".2f"), _as_published(row["claimed_top1"]), _number(row["difference"], "+.2f"))
            table.add_row(*map(Text, (_setting(row), *gmacs, *top1, row["paper"])))
        console.print("", Text.assemble((f"Published · {model}", "bold")), "", table, "", sep="\n")
        for line in _remarks(rows):
            console.print(Text(line, "dim", overflow="fold"))
    for reason in partial:
        console.print(
            "",
            Text(f"Published numbers are not comparable: {reason} (tokbench list claims shows them)", "dim"),
            sep="\n",
        )


def render_summary(frame: pd.DataFrame, console: Console) -> None:
    """Print how many published numbers there are of each method.

    Args:
        frame: Rows of `tokbench.published.claims.published`.
        console: Where to print.
    """
    table = _table(["method", "settings", "off the shelf", "fine-tuned", "models", "sources"], wrapping=("method",))
    for method, rows in frame.groupby("method", sort=True):
        regimes = rows["regime"].value_counts()
        counts = (len(rows), regimes.get(OFF_THE_SHELF, 0), regimes.get(FINE_TUNED, 0))
        sizes = (rows["published_model"].nunique(), rows["paper"].nunique())
        table.add_row(Text(_method(str(method))), *(Text(str(count)) for count in (*counts, *sizes)))
    console.print(table, "", Text(f"{len(frame)} published settings. {MORE}", "dim"), sep="\n")


def render_published(frame: pd.DataFrame, console: Console, public: Mapping[str, float], counted: CountedByKey) -> None:
    """Print the published numbers that a measurement can confirm, and the nearest of those that it cannot, with why.

    A number is comparable where method, public weights and token counts are those of an off-the-shelf row. The others
    are sorted by how many things differ, then by how near their compute is to that of a comparable number.

    Args:
        frame: Rows of `tokbench.published.claims.published`.
        console: Where to print; no text is cut at 80 columns.
        public: The top-1 of the public weights, by model.
        counted: What tokbench counts for published settings.
    """
    claims = [(claim, obstacles(claim, public)) for claim in frame.to_dict("records")]
    comparable = [claim for claim, why in claims if not why]
    others = [other for other in claims if other[1]]
    methods = list(dict.fromkeys(claim["method"] for claim, _ in others))
    names = {*frame["method"]}
    each = NEAREST if len(names) == 1 else NEAREST_OF_SEVERAL
    near = [other for method in methods for other in _nearest(method, others, comparable)[:each]]
    if len(names) == 1:
        console.print(Text(_method(names.pop()), "bold"), "", sep="\n")
    if comparable:
        console.print(Text("Comparable with an off-the-shelf row of public weights", "bold"), "", sep="\n")
        console.print(_claims(comparable, counted), "", sep="\n")
    if near:
        count = f", the nearest {len(near)} of {len(others)} (--json shows all)" if len(near) < len(others) else ""
        console.print(Text(f"Not comparable{count}", "bold"), "", sep="\n")
        reasons = ["; ".join(one.text for one in why) for _, why in near]
        console.print(_claims([claim for claim, _ in near], counted, reasons), "", sep="\n")
    shown = (*comparable, *(claim for claim, _ in near))
    for line in dict.fromkeys(f"{claim['paper']}: {_address(claim)}" for claim in shown):
        console.print(Text(line, "dim", overflow="fold"))


def _nearest(method: str, others: Sequence[Judged], comparable: Sequence[Mapping[Hashable, Any]]) -> list[Judged]:
    """The claims of one method that are not comparable, the nearest first."""
    own = [other for other in others if other[0]["method"] == method]
    same = [claim for claim in comparable if claim["method"] == method]
    return sorted(own, key=lambda other: (len(other[1]), _distance(other[0], same)))


def _claims(
    claims: Sequence[Mapping[Hashable, Any]], counted: CountedByKey, reasons: Sequence[str] | None = None
) -> Table:
    counts = [counted.get(setting(claim)) for claim in claims]
    names = [_method(claim["method"]) for claim in claims]
    changes = ["" if name == above else name for above, name in zip(["", *names], names, strict=False)]
    columns = {
        "method": changes if len({*names}) > 1 else [""] * len(names),
        "model": [claim["published_model"] for claim in claims],
        "schedule, keep": [_schedule(claim) for claim in claims],
        "GMACs": [printed(claim) for claim in claims],
        "counted": ["" if count is None else f"{count.gmacs:.4g}" for count in counts],
        "top-1": [_as_published(claim["top1"]) for claim in claims],
        "source": [claim["paper"] for claim in claims],
        "why not": list(reasons or [""] * len(claims)),
    }
    shown = {heading: cells for heading, cells in columns.items() if any(cells)}
    table = _table(list(shown), wrapping=("method", "model", "schedule, keep", "source", "why not"))
    for cells in zip(*shown.values(), strict=True):
        table.add_row(*map(Text, cells))
    return table


def _method(name: str) -> str:
    return "plain model" if name == PLAIN else name


def _distance(claim: Mapping[Hashable, Any], comparable: Sequence[Mapping[Hashable, Any]]) -> float:
    """How far a claim's compute is from the nearest comparable one of the same model, as a ratio's logarithm."""
    same = [one["gmacs"] for one in comparable if one["model"] == claim["model"]]
    known = [gmacs for gmacs in same if not pd.isna(gmacs)]
    if not known or pd.isna(claim["gmacs"]):
        return math.inf
    return min(abs(math.log(claim["gmacs"] / gmacs)) for gmacs in known)


def _table(headings: Sequence[str], wrapping: Sequence[str]) -> Table:
    """An empty table; the cells of the columns named in `wrapping` may take several lines."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in headings:
        if heading in wrapping:
            table.add_column(Text(heading, "bold"), overflow="fold")
        else:
            table.add_column(Text(heading, "bold"), justify="right")
    return table


def _setting(row: dict[Any, Any]) -> str:
    if row["method"] == PLAIN:
        return "plain model"
    keep = "" if pd.isna(row["keep"]) else f" keep {row['keep']:g}"
    return f"{row['method']} {row['schedule']}{keep}"


def _schedule(row: Mapping[Hashable, Any]) -> str:
    """The schedule in tokbench's notation if known, else as the source describes it."""
    keep = "" if pd.isna(row["keep"]) else f"{row['keep']:g}"
    ours = ", ".join(filter(None, (row["schedule"], keep if row["method"] != PLAIN else "")))
    return ours or row["published_keep"]


def _remarks(rows: Sequence[dict[Any, Any]]) -> list[str]:
    """Why there is no difference, what else differs, and the sources; each remark once."""
    reasons = [f"no Δ: {row['not_comparable']}" for row in rows if row["not_comparable"]]
    notes = [f"{row['paper']}: {row['note']}" for row in rows if row["note"]]
    figures = [f"{row['paper']}: read from a figure" for row in rows if row["read_from"] == "figure"]
    keeps = [f"{row['paper']}: {row['published_keep']}" for row in rows if "(" in row["published_keep"]]
    sources = [f"{row['paper']}: {_address(row)}" for row in rows]
    return list(dict.fromkeys((*reasons, *notes, *figures, *keeps, *sources)))


def _address(row: Mapping[Hashable, Any]) -> str:
    """Where a number was published, without the address of the copy that was read."""
    return str(row["source"]).partition(";via=")[0]


def _as_published(value: float) -> str:
    """A published number with the digits that the source gives."""
    return _number(value, "g")


def _number(value: float, form: str) -> str:
    return "" if pd.isna(value) else format(value, form)
