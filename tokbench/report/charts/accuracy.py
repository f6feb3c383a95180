"""Charts of accuracy: what is left of it for so much compute, and for so much time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tokbench.report.charts.points import SETTING, SETUP, complete, curves, points, setup, tell, tell_all
from tokbench.report.charts.style import (
    GREY,
    HEIGHT,
    PLAIN_LABEL,
    PLAIN_STYLE,
    Style,
    View,
    chart,
    label,
    reference,
    styles,
    told_by,
    values,
)


def accuracy_by_compute(rows: pd.DataFrame) -> go.Figure | None:
    """Top-1 against GMACs with intervals; a line is a series over its keeps.

    Ringed are the rows that the table has on the Pareto front; the steps are the best top-1 of those that cost no more.
    """
    rows = complete(rows)
    settings = tell_all(points(rows, SETTING), points(rows)).dropna(subset=["gmacs", "top1"])
    if settings.empty:
        return None
    front = _front(settings[settings["pareto"]], "gmacs", "Pareto front")
    traces = [*front, *_curves(settings, "gmacs", styles(curves(rows)))]
    return _accuracy([View("", traces, {"xaxis.title.text": "compute (GMACs an image)"})], settings)


def accuracy_by_latency(rows: pd.DataFrame) -> go.Figure | None:
    """Top-1 against the time of a batch with both intervals, a view for each batch size and mode.

    Ringed is what no other point of the view beats in both estimates; unlike the table's front it takes no account
    of their intervals.
    """
    rows = complete(rows)
    timed = points(rows).dropna(subset=["latency_ms", "top1"])
    if timed.empty:
        return None
    timed = timed.assign(told=[tell(line, [line]) for line in timed.to_dict("records")])
    looks = styles(curves(rows))
    views = []
    for _, part in timed.groupby(SETUP, sort=False):
        by_time = part.sort_values(["latency_ms", "top1"], ascending=[True, False])
        front = _front(by_time[_rising(by_time["top1"])], "latency_ms", "best for its time")
        name = setup(part.iloc[0].to_dict())
        layout = {"xaxis.title.text": f"time of a batch (ms), {name}", "xaxis.autorange": True, "yaxis.autorange": True}
        views.append(View(name, [*front, *_curves(part, "latency_ms", looks)], layout))
    return _accuracy(views, timed)


def _accuracy(views: Sequence[View], drawn: pd.DataFrame) -> go.Figure:
    """The plain model's accuracy is a line from side to side."""
    shapes = [reference("y", top1) for top1 in drawn.loc[drawn["plain"], "top1"].unique()]
    return chart(views, HEIGHT, yaxis={"title": {"text": "top-1 (%)"}}, shapes=shapes)


def _rising(top1: pd.Series) -> pd.Series:
    """Which values are above all before them."""
    return top1 > top1.cummax().shift(fill_value=-np.inf)


def _front(best: pd.DataFrame, x: str, name: str) -> list[Any]:
    """Rings around these points, and a step line through those of them that are above all to their left."""
    ordered = best.sort_values([x, "top1"], ascending=[True, False])
    stairs = ordered[_rising(ordered["top1"])]
    ring = {"symbol": "circle-open", "size": 15, "color": GREY, "line": {"width": 1.5}}
    line = {"shape": "hv", "color": PLAIN_STYLE.paint(0.6), "width": 1}
    group = {"name": name, "legendgroup": "front", "hoverinfo": "skip"}
    return [
        go.Scatter(**_at(stairs, x), **group, mode="lines", line=line, showlegend=False),
        go.Scatter(**_at(ordered, x), **group, mode="markers", marker=ring),
    ]


def _curves(drawn: pd.DataFrame, x: str, looks: Mapping[str, Style]) -> Iterator[Any]:
    """A line for each series, in the order of its keeps, and a star for the plain model."""
    ordered = drawn.sort_values(["keep", "gmacs"])
    for name, look in looks.items():
        yield _curve(ordered[(ordered["series"] == name) & ~ordered["plain"]], x, label(name), look)
    yield _curve(ordered[ordered["plain"]], x, PLAIN_LABEL, PLAIN_STYLE)


def _curve(drawn: pd.DataFrame, x: str, name: str, look: Style) -> Any:
    return go.Scatter(
        **_at(drawn, x),
        **told_by(drawn["told"], look),
        **look.drawn(),
        name=name,
        mode="lines+markers",
        error_x=_interval(drawn, x, look),
        error_y=_interval(drawn, "top1", look),
    )


def _at(drawn: pd.DataFrame, x: str) -> dict[str, Any]:
    return {"x": values(drawn[x]), "y": values(drawn["top1"])}


def _interval(drawn: pd.DataFrame, name: str, look: Style) -> dict[str, Any]:
    over, under = drawn[f"{name}_hi"] - drawn[name], drawn[name] - drawn[f"{name}_lo"]
    sides = {"array": values(over.clip(lower=0)), "arrayminus": values(under.clip(lower=0))}
    return {"type": "data", "symmetric": False, **sides, "color": look.paint(0.35), "thickness": 1, "width": 0}
