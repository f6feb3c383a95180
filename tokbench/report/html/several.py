"""The sections of a page of several runs that are about all of them, and the facts about each."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from tokbench.report.html.grid import Grid, GridCell, GridColumn, comparison_grid, simple_grid
from tokbench.report.html.section import LabelledText, Section
from tokbench.report.labels import cell_text
from tokbench.report.marks import ON_FRONT
from tokbench.results import Combined, Results
from tokbench.results.difference import difference_note
from tokbench.results.several import RUN, without_times
from tokbench.results.table import NOT_MEASURED

FACTS = {"model": "models", "dtype": "precision", "batch_size": "batch", "mode": "mode"}

VALUES = {"other_run": "other run", "value": "in run", "other_value": "in other run"}
IDENTIFYING = ("method", "params", "keep", "seed", "schedule", "regime", "model")


def common_sections(combined: Combined) -> list[Section]:
    """The runs, where they disagree, where they differ, and the rows of all of them side by side."""
    parts = [
        Section(
            "runs",
            "Runs",
            "Times are only compared through speedups: each is against the plain model on the same machine, in the same "
            "session. The times themselves are in the part about each run.",
            grid=_runs_grid(combined),
        ),
        Section(
            "disagreements",
            "Disagreements",
            "These values were measured under the same conditions (weights, data, versions, method and code) and must "
            "be equal. The run is the one that differs from what most runs have.",
            grid=_differences_grid(combined.disagreements),
        ),
        Section(
            "differences",
            "Differences under other conditions",
            "The same rows, measured under other conditions: the values may differ. Answers are compared in pairs on "
            "the images of both; [ ] is the 95 % interval.",
            grid=_differences_grid(combined.differences),
        ),
        Section(
            "all-rows",
            "All rows of all runs",
            "Click a heading to sort, type to filter, also by run or device. "
            f"★ marks the Pareto front of a run: {ON_FRONT['gmacs']}.",
            grid=_all_rows(combined),
        ),
    ]
    return [part for part in parts if not part.empty]


def run_facts(results: Results) -> Iterator[LabelledText]:
    """The main facts about a run."""
    table, plan, environment = results.table, results.plan, results.environment
    yield LabelledText("measured", cell_text(environment.get("measured")).partition("T")[0] or "unknown")
    yield LabelledText("device", f"{cell_text(environment.get('device_name')) or 'unknown'} ({cell_text(plan.device)})")
    for name, title in FACTS.items():
        yield LabelledText(title, ", ".join(dict.fromkeys(map(cell_text, table[name]))))
    images = plan.images
    yield LabelledText("images", f"{cell_text(images.name)}, {images.count:,}" if images else "none")
    states = table["status"].where(table["reason"].ne(NOT_MEASURED), NOT_MEASURED).value_counts(sort=False)
    counts = ", ".join(f"{count} {'measured' if state == 'ok' else state}" for state, count in states.items())
    yield LabelledText("rows", f"{len(table)}: {counts}")


def _runs_grid(combined: Combined) -> Grid:
    """A line for each run, with its facts."""
    facts = [{fact.label: fact.text for fact in run_facts(results)} for results in combined.runs.values()]
    lines = [
        {RUN: cell_text(name), **fact, "torch": cell_text(results.environment.get("versions", {}).get("torch"))}
        for (name, results), fact in zip(combined.runs.items(), facts, strict=True)
    ]
    columns = tuple(GridColumn(name, name) for name in lines[0])
    return Grid(columns, tuple(tuple(GridCell(text) for text in line.values()) for line in lines))


def _differences_grid(frame: pd.DataFrame) -> Grid:
    """A line for each difference: its row as far as rows differ, both values, and the difference in words."""
    names = [name for name in IDENTIFYING if name in ("method", "keep") or frame[name].nunique(dropna=False) > 1]
    shown = frame[[RUN, "other_run", *names, "column", "value", "other_value"]].rename(columns=VALUES)
    return simple_grid(shown.assign(difference=[difference_note(line) for line in frame.to_dict("records")]))


def _all_rows(combined: Combined) -> Grid:
    """All rows, sorted so that the same row of several runs is side by side."""
    table = without_times(combined.table)
    places = table.groupby([name for name in ("model", "method", "params", "regime", "schedule", "keep")], sort=False)
    return comparison_grid(table.loc[places.ngroup().sort_values(kind="stable").index].reset_index(drop=True))
