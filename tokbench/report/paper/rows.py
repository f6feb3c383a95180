"""Select what a paper shows of a comparison: rows for its table, and points for its figure."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from tokbench.errors import UserError, did_you_mean
from tokbench.names import PLAIN
from tokbench.report.charts.points import BATCH_AND_MODE, SERIES_AND_KEEP, chart_points, prepare_rows
from tokbench.report.labels import FEWER_PIXELS, cell_text, labels, without_fraction
from tokbench.report.marks import FRONT
from tokbench.results.several import RUN
from tokbench.rows import with_fewer_pixels

# As in `compare --only`.
KIND_OF_COLUMN = {"gmacs": "macs", "latency_ms": "latency", "speedup": "latency", "top1": "accuracy"}


def select_rows(
    table: pd.DataFrame,
    methods: Sequence[str] | None = None,
    batch_size: int | None = None,
    mode: str | None = None,
    schedule: str | None = None,
) -> pd.DataFrame:
    """The rows that have a result and were asked for; those of the plain model are always included.

    Args:
        table: The rows of a comparison, or of several runs, where a series is named after its run too.
        methods: Methods, or series as the figure's legend names them; None selects all.
        batch_size: Of the timed batches; None selects all.
        mode: How the timed models ran; None selects all.
        schedule: As in the table, or without its fraction (`budget`); None selects all.

    Returns:
        The rows as `prepare_rows` gives them, with `label`, a method's name in a table.

    Raises:
        UserError: No row has a result, or something that was asked for has none.
    """
    blocks = [
        prepare_rows(block).assign(label=labels(block)) for _, block in table.groupby(_run_and_model(table), sort=False)
    ]
    rows = pd.concat(blocks)
    fewer = with_fewer_pixels(table)  # one curve over all sizes
    rows["series"] = rows["series"].mask(fewer, FEWER_PIXELS)
    rows["keep_label"] = rows["keep_label"].mask(fewer, rows["params"])
    if RUN in rows:
        rows["series"] = rows["series"] + " · " + rows[RUN].astype(object)
    done = rows["status"] == "ok"
    if not done.any():
        reasons = ", ".join(dict.fromkeys(filter(None, map(cell_text, rows["reason"]))))
        raise UserError(f"no row has a result ({reasons}): run the same tokbench compare command to resume")
    wanted = done & (_select_methods(rows, methods, done) | rows["plain"] if methods else True)
    for column, option, value in (("batch_size", "--batch-size", batch_size), ("mode", "--mode", mode)):
        if value is None:
            continue
        choices = sorted(rows.loc[done, column].unique())
        if value not in choices:
            raise UserError(f"{option} {value} was not measured: choose one of {', '.join(map(str, choices))}")
        wanted &= rows[column] == value
    if schedule is not None:
        wanted &= _select_schedule(rows, schedule, done) | rows["method"].eq(PLAIN)
    return rows[wanted]


def figure_points(rows: pd.DataFrame, x: str) -> pd.DataFrame:
    """The points of a figure, averaged over seeds.

    Args:
        rows: What `select_rows` gives.
        x: `gmacs`, `latency_ms` or `speedup`. Times are those of one batch size and mode for each model and run: the
            largest batch size, and the first mode.

    Returns:
        Points as `chart_points` gives them, with their `model` and `front`, whether they get a ring: those on the
        Pareto front against `x`.

    Raises:
        UserError: No row has both numbers.
    """
    timed = BATCH_AND_MODE if x != "gmacs" else []
    among = _run_and_model(rows)
    averaged = pd.concat(
        [
            chart_points(block, [*SERIES_AND_KEEP, *timed]).assign(**block.iloc[0][among])
            for _, block in rows.groupby(among, sort=False)
        ]
    )
    points = averaged.dropna(subset=[x, "top1"])
    if points.empty:
        absent = [KIND_OF_COLUMN[name] for name in (x, "top1") if averaged[name].isna().all()]
        only = ",".join(dict.fromkeys(("macs", KIND_OF_COLUMN[x], "accuracy")))
        missing = " and no ".join(absent) or "row with both of them"
        raise UserError(f"no {missing} was measured: run the same tokbench compare command with --only {only}")
    if timed:
        points = points[points["batch_size"] == points.groupby(among)["batch_size"].transform("max")]
        points = points[points["mode"] == points.groupby(among)["mode"].transform("first")]
    return points.assign(front=points[FRONT[x]]).reset_index(drop=True)


def _run_and_model(table: pd.DataFrame) -> list[str]:
    """The columns whose rows belong together: of several runs, those of each run."""
    return [name for name in ("model", RUN) if name in table]


def _select_schedule(rows: pd.DataFrame, schedule: str, done: pd.Series) -> pd.Series:
    """Which rows have this schedule, or are points of the curve of this name."""
    curves = rows["schedule"].map(lambda text: without_fraction(cell_text(text)))
    selected = (rows["schedule"] == schedule) | (curves == schedule)
    if not (selected & done).any():
        known = [name for name in dict.fromkeys(curves[done]) if name]
        raise UserError(f"--schedule {schedule} was not measured: choose one of {', '.join(known)}")
    return selected


def _select_methods(rows: pd.DataFrame, methods: Sequence[str], done: pd.Series) -> pd.Series:
    """Which rows have one of these names as method, series or label."""
    selected = pd.Series(False, index=rows.index)
    for name in methods:
        own = (rows["method"] == name) | (rows["series"] == name) | (rows["label"] == name)
        if not own.any():
            known = list(dict.fromkeys([*rows["method"], *rows["series"]]))
            raise UserError(f"no method '{name}' in these results: {did_you_mean(name, known)}")
        if not (own & done).any():
            row = rows[own].iloc[0]
            raise UserError(f"'{name}' has no result ({row['status']}: {cell_text(row['reason'])}): leave it out")
        selected |= own
    return selected
