"""The sections of the page: what is said, drawn and tabled of a comparison, in the order in which it is read."""

from __future__ import annotations

import base64
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from tokbench.names import PLAIN
from tokbench.published.claims import beside
from tokbench.report import charts
from tokbench.report.charts.redundancy import reconstruction_chart, spectrum_chart
from tokbench.report.html import grid
from tokbench.report.html.grid import Grid
from tokbench.report.html.headlines import (
    EQUAL_ACCURACY_LOSS,
    EQUAL_COMPUTE_SAVING,
    EQUAL_TIME_SPEEDUP,
    at_equal,
    headlines,
)
from tokbench.report.html.rerun import SUITE_FILE, RerunCommands
from tokbench.report.labels import cell_text, labels, series
from tokbench.results.table import NOT_MEASURED

SETTING_PREFIXES = {"batch_size": "batch ", "mode": ""}
CLAIM_HEADINGS = {
    **{"model": "model", "method": "method", "regime": "regime", "schedule": "schedule", "keep": "keep"},
    **{"gmacs": "GMACs", "claimed_gmacs": "published GMACs", "top1": "top-1 %", "claimed_top1": "published top-1 %"},
    **{"difference": "difference", "paper": "published in", "read_from": "read from"},
}
DEFAULT_HEIGHT = 450  # plotly's


@dataclass(frozen=True)
class Chart:
    """A figure as JSON that may stand in a script element, and its height in pixels."""

    name: str
    figure: Markup
    height: int


@dataclass(frozen=True)
class LabelledText:
    """Something said about something."""

    about: str
    text: str


@dataclass(frozen=True)
class Picture:
    """A picture as a data URI."""

    name: str
    data: str


