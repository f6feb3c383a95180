"""Charts of cost: measured speedup against MACs saved, tokens after each block, and MACs by component."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tokbench.report.charts.points import (
    SERIES_AND_KEEP,
    chart_points,
    hover_text,
    prepare_rows,
    series_names,
    with_hover_text,
)
from tokbench.report.charts.style import (
    CLEAR,
    GREY,
    HEIGHT,
    HOVER,
    MAX_TICK_LABEL,
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
from tokbench.report.labels import cell_text

# Pixels: a line of a name beside a bar or a row of cells, the gap between two names, and titles, axis and legend.
LINE_HEIGHT = 15
GAP = 9
FRAME_HEIGHT = 170

# Orange is slower, blue is faster, so that colour-blind readers can distinguish them; the middle is light in both
# themes. The scale ends at the most extreme speedup, but at least here, so that values near 1 are pale.
SPEEDUP_COLOURS = [[0, "rgb(179, 88, 6)"], [0.5, "rgb(244, 244, 244)"], [1, "rgb(5, 95, 160)"]]
MIN_SCALE_END = 1.25
PALE = 0.55  # up to this share of the scale, dark text is easier to read than light text

HATCHING = {"shape": "/", "size": 8, "solidity": 0.15, "fgcolor": "rgba(90, 90, 90, 0.6)"}
DARK, LIGHT = "rgb(30, 30, 30)", "rgb(255, 255, 255)"
GROUP_HEADING_HEIGHT = 20  # pixels
MAX_GROUP_HEADING = 16  # characters
BACKBONE, METHOD = "rgb(86, 180, 233)", "rgb(213, 94, 0)"

MAX_NAMES = 8  # series named in the hover text of a shared point
MAX_TICKS = 16


def crossover_map(rows: pd.DataFrame) -> go.Figure | None:
    """Speedups by series, keep and batch size: blue is faster, orange is slower; a view for each mode.

    Hatched cells save MACs, but their verdict is not FASTER.
    """
    timed = chart_points(prepare_rows(rows)).dropna(subset=["speedup"])
    timed = timed[~timed["plain"] & (timed["speedup"] > 0)]
    if timed.empty:
        return None
    timed = timed.assign(hover=[hover_text(point, [point]) for point in timed.to_dict("records")])
    keeps = timed.groupby("keep_label", sort=False)["keep"].max().sort_values(ascending=False, kind="stable")
    batches = sorted(timed["batch_size"].unique())
    columns = [(keep, batch) for keep in keeps.index for batch in batches]
    names = list(dict.fromkeys(timed["series"]))
    views = [
        View(label(cell_text(mode)), list(_heatmap(part, names, columns, _scale_end(timed))))
        for mode, part in timed.groupby("mode", sort=False)
    ]
    several = len(batches) > 1
    ticks = [cell_text(batch) if several else label(keep.removeprefix("keep ")) for keep, batch in columns]
    title = "batch size (above: keep)" if several else f"keep, batch {batches[0]}"
    figure = make_figure(
        views,
        height=_height(names),
        xaxis={
            **{"tickvals": list(range(len(columns))), "ticktext": ticks, "range": [-0.5, len(columns) - 0.5]},
            **{"showgrid": False, "title": {"text": title}},
        },
        yaxis={**_name_axis(names), "showgrid": False},
        bargap=0,
        barmode="overlay",
    )
    if several:
        _add_group_headings(figure, list(keeps.index), len(batches))
    return figure


def tokens_per_block(rows: pd.DataFrame) -> go.Figure | None:
    """The patch tokens after each block, a step line for each series; a view for each keep."""
    rows = prepare_rows(rows)
    counted = chart_points(rows, SERIES_AND_KEEP).dropna(subset=["tokens_per_block"])
    if counted.empty:
        return None
    counted = counted.assign(counts=counted["tokens_per_block"].map(lambda text: [float(n) for n in text.split()]))
    looks = series_styles(series_names(rows))
    plain: list[float] = next(iter(counted.loc[counted["plain"], "counts"]), [])
    views = []
    for keep, part in _by_keep(counted):
        counts = dict(zip(part["series"], part["counts"], strict=True))
        lines = [(PLAIN_LABEL, PLAIN_STYLE, plain)]
        lines += [(label(name), look, counts.get(name, [])) for name, look in looks.items()]
        views.append(View(label(keep), [_step_line(*line, lines) for line in lines]))
    deepest = max(map(len, counted["counts"]))
    return make_figure(
        views,
        HEIGHT,
        shown=len(views) // 2,
        xaxis={"title": {"text": "block"}, **({"dtick": 1} if deepest <= MAX_TICKS else {})},
        yaxis={"title": {"text": "patch tokens after the block"}, "rangemode": "tozero"},
    )


def macs_split(rows: pd.DataFrame) -> go.Figure | None:
    """MACs of the backbone and of the method as stacked bars; a view for each keep. The dotted line: plain model."""
    rows = prepare_rows(rows)
    points = with_hover_text(chart_points(rows, SERIES_AND_KEEP), chart_points(rows))
    counted = points.dropna(subset=["gmacs", "gmacs_method"])
    if counted.empty:
        return None
    plain = counted[counted["plain"]]
    names = list(dict.fromkeys([*plain["series"], *counted["series"]]))
    shown_names = [PLAIN_LABEL if name in set(plain["series"]) else name for name in names]
    return make_figure(
        [View(label(keep), list(_bars(pd.concat([plain, part]), names))) for keep, part in _by_keep(counted)],
        height=_height(shown_names),
        shown=len(_by_keep(counted)) // 2,
        xaxis={"title": {"text": "compute (GMACs per image)"}, "range": [0, 1.15 * counted["gmacs"].max()]},
        yaxis={**_name_axis(shown_names), "showgrid": False},
        barmode="stack",
        bargap=0.3,
        shapes=[reference_line("x", total) for total in plain["gmacs"]],
    )


def _by_keep(points: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The methods' points by `keep_label`, highest keep first; one empty part if only the plain model was measured."""
    methods = points[~points["plain"]]
    parts = [(str(keep), part) for keep, part in methods.groupby("keep_label", sort=False)]
    return sorted(parts, key=lambda pair: -np.nan_to_num(pair[1]["keep"].max())) or [("", methods)]


