"""The sections of the page in reading order: texts, charts and tables of a comparison."""

from __future__ import annotations

import base64
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from markupsafe import Markup

from tokbench.families import family_of
from tokbench.published.claims import beside
from tokbench.report.charts.accuracy import accuracy_by_compute, accuracy_by_latency
from tokbench.report.charts.cost import crossover_map, macs_split, tokens_per_block
from tokbench.report.charts.published import published_and_measured
from tokbench.report.charts.redundancy import reconstruction_chart, spectrum_chart
from tokbench.report.charts.training import training_chart
from tokbench.report.envelope import EXPLANATION, envelope_headlines
from tokbench.report.html.grid import at_equal_grid, comparison_grid, constant_columns, simple_grid
from tokbench.report.html.headlines import (
    EQUAL_ACCURACY_LOSS,
    EQUAL_COMPUTE_SAVING,
    EQUAL_TIME_SPEEDUP,
    at_equal,
    headlines,
)
from tokbench.report.html.pixels import pixel_sentence
from tokbench.report.html.rerun import SUITE_FILE, RerunCommands
from tokbench.report.html.row_names import group_by_text, method_names, row_names
from tokbench.report.html.section import Chart, LabelledText, Picture, Section
from tokbench.report.html.versus import VERSUS_LEAD, versus_grids
from tokbench.report.labels import cell_text
from tokbench.report.marks import ON_FRONT
from tokbench.results import Results
from tokbench.results.table import NOT_MEASURED
from tokbench.results.training import TrainedCell, training_logs

CLAIM_HEADINGS = {
    **{"model": "model", "method": "method", "regime": "regime", "schedule": "schedule", "keep": "keep"},
    **{"gmacs": "GMACs", "claimed_gmacs": "published GMACs", "top1": "top-1 %", "claimed_top1": "published top-1 %"},
    **{"difference": "difference", "paper": "published in", "read_from": "read from"},
}
ALL_ROWS = "rows"
DEFAULT_HEIGHT = 450  # plotly's


def sections(results: Results, rerun: RerunCommands, versus: Sequence[str] = ()) -> list[Section]:
    """All sections that are not empty.

    Args:
        results: The results directory.
        rerun: The commands that repeat it.
        versus: Methods that all others are compared with.
    """
    table = results.table
    waiting = table["status"].eq("failed") & table["reason"].eq(NOT_MEASURED)
    # Unfinished rows count as ok where their numbers are shown, as the numbers that they have are valid.
    measured = table.assign(status=table["status"].mask(waiting, "ok"))
    with_states = table.assign(status=table["status"].mask(waiting, NOT_MEASURED))
    parts = [
        *_accuracy_sections(measured, results),
        *_versus_sections(results, versus),
        *_cost_sections(measured, results),
        _training_section(results.directory),
        *_row_sections(with_states, results.directory),
        *_origin_sections(results.environment, rerun),
    ]
    return [section for section in parts if not section.empty]


def for_script(text: str) -> Markup:
    """JSON that is safe inside a script element. In JSON, `<` only occurs in strings, where it can be escaped."""
    return Markup(text.replace("<", "\\u003c"))


def environment_facts(environment: Mapping[str, Any]) -> tuple[LabelledText, ...]:
    """What a comparison was measured on and with, each setting on one line."""
    return tuple(
        LabelledText(cell_text(key), _value_text(value)) for key, value in environment.items() if key != "schema"
    )


def _accuracy_sections(table: pd.DataFrame, results: Results) -> Iterator[Section]:
    """The accuracy of each method against compute and time."""
    one_model = table["model"].nunique() == 1
    sentences = (
        LabelledText(
            cell_text(line.method if one_model else f"{line.method} in {line.model}"),
            "; ".join(filter(None, (line.text, pixel_sentence(table, line)))),
        )
        for line in headlines(table)
    )
    yield Section(
        "headlines",
        "Summary",
        f"How much each method saves before it loses more than {EQUAL_ACCURACY_LOSS:g} points of top-1, interpolated "
        "between the measured keeps. Without accuracies: what its lowest keep saves. Where the plain "
        "model was also measured with fewer pixels: how far the method is above a mixture of resolutions of the same "
        f"cost, at the keep nearest to {EQUAL_COMPUTE_SAVING:g} % fewer MACs. [ ] are 95 % intervals.",
        items=tuple(sentences),
    )
    yield Section(
        "envelope",
        "Compute saved across models",
        EXPLANATION,
        items=tuple(LabelledText(cell_text(line.method), line.text) for line in envelope_headlines(results)),
    )
    yield Section(
        "compute",
        "Accuracy against compute",
        "Each point is a keep or a budget, each line a method. Bars are 95 % intervals of top-1. Rings mark each "
        f"model's Pareto front: {ON_FRONT['gmacs']}. The dotted line is the plain model. Models of one family share a "
        "chart: the larger the model, the larger its symbols.",
        charts=_family_charts(table, accuracy_by_compute),
    )
    yield Section(
        "latency",
        "Accuracy against measured time",
        "Latency of a batch; bars are 95 % intervals in both directions. Choose another batch size or mode above the "
        f"chart. Rings mark each model's Pareto front: {ON_FRONT['latency_ms']}.",
        charts=_family_charts(table, accuracy_by_latency),
    )
    yield Section(
        "equal",
        "At equal accuracy, compute and time",
        f"Compute saved while at most {EQUAL_ACCURACY_LOSS:g} points are lost, and the speedup there; accuracy where "
        f"{EQUAL_COMPUTE_SAVING:g} % of the MACs are saved, and where the model is {EQUAL_TIME_SPEEDUP:g} times as "
        "fast. Interpolated between the measured keeps; ≥ marks the end of the measured range.",
        grid=at_equal_grid(at_equal(table)),
    )