@dataclass(frozen=True)
class Section:
    """A part of the page; of what it may hold, whatever there is, in this order.

    Attributes:
        name: Of the link to it.
        title: Its head.
        lead: What is to be seen, and how to read it.
        charts: Figures.
        grid: A table.
        told: Lines; with `folded` the reader opens them by a click on these words.
        pictures: Pictures.
        commands: For a shell, or a file's content.
    """

    name: str
    title: str
    lead: str = ""
    charts: tuple[Chart, ...] = ()
    grid: Grid | None = None
    told: tuple[LabelledText, ...] = ()
    folded: str = ""
    pictures: tuple[Picture, ...] = ()
    commands: tuple[LabelledText, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether there is nothing to show."""
        return not (self.told or self.charts or (self.grid and self.grid.rows) or self.pictures or self.commands)


def sections(
    table: pd.DataFrame, directory: Path, environment: Mapping[str, Any], rerun: RerunCommands
) -> list[Section]:
    """All sections that have anything to show.

    Args:
        table: The directory's rows.
        directory: Where its pictures lie, and what else was measured.
        environment: What it was measured on.
        again: How it is measured again.
    """
    waits = table["status"].eq("failed") & table["reason"].eq(NOT_MEASURED)
    # What a row lacks does not hide what it has.
    measured = table.assign(status=table["status"].mask(waits, "ok"))
    told = table.assign(status=table["status"].mask(waits, NOT_MEASURED))
    parts = [
        *_accuracy_sections(measured),
        *_cost_sections(measured, directory),
        *_row_sections(told, directory),
        *_origin_sections(environment, rerun),
    ]
    return [section for section in parts if not section.empty]


def for_script(text: str) -> Markup:
    """JSON as it can stand in a script element; `<` is only ever in its strings."""
    return Markup(text.replace("<", "\\u003c"))


def _accuracy_sections(table: pd.DataFrame) -> Iterator[Section]:
    """How much accuracy each method keeps, for how much less compute and time."""
    one = table["model"].nunique() == 1
    told = (
        LabelledText(cell_text(line.method if one else f"{line.method} in {line.model}"), line.text)
        for line in headlines(table)
    )
    yield Section(
        "headlines",
        "In one sentence each",
        f"How far a method goes before it loses {EQUAL_ACCURACY_LOSS:g} points of top-1, read off between the measured keeps; where "
        "no accuracy was measured, what its lowest keep saves. [ ] are 95 % intervals.",
        told=tuple(told),
    )
    yield Section(
        "compute",
        "Accuracy against compute",
        "A point is a keep, a line joins those of one method. Bars are 95 % intervals of top-1; ringed is what no "
        "other row beats: none costs no more and is surely better. The dotted line is the plain model.",
        charts=_charts(table, charts.accuracy_by_compute),
    )
    yield Section(
        "latency",
        "Accuracy against measured time",
        "Time is a batch's; bars are 95 % intervals in both directions. Another batch size or mode is chosen above "
        "the chart. Ringed are the best estimates, whatever their intervals.",
        charts=_charts(table, charts.accuracy_by_latency),
    )
    yield Section(
        "equal",
        "At equal accuracy, compute and time",
        f"Compute saved while no more than {EQUAL_ACCURACY_LOSS:g} points are lost and the speedup there; accuracy where {EQUAL_COMPUTE_SAVING:g} % "
        f"of the MACs are saved, and where the model is {EQUAL_TIME_SPEEDUP:g} times as fast. Read off between the measured "
        "keeps; ≥ is as far as was measured.",
        grid=grid.at_equal(at_equal(table)),
    )


def _cost_sections(table: pd.DataFrame, directory: Path) -> Iterator[Section]:
    """Where compute becomes time, where it goes, and what attention leaves of the tokens."""
    yield Section(
        "crossover",
        "Where fewer MACs begin to be less time",
        "Speedup over the plain model by batch size and keep: blue is faster, orange slower. Hatched cells save MACs "
        "and are not surely faster.",
        charts=_charts(table, charts.crossover_map),
    )
    yield Section(
        "tokens",
        "Tokens after each block",
        "How many patch tokens leave each block; another keep is chosen above the chart.",
        charts=_charts(table, charts.tokens_per_block),
    )
    yield Section(
        "macs",
        "Where the MACs are",
        "Multiply-accumulates an image, those of the backbone and those that the method itself spends on choosing, "
        "matching and merging. The dotted line is the plain model.",
        charts=_charts(table, charts.macs_split),
    )
    redundancy = (spectrum_chart(directory), reconstruction_chart(directory))
    yield Section(
        "redundancy",
        "How redundant the tokens are",
        "What attention takes out of the tokens by spatial frequency, and how well those that remain stand for all.",
        charts=tuple(_chart("", figure) for figure in redundancy if figure is not None),
    )
    claims = beside(table)
    columns = [name for name in CLAIM_HEADINGS if name != "model" or table["model"].nunique() > 1]
    yield Section(
        "claims",
        "Beside published numbers",
        "Published accuracies are of ImageNet's 50,000 validation images; a difference is given only where the same "
        "images were measured.",
        charts=_charts(table, charts.claims_beside),
        grid=grid.plain(claims[columns].rename(columns=CLAIM_HEADINGS)),
        told=tuple(dict.fromkeys(_claim_source(claim) for claim in claims.to_dict("records"))),
    )


def _claim_source(claim: Mapping[Hashable, Any]) -> LabelledText:
    """Where a number was published, what else differs, and why nothing is subtracted."""
    obstacle = f"no difference: {claim['not_comparable']}" if claim["not_comparable"] else ""
    address = cell_text(claim["source"]).partition(";via=")[0]
    return LabelledText(
        cell_text(claim["paper"]), "; ".join(filter(None, (address, cell_text(claim["note"]), obstacle)))
    )


def _row_sections(table: pd.DataFrame, directory: Path) -> Iterator[Section]:
    """Pictures, the table itself, and what has no numbers."""
    yield Section("pictures", "Pictures", pictures=tuple(_pictures(directory)))
    yield Section(
        "rows",
        "All rows",
        "Click a head to sort, with the shift key by several; type to filter, also by columns that are not shown.",
        grid=grid.comparison(table),
        told=(
            LabelledText(
                "the same in all rows", "; ".join(f"{name} {text}" for name, text in grid.alike(table).items())
            ),
        ),
    )
    names = _row_names(table)
    failed = table[table["status"].eq("failed")]
    yield Section("failed", "Failed", told=_reasons(failed, "reason", names))
    # A method is skipped at every keep and seed alike.
    skipped = table[table["status"].eq("skipped")].assign(seed=None)
    yield Section("skipped", "Skipped", told=_reasons(skipped, "reason", _method_names(table)))
    waiting = table[table["status"].eq(NOT_MEASURED)]
    yield Section("waiting", "Still to be measured", told=_reasons(waiting, "reason", names))
    remarks = table[table["remarks"].ne("")]
    told = _reasons(remarks, "remarks", names)
    yield Section("remarks", "Remarks on the measurements", told=told, folded=f"{len(remarks)} rows have remarks")


def _origin_sections(environment: Mapping[str, Any], rerun: RerunCommands) -> Iterator[Section]:
    """What it was measured on, and how it is measured again."""
    told = tuple(
        LabelledText(cell_text(key), _value_text(value)) for key, value in environment.items() if key != "schema"
    )
    yield Section("environment", "Measured on", told=told)
    methods = ", ".join(cell_text(name) for name in rerun.strangers)
    commands = [
        LabelledText(f"save as {SUITE_FILE}", rerun.suite),
        LabelledText(f"with --plugins and the files that define {methods}" if methods else "measure", rerun.command),
        LabelledText("write this page", rerun.report),
    ]
    yield Section(
        "repeat",
        "Commands to repeat",
        f"With tokbench {version('tokbench')}, in a folder without a tokbench.toml of its own. Paths are as they were "
        "given. Into the same directory the command does what is missing, into another one everything.",
        commands=tuple(command for command in commands if command.text),
    )


def _charts(table: pd.DataFrame, draw: Callable[[pd.DataFrame], go.Figure | None]) -> tuple[Chart, ...]:
    """One figure a model; the model is named where there are several."""
    models = table.groupby("model", sort=False)
    drawn = ((cell_text(model) if len(models) > 1 else "", draw(rows)) for model, rows in models)
    return tuple(_chart(name, figure) for name, figure in drawn if figure is not None)


def _chart(name: str, figure: go.Figure) -> Chart:
    return Chart(name, for_script(figure.to_json()), int(figure.layout.height or DEFAULT_HEIGHT))


def _pictures(directory: Path) -> Iterator[Picture]:
    """What `tokbench show` and `tokbench plot` left in the directory."""
    for path in sorted(directory.glob("*.png")):
        if path.is_file() and not path.name.startswith("."):
            yield Picture(cell_text(path.name), f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}")


def _reasons(rows: pd.DataFrame, column: str, names: Mapping[Hashable, str]) -> tuple[LabelledText, ...]:
    """What is said of rows; those of which the same is said stand together, and so do a setting's seeds."""
    told: dict[str, dict[str, list[str]]] = {}
    for index, row in rows.iterrows():
        seeds = told.setdefault(cell_text(row[column]), {}).setdefault(names[index], [])
        seeds += filter(None, [cell_text(row["seed"])])
    return tuple(
        LabelledText(
            ", ".join(f"{name} (seed {', '.join(seeds)})" if seeds else name for name, seeds in same.items()), text
        )
        for text, same in told.items()
    )


def _row_names(table: pd.DataFrame) -> dict[Hashable, str]:
    """What rows are called but for their seed, by the table's index."""
    told = [name for name in SETTING_PREFIXES if table[name].nunique() > 1]
    several = table["model"].nunique() > 1
    names = {}
    for model, rows in table.groupby("model", sort=False):
        for (index, row), curve in zip(rows.iterrows(), series(rows), strict=True):
            keep = "" if row["method"] == PLAIN else cell_text(row["keep"])
            settings = [
                f"keep {keep}" if keep else "",
                *(f"{SETTING_PREFIXES[name]}{cell_text(row[name])}" for name in told),
            ]
            names[index] = " ".join(filter(None, (curve, *settings, f"in {cell_text(model)}" if several else "")))
    return names


def _method_names(table: pd.DataFrame) -> dict[Hashable, str]:
    """What the rows' methods are called, by the table's index."""
    models = [rows for _, rows in table.groupby("model", sort=False)]
    return {index: name for rows in models for index, name in zip(rows.index, labels(rows), strict=True)}


def _value_text(value: Any) -> str:
    """A value of the environment in one line."""
    if isinstance(value, dict):
        return ", ".join(f"{cell_text(key)} {_value_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_value_text, value))
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return cell_text(value)