def _name_axis(names: Sequence[str]) -> dict[str, Any]:
    """An axis with a name at each integer, the first on top. Positions are numbers, as cut names may be equal."""
    ticktext = ["<br>".join(label(part, MAX_TICK_LABEL) for part in _name_lines(name)) for name in names]
    span = {"tickvals": list(range(len(names))), "range": [len(names) - 0.5, -0.5]}
    return {**span, "ticktext": ticktext, "tickfont": {"size": 11}}


def _height(names: Sequence[str]) -> int:
    """The height in pixels of a chart with a name axis; all names get the height of the one with the most lines."""
    return FRAME_HEIGHT + len(names) * (GAP + LINE_HEIGHT * max(len(_name_lines(name)) for name in names))


def _name_lines(name: str) -> list[str]:
    """A name in one or two lines: the method, and its parameters and settings."""
    parts = [name] if name == PLAIN_LABEL else re.split(r"(?=[( ])", name, maxsplit=1)
    return [part.strip() for part in parts if part.strip()] or [name]


def _add_group_headings(figure: go.Figure, headings: Sequence[str], width: int) -> None:
    """Add a heading above each group of `width` columns, and lines between the groups."""
    for group, text in enumerate(headings):
        middle = (group + 0.5) * width - 0.5
        figure.add_annotation(
            **{"x": middle, "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False},
            text=label(text.removeprefix("keep "), MAX_GROUP_HEADING),
        )
        if group:
            figure.add_shape(reference_line("x", group * width - 0.5) | {"line": {"color": GREY, "width": 2}})
    figure.layout.margin.t += GROUP_HEADING_HEIGHT
    for menu in figure.layout.updatemenus:
        menu.pad.b += GROUP_HEADING_HEIGHT


def _scale_end(timed: pd.DataFrame) -> float:
    """The end of the colour scale on both sides, as log2 of a speedup."""
    return float(np.log2(np.append(np.maximum(timed["speedup"], 1 / timed["speedup"]), MIN_SCALE_END)).max())


def _heatmap(
    points: pd.DataFrame, names: Sequence[str], columns: Sequence[tuple[str, int]], scale_end: float
) -> Iterator[Any]:
    """The coloured cells, the hatching of those that save MACs without being surely faster, and the numbers."""
    ys = [names.index(name) for name in points["series"]]
    xs = [columns.index(pair) for pair in zip(points["keep_label"], points["batch_size"], strict=True)]
    speeds = np.log2(points["speedup"])
    z: list[list[float | None]] = [[None] * len(columns) for _ in names]
    hover = [[""] * len(columns) for _ in names]
    for y, x, speed, text in zip(ys, xs, speeds, points["hover"], strict=True):
        z[y][x], hover[y][x] = float(speed), text
    colours = {"zmin": -scale_end, "zmax": scale_end, "colorscale": SPEEDUP_COLOURS, "showscale": False}
    yield go.Heatmap(
        x=list(range(len(columns))),
        y=list(range(len(names))),
        z=z,
        hovertext=hover,
        hovertemplate=HOVER,
        hoverongaps=False,
        **{**colours, "xgap": 2, "ygap": 2},
    )
    unsure = (points["gmacs_saved"] > 0) & (points["verdict"] != "FASTER")
    hatched = [cell for cell, marked in zip(zip(xs, ys, strict=True), unsure, strict=True) if marked]
    yield go.Bar(
        x=[x for x, _ in hatched],
        y=[1] * len(hatched),
        base=[y - 0.5 for _, y in hatched],
        width=1,
        name="fewer MACs, but not surely faster",
        marker={"color": CLEAR, "pattern": HATCHING},
        hoverinfo="skip",
    )
    yield go.Scatter(
        x=xs,
        y=ys,
        text=[f"{speedup:.2f}" for speedup in points["speedup"]],
        textfont={"size": 10, "color": [DARK if abs(speed) <= PALE * scale_end else LIGHT for speed in speeds]},
        **{"mode": "text", "hoverinfo": "skip", "showlegend": False},
    )


def _step_line(
    name: str, look: Style, counts: Sequence[float], lines: Sequence[tuple[str, Style, Sequence[float]]]
) -> Any:
    """One line over the blocks; the hover text of a point names all `lines` that pass through it."""
    hover = []
    for block, count in enumerate(counts):
        same = [other for other, _, others in lines if block < len(others) and others[block] == count]
        more = [f"and {len(same) - MAX_NAMES} more"] if len(same) > MAX_NAMES else []
        hover.append("<br>".join([f"<b>{count:g} tokens after block {block}</b>", *same[:MAX_NAMES], *more]))
    drawing = look.line_and_marker()
    return go.Scatter(
        **hover_settings(hover, look),
        x=list(range(len(counts))),
        y=list(counts),
        name=name,
        mode="lines+markers",
        line={**drawing["line"], "shape": "hvh"},
        marker={**drawing["marker"], "size": 6},
    )


def _bars(points: pd.DataFrame, names: Sequence[str]) -> Iterator[Any]:
    """The MACs of the backbone, then those of the method, and at the end of the bar the change in percent."""
    ys = [names.index(name) for name in points["series"]]
    backbone = points["gmacs"] - points["gmacs_method"]
    for name, share, colour in (("backbone", backbone, BACKBONE), ("method", points["gmacs_method"], METHOD)):
        yield go.Bar(
            x=json_numbers(share),
            y=ys,
            orientation="h",
            name=name,
            marker={"color": colour, "line": {"width": 0}},
            hovertext=list(points["hover"]),
            hovertemplate=HOVER,
        )
    saved = zip(points["plain"], points["gmacs_saved"].round(1) + 0.0, strict=True)
    yield go.Scatter(
        **{"x": json_numbers(points["gmacs"]), "y": ys, "mode": "text", "textposition": "middle right"},
        **{"hoverinfo": "skip", "showlegend": False, "cliponaxis": False},
        text=["" if plain or np.isnan(percent) else f" {-percent + 0.0:+.1f} %" for plain, percent in saved],
    )
