"""What of a comparison a paper shows: the rows with a result that were asked for, and a figure's points."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from tokbench.errors import UserError, did_you_mean
from tokbench.report.charts.points import BATCH_AND_MODE, SERIES_AND_KEEP, chart_points, prepare_rows
from tokbench.report.labels import cell_text, labels

NEEDED = {"gmacs": "macs", "latency_ms": "latency", "top1": "accuracy"}  # what `compare --only` calls it


def select_rows(
    table: pd.DataFrame,
    methods: Sequence[str] | None = None,
    batch_size: int | None = None,
    mode: str | None = None,
) -> pd.DataFrame:
    """The rows that have a result and are asked for; the plain model's always are.

    Args:
        table: The rows of a comparison.
        methods: Methods, or lines as the figure's legend names them; None takes all.
        batch_size: Of the timed batches; None takes all.
        mode: How the timed models ran; None takes all.

    Returns:
        The rows with what `chart_points.prepare_rows` adds, and `label`, a method's name in a table.

    Raises:
        UserError: Nothing has a result, or something that was asked for has none.
    """
    blocks = [prepare_rows(block).assign(label=labels(block)) for _, block in table.groupby("model", sort=False)]
    rows = pd.concat(blocks)
    done = rows["status"] == "ok"
    if not done.any():
        reasons = ", ".join(dict.fromkeys(filter(None, map(cell_text, rows["reason"]))))
        raise UserError(f"no row has a result ({reasons}): run the same tokbench compare, which goes on from there")
    wanted = done & (_select_methods(rows, methods, done) | rows["plain"] if methods else True)
    for column, option, value in (("batch_size", "--batch-size", batch_size), ("mode", "--mode", mode)):
        if value is None:
            continue
        choices = sorted(rows.loc[done, column].unique())
        if value not in choices:
            raise UserError(f"{option} {value} was not measured: choose one of {', '.join(map(str, choices))}")
        wanted &= rows[column] == value
    return rows[wanted]


def figure_points(rows: pd.DataFrame, x: str) -> pd.DataFrame:
    """What is drawn: a point for all seeds of a setting.

    Args:
        rows: What `select_rows` gives.
        x: `gmacs` or `latency_ms`. Latencies are of one batch size and mode a model: the largest, and the one that
            comes first.

    Returns:
        Lines of `chart_points.chart_points` with their `model` and `front`, to be ringed: where compute stands across the
        table's Pareto front, else what no other point of its model beats in both estimates, as on the page.

    Raises:
        UserError: No row has both numbers.
    """
    timed = BATCH_AND_MODE if x == "latency_ms" else []
    blocks = rows.groupby("model", sort=False)
    folded = pd.concat([chart_points(block, [*SERIES_AND_KEEP, *timed]).assign(model=model) for model, block in blocks])
    drawn = folded.dropna(subset=[x, "top1"])
    if drawn.empty:
        absent = [NEEDED[name] for name in (x, "top1") if folded[name].isna().all()]
        only = ",".join(dict.fromkeys(("macs", NEEDED[x], "accuracy")))
        what = " and no ".join(absent) or "row with both of them"
        raise UserError(f"no {what} was measured: run the same tokbench compare with --only {only}")
    if not timed:
        return drawn.assign(front=drawn["pareto"]).reset_index(drop=True)
    drawn = drawn[drawn["batch_size"] == drawn.groupby("model")["batch_size"].transform("max")]
    drawn = drawn[drawn["mode"] == drawn.groupby("model")["mode"].transform("first")].reset_index(drop=True)
    quickest = drawn.sort_values([x, "top1"], ascending=[True, False])
    before = quickest.groupby("model")["top1"].transform(lambda top1: top1.cummax().shift(fill_value=-math.inf))
    return drawn.assign(front=quickest["top1"] > before)


def _select_methods(rows: pd.DataFrame, methods: Sequence[str], done: pd.Series) -> pd.Series:
    """Which rows go by these names."""
    named = pd.Series(False, index=rows.index)
    for name in methods:
        own = (rows["method"] == name) | (rows["series"] == name) | (rows["label"] == name)
        if not own.any():
            known = list(dict.fromkeys([*rows["method"], *rows["series"]]))
            raise UserError(f"no method '{name}' in these results: {did_you_mean(name, known)}")
        if not (own & done).any():
            row = rows[own].iloc[0]
            raise UserError(f"'{name}' has no result ({row['status']}: {cell_text(row['reason'])}): leave it out")
        named |= own
    return named