def _versus_sections(results: Results, methods: Sequence[str]) -> Iterator[Section]:
    """Each of these methods against all others."""
    blocks = list(versus_grids(results.versus(*methods)))
    several = len({block.model for block, _ in blocks}) > 1
    for index, (block, grid) in enumerate(blocks, start=1):
        yield Section(
            f"versus-{index}",
            f"Against {block.versus}{f' in {block.model}' if several else ''}",
            f"{VERSUS_LEAD}{f' ({block.shared})' if block.shared else ''}.",
            grid=grid,
            items=tuple(LabelledText(label, text) for label, text in block.notes),
        )


def _cost_sections(table: pd.DataFrame, results: Results) -> Iterator[Section]:
    """Speedup, tokens, MACs, redundancy and published numbers."""
    yield Section(
        "crossover",
        "Where fewer MACs save time",
        "Speedup over the plain model by batch size and keep: blue is faster, orange is slower. Hatched cells save "
        "MACs, but are not surely faster. In the table of all rows, ideal is the speedup if time were proportional to "
        "MACs, and choosing the part of the time that the method itself takes.",
        charts=_charts(table, crossover_map),
    )
    yield Section(
        "tokens",
        "Tokens after each block",
        "The number of patch tokens after each block. Choose another keep above the chart.",
        charts=_charts(table, tokens_per_block),
    )
    yield Section(
        "macs",
        "MACs by component",
        "Multiply-accumulates per image: those of the backbone, and those of the method itself for choosing, matching "
        "and merging tokens. The dotted line is the plain model.",
        charts=_charts(table, macs_split),
    )
    redundancy = (spectrum_chart(results.spectra), reconstruction_chart(results.reconstruction, results.table))
    yield Section(
        "redundancy",
        "Redundancy of the tokens",
        "What attention removes from the tokens at each spatial frequency, and how well the remaining tokens represent "
        "all of them.",
        charts=tuple(_chart("", figure) for figure in redundancy if figure is not None),
    )
    claims = beside(table, results.plan)
    columns = [name for name in CLAIM_HEADINGS if name != "model" or table["model"].nunique() > 1]
    yield Section(
        "claims",
        "Published numbers",
        "Published accuracies are on ImageNet's 50,000 validation images; a difference is only shown if the same "
        "images were measured.",
        charts=_charts(table, partial(published_and_measured, claims=claims)),
        grid=simple_grid(claims[columns].rename(columns=CLAIM_HEADINGS)),
        items=tuple(dict.fromkeys(_claim_source(claim) for claim in claims.to_dict("records"))),
    )


def _training_section(directory: Path) -> Section:
    """The course of the training of each model, where the directory has checkpoints of `tokbench finetune`."""
    models: dict[str, list[tuple[TrainedCell, pd.DataFrame]]] = {}
    for cell, log in training_logs(directory):
        models.setdefault(cell.model, []).append((cell, log))
    charts = ((cell_text(model) if len(models) > 1 else "", training_chart(own)) for model, own in models.items())
    return Section(
        "training",
        "Training",
        "The loss, averaged over neighbouring steps, and below it the top-1 on the validation images after each epoch. "
        "Choose another keep above the chart. Losses of methods that add terms of their own are not comparable.",
        charts=tuple(_chart(name, figure) for name, figure in charts if figure is not None),
    )


def _claim_source(claim: Mapping[Hashable, Any]) -> LabelledText:
    """The source of a published number, what differs from the measured setting, and why there is no difference."""
    reason = f"no difference: {claim['not_comparable']}" if claim["not_comparable"] else ""
    address = cell_text(claim["source"]).partition(";via=")[0]
    return LabelledText(cell_text(claim["paper"]), "; ".join(filter(None, (address, cell_text(claim["note"]), reason))))


