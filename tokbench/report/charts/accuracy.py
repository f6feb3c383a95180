"""Charts of accuracy against compute and against time, for all models of one family.

A series looks the same in all models; the larger a model, the larger its symbols.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tokbench.report.charts.points import (
    BATCH_AND_MODE,
    SERIES_AND_KEEP,
    WIDTH,
    chart_points,
    hover_text,
    prepare_rows,
    series_names,
    timing_label,
    with_hover_text,
)
from tokbench.report.charts.style import (
    FEWER_PIXELS_STYLE,
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
from tokbench.report.labels import FEWER_PIXELS
from tokbench.report.marks import FRONT
from tokbench.rows import with_fewer_pixels

SIZES = (5, 11)  # pixels: the symbols of the smallest and of the largest of several models


def accuracy_by_compute(rows: pd.DataFrame) -> go.Figure | None:
    """Top-1 against GMACs with intervals; a line connects the keeps of a series.

    Rings mark the rows on their models' Pareto fronts; the step line is the best top-1 of those at up to that cost.

    Args:
        rows: A table's rows of the models of one family.
    """
    models = _prepare_models(rows)
    points = _join(models, lambda own: with_hover_text(chart_points(own, SERIES_AND_KEEP), chart_points(own)))
    points = points.dropna(subset=["gmacs", "top1"])
    if points.empty:
        return None
    traces = [*_front(points, "gmacs"), *_series_traces(points, "gmacs", _looks(models), _sizes(points))]
    return _figure([View("", traces, {"xaxis.title.text": "compute (GMACs per image)"})], points)


def accuracy_by_latency(rows: pd.DataFrame) -> go.Figure | None:
    """Top-1 against the latency of a batch with both intervals, a view for each batch size and mode.

    Rings mark the rows on their models' Pareto fronts against time, in the view's batch size and mode.

    Args:
        rows: A table's rows of the models of one family.
    """
    models = _prepare_models(rows)
    timed = _join(models, _timed_points).dropna(subset=["latency_ms", "top1"])
    if timed.empty:
        return None
    looks, sizes = _looks(models), _sizes(timed)
    views = []
    for _, part in timed.groupby(BATCH_AND_MODE, sort=False):
        name = timing_label(part.iloc[0].to_dict())
        layout = {"xaxis.title.text": f"latency (ms), {name}", "xaxis.autorange": True, "yaxis.autorange": True}
        traces = [*_front(part, "latency_ms"), *_series_traces(part, "latency_ms", looks, sizes)]
        views.append(View(name, traces, layout))
    return _figure(views, timed)


def _prepare_models(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of each model, its baselines as one series with a point for each image size."""
    models = []
    for _, own in rows.groupby("model", sort=False):
        own = prepare_rows(own)
        fewer = with_fewer_pixels(own)
        names, points = own["series"].mask(fewer, FEWER_PIXELS), own["keep_label"].mask(fewer, own["params"])
        models.append(own.assign(series=names, keep_label=points))
    return models


def _join(models: Sequence[pd.DataFrame], points_of: Callable[[pd.DataFrame], pd.DataFrame]) -> pd.DataFrame:
    """The points of all models; of several, the hover texts begin with the model."""
    parts = [points_of(own).assign(model=label(str(own["model"].iloc[0]), WIDTH)) for own in models]
    if len(parts) < 2:
        return parts[0] if parts else pd.DataFrame(columns=["gmacs", "latency_ms", "top1"])
    return pd.concat([part.assign(hover=part["model"] + "<br>" + part["hover"]) for part in parts], ignore_index=True)


def _timed_points(rows: pd.DataFrame) -> pd.DataFrame:
    points = chart_points(rows)
    return points.assign(hover=[hover_text(point, [point]) for point in points.to_dict("records")])


def _looks(models: Sequence[pd.DataFrame]) -> dict[str, Style]:
    """The style of each series in all models."""
    looks = series_styles(dict.fromkeys(name for own in models for name in series_names(own)))
    return looks | {FEWER_PIXELS: FEWER_PIXELS_STYLE} if FEWER_PIXELS in looks else looks


def _sizes(points: pd.DataFrame) -> dict[str, int]:
    """The size of each model's symbols, the models in the order of their compute."""
    models = list(points.groupby("model")["gmacs"].max().sort_values().index)
    if len(models) == 1:
        return {models[0]: Style.size}
    return {model: round(size) for model, size in zip(models, np.linspace(*SIZES, len(models)), strict=True)}


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


def _series_traces(points: pd.DataFrame, x: str, looks: Mapping[str, Style], sizes: Mapping[str, int]) -> Iterator[Any]:
    """A line for each series and model in the order of the keeps, and a star for each plain model."""
    ordered = points.sort_values(["keep", "gmacs"])
    for number, (name, look) in enumerate(looks.items()):
        for place, (model, size) in enumerate(sizes.items()):
            of_model = ordered[ordered["model"] == model]
            own = of_model[(of_model["series"] == name) & ~of_model["plain"]]
            if name == FEWER_PIXELS and len(own):  # its line begins at the plain model
                own = pd.concat([own, of_model[of_model["plain"]]])
            trace = _series_trace(own, x, label(name), replace(look, size=size))
            yield trace.update(legendgroup=f"series {number}", showlegend=place == 0)
    plain = ordered[ordered["plain"]].sort_values(x)
    if len(sizes) == 1:
        yield _series_trace(plain, x, PLAIN_LABEL, PLAIN_STYLE)
    else:
        # Below the line there is room; the last name would not fit to the right of its star.
        places = ["bottom right"] * (len(sizes) - 1) + ["top left"]
        names = {"mode": "lines+markers+text", "text": list(plain["model"]), "textposition": places}
        yield _series_trace(plain, x, f"{PLAIN_LABEL}s", PLAIN_STYLE).update(names)


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
