"""The course of training: the loss and the top-1 on the validation images of each cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tokbench.names import PLAIN
from tokbench.report.charts.style import (
    PLAIN_LABEL,
    PLAIN_STYLE,
    Style,
    View,
    hover_settings,
    json_numbers,
    label,
    make_figure,
    series_styles,
)
from tokbench.report.labels import cell_text, labels
from tokbench.results.training import TrainedCell

HEIGHT = 640
MAX_POINTS = 200  # of a line; each is the mean of as many steps as that takes


def training_chart(cells: Sequence[tuple[TrainedCell, pd.DataFrame]]) -> go.Figure | None:
    """The loss over the steps, above top-1 after each epoch, a line for each method and seed, a view for each keep.

    Args:
        cells: Of one model, each with its log.
    """
    if not cells:
        return None
    table = pd.DataFrame([asdict(cell) for cell, _ in cells])
    names = _names(table)
    plain = table["method"].eq(PLAIN)
    looks = series_styles(dict.fromkeys(name for name, is_plain in zip(names, plain, strict=True) if not is_plain))
    looks |= {name: PLAIN_STYLE for name, is_plain in zip(names, plain, strict=True) if is_plain}
    keeps = dict.fromkeys(cell_text(keep) for keep in table.loc[~plain, "keep"].sort_values(ascending=False))
    views = []
    for keep in keeps or {"": None}:
        shown = {
            name: log
            for name, (cell, log) in zip(names, cells, strict=True)
            if cell.method == PLAIN or cell_text(cell.keep) == keep
        }
        views.append(View(f"keep {keep}" if keep else "all", [*_lines(shown, looks)]))
    return make_figure(
        views,
        HEIGHT,
        xaxis={"anchor": "y2", "title": {"text": "step"}, "rangemode": "tozero"},
        yaxis={"title": {"text": "loss"}, "domain": [0.52, 1]},
        yaxis2={"title": {"text": "top-1 (%)"}, "domain": [0, 0.46]},
    )


def _names(table: pd.DataFrame) -> list[str]:
    """A name for each cell, without the keep."""
    several_seeds = table["seed"].nunique() > 1
    several_schedules = table.loc[table["method"].ne(PLAIN), "schedule"].nunique() > 1
    names = []
    for name, row in zip(labels(table), table.to_dict("records"), strict=True):
        method = PLAIN_LABEL if row["method"] == PLAIN else name
        schedule = row["schedule"] if several_schedules else ""
        seed = f"seed {row['seed']}" if several_seeds else ""
        names.append(" ".join(filter(None, (method, schedule, seed))))
    return names


def _lines(logs: Mapping[str, pd.DataFrame], looks: Mapping[str, Style]) -> list[Any]:
    """Two traces for each name, empty where a view has no such cell: all views have as many."""
    empty = pd.DataFrame({"step": [], "loss": [], "top1": []})
    traces = []
    for name, look in looks.items():
        log = logs.get(name, empty)
        every = max(1, -(-len(log) // MAX_POINTS))
        means = log[["step", "loss"]].groupby(np.arange(len(log)) // every).mean()
        validated = log.dropna(subset=["top1"]) if "top1" in log else empty
        lines = ((means, "loss", "y", "lines"), (validated, "top1", "y2", "lines+markers"))
        for points, column, axis, mode in lines:
            numbers = zip(points["step"], points[column], strict=True)
            hover = [f"<b>{label(name)}</b><br>step {step:.0f}: {value:.4g}" for step, value in numbers]
            traces.append(
                go.Scatter(
                    x=json_numbers(points["step"]),
                    y=json_numbers(points[column]),
                    **{"name": label(name), "mode": mode, "yaxis": axis, "legendgroup": name},
                    showlegend=axis == "y",
                    **hover_settings(hover, look),
                    line=look.line_and_marker()["line"],
                    marker={**look.line_and_marker()["marker"], "size": 6},
                )
            )
    return traces