def _row_sections(table: pd.DataFrame, directory: Path) -> Iterator[Section]:
    """Pictures, the table itself, and the rows without numbers."""
    yield Section("pictures", "Pictures", pictures=tuple(_pictures(directory)))
    constant = "; ".join(f"{name} {text}" for name, text in constant_columns(table).items())
    yield Section(
        ALL_ROWS,
        "All rows",
        "Click a heading to sort, hold shift to sort by several. Type to filter, also by hidden columns. "
        f"★ marks the Pareto front: {ON_FRONT['gmacs']}. Plain latency is the plain model's in the rounds of the row: "
        "compare latency with it, not with another row's. The noise floor is the percentage by which the plain model "
        "surely differed from itself; the precision reached is half the width of the speedup's interval, in percent.",
        grid=comparison_grid(table),
        items=(LabelledText("the same in all rows", constant),),
    )
    names = row_names(table)
    failed = table[table["status"].eq("failed")]
    yield Section("failed", "Failed", items=group_by_text(failed, "reason", names))
    # A skipped method is skipped at every keep and seed; of a row that is ok, a single measurement may be.
    left_out = table["status"].eq("skipped") | (table["status"].eq("ok") & table["reason"].ne(""))
    skipped = table[left_out].assign(seed=None)
    yield Section("skipped", "Skipped", items=group_by_text(skipped, "reason", method_names(table)))
    waiting = table[table["status"].eq(NOT_MEASURED)]
    yield Section("waiting", "Not measured yet", items=group_by_text(waiting, "reason", names))
    remarks = table[table["remarks"].ne("")]
    items = group_by_text(remarks, "remarks", names)
    yield Section("remarks", "Remarks on the measurements", items=items, summary=f"{len(remarks)} rows have remarks")


def _origin_sections(environment: Mapping[str, Any], rerun: RerunCommands) -> Iterator[Section]:
    """The machine and versions, and the commands to repeat the comparison."""
    yield Section("environment", "Environment", items=environment_facts(environment))
    methods = ", ".join(cell_text(name) for name in rerun.own_methods)
    commands = [
        LabelledText(f"save as {SUITE_FILE}", rerun.suite),
        LabelledText(
            f"measure, with --plugins and the files that define {methods}" if methods else "measure", rerun.compare
        ),
        LabelledText("write this page", rerun.report),
    ]
    yield Section(
        "repeat",
        "Commands to repeat this",
        f"With tokbench {version('tokbench')}, in a folder without its own tokbench.toml. Paths are as given for this "
        "run. With the same directory, only what is missing is measured; with another one, everything.",
        commands=tuple(command for command in commands if command.text),
    )


def _charts(table: pd.DataFrame, draw: Callable[[pd.DataFrame], go.Figure | None]) -> tuple[Chart, ...]:
    """One figure for each model, with the model's name if there are several."""
    models = table.groupby("model", sort=False)
    figures = ((cell_text(model) if len(models) > 1 else "", draw(rows)) for model, rows in models)
    return tuple(_chart(name, figure) for name, figure in figures if figure is not None)


def _family_charts(table: pd.DataFrame, draw: Callable[[pd.DataFrame], go.Figure | None]) -> tuple[Chart, ...]:
    """One figure for each family of models, with the models' names if there are several families."""
    families = [rows for _, rows in table.groupby(table["model"].map(family_of), sort=False)]
    names = (", ".join(map(cell_text, rows["model"].unique())) if len(families) > 1 else "" for rows in families)
    figures = zip(names, map(draw, families), strict=True)
    return tuple(_chart(name, figure) for name, figure in figures if figure is not None)


def _chart(name: str, figure: go.Figure) -> Chart:
    return Chart(name, for_script(figure.to_json()), int(figure.layout.height or DEFAULT_HEIGHT))


def _pictures(directory: Path) -> Iterator[Picture]:
    """The PNG files in the directory, written by `tokbench show` or `tokbench plot`."""
    for path in sorted(directory.glob("*.png")):
        if path.is_file() and not path.name.startswith("."):
            data = base64.b64encode(path.read_bytes()).decode()
            yield Picture(cell_text(path.name), f"data:image/png;base64,{data}")


def _value_text(value: Any) -> str:
    """A value of the environment on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{cell_text(key)} {_value_text(item)}" for key, item in value.items())
    if isinstance(value, list):
        return ", ".join(map(_value_text, value))
    if value is None or isinstance(value, bool):
        return {None: "none", True: "yes", False: "no"}[value]
    return cell_text(value)
