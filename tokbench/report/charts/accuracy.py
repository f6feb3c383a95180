"""Charts of accuracy against compute and against time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tokbench.report.charts.points import (
    BATCH_AND_MODE,
    SERIES_AND_KEEP,
    chart_points,
    hover_text,
    prepare_rows,
    series_names,
    timing_label,
    with_hover_text,
)
from tokbench.report.charts.style import (
    GREY,
    HEIGHT,
    PLAIN_LABEL,
    PLAIN_STYLE,
    Style,
    View,
    hover_settings,
    json_numbers,
    label,
    make_figure,
    reference_line,
    series_styles,
)
from tokbench.report.marks import FRONT


def accuracy_by_compute(rows: pd.DataFrame) -> go.Figure | None:
    """Top-1 against GMACs with intervals; a line connects the keeps of a series.

    Rings mark the rows on the Pareto front; the step line is the best top-1 of those at up to that cost.
    """
    rows = prepare_rows(rows)
    points = with_hover_text(chart_points(rows, SERIES_AND_KEEP), chart_points(rows)).dropna(subset=["gmacs", "top1"])
    if points.empty:
        return None
    front = _front(points, "gmacs")
    traces = [*front, *_series_traces(points, "gmacs", series_styles(series_names(rows)))]
    return _figure([View("", traces, {"xaxis.title.text": "compute (GMACs per image)"})], points)


def accuracy_by_latency(rows: pd.DataFrame) -> go.Figure | None:
    """Top-1 against the latency of a batch with both intervals, a view for each batch size and mode.

    Rings mark the rows on the view's Pareto front against time.
    """
    rows = prepare_rows(rows)
    timed = chart_points(rows).dropna(subset=["latency_ms", "top1"])
    if timed.empty:
        return None
    timed = timed.assign(hover=[hover_text(point, [point]) for point in timed.to_dict("records")])
    looks = series_styles(series_names(rows))
    views = []
    for _, part in timed.groupby(BATCH_AND_MODE, sort=False):
        name = timing_label(part.iloc[0].to_dict())
        layout = {"xaxis.title.text": f"latency (ms), {name}", "xaxis.autorange": True, "yaxis.autorange": True}
        traces = [*_front(part, "latency_ms"), *_series_traces(part, "latency_ms", looks)]
        views.append(View(name, traces, layout))
    return _figure(views, timed)


def _figure(views: Sequence[View], points: pd.DataFrame) -> go.Figure:
    """The figure, with a horizontal line at the plain model's accuracy."""
    shapes = [reference_line("y", top1) for top1 in points.loc[points["plain"], "top1"].unique()]
    return make_figure(views, HEIGHT, yaxis={"title": {"text": "top-1 (%)"}}, shapes=shapes)


def _front(points: pd.DataFrame, x: str) -> list[Any]:
    """Rings around the points on the front, and a step line through those higher than all of them to their left."""
    ordered = points[points[FRONT[x]]].sort_values([x, "top1"], ascending=[True, False])
    steps = ordered[ordered["top1"] > ordered["top1"].cummax().shift(fill_value=-np.inf)]
    ring = {"symbol": "circle-open", "size": 15, "color": GREY, "line": {"width": 1.5}}
    line = {"shape": "hv", "color": PLAIN_STYLE.rgba(0.6), "width": 1}
    group = {"name": "Pareto front", "legendgroup": "front", "hoverinfo": "skip"}
    return [
        go.Scatter(**_coordinates(steps, x), **group, mode="lines", line=line, showlegend=False),
        go.Scatter(**_coordinates(ordered, x), **group, mode="markers", marker=ring),
    ]


def _series_traces(points: pd.DataFrame, x: str, looks: Mapping[str, Style]) -> Iterator[Any]:
    """A line for each series in the order of its keeps, and a star for the plain model."""
    ordered = points.sort_values(["keep", "gmacs"])
    for name, look in looks.items():
        yield _series_trace(ordered[(ordered["series"] == name) & ~ordered["plain"]], x, label(name), look)
    yield _series_trace(ordered[ordered["plain"]], x, PLAIN_LABEL, PLAIN_STYLE)


def _series_trace(points: pd.DataFrame, x: str, name: str, look: Style) -> Any:
    return go.Scatter(
        **_coordinates(points, x),
        **hover_settings(points["hover"], look),
        **look.line_and_marker(),
        name=name,
        mode="lines+markers",
        error_x=_error_bars(points, x, look),
        error_y=_error_bars(points, "top1", look),
    )


def _coordinates(points: pd.DataFrame, x: str) -> dict[str, Any]:
    return {"x": json_numbers(points[x]), "y": json_numbers(points["top1"])}


def _error_bars(points: pd.DataFrame, name: str, look: Style) -> dict[str, Any]:
    above, below = points[f"{name}_hi"] - points[name], points[name] - points[f"{name}_lo"]
    sides = {"array": json_numbers(above.clip(lower=0)), "arrayminus": json_numbers(below.clip(lower=0))}
    return {"type": "data", "symmetric": False, **sides, "color": look.rgba(0.35), "thickness": 1, "width": 0}
