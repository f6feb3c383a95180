"""Charts of cost: where less compute is less time, how many tokens are left, and whose MACs they are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tokbench.report.charts.points import SETTING, complete, curves, points, tell, tell_all
from tokbench.report.charts.style import (
    CLEAR,
    GREY,
    HEIGHT,
    HOVER,
    LONGEST_TICK,
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
from tokbench.report.labels import word

LINE = 15  # pixels of a name's line beside a bar or a row of cells
GAP = 9  # pixels between two of them
REST = 170  # pixels of titles, numbers and legend besides them

# Orange is slower, blue faster: told apart by the colour-blind, and light in between on either ground. The colours
# reach as far as the furthest speedup, but no less far than this, so that what is near 1 is pale.
SPEEDUP_COLOURS = [[0, "rgb(179, 88, 6)"], [0.5, "rgb(244, 244, 244)"], [1, "rgb(5, 95, 160)"]]
LEAST_SPAN = 1.25
PALE = 0.55  # up to this share of the way to the darkest colour, dark text is read better than light

HATCHING = {"shape": "/", "size": 8, "solidity": 0.15, "fgcolor": "rgba(90, 90, 90, 0.6)"}
DARK, LIGHT = "rgb(30, 30, 30)", "rgb(255, 255, 255)"
HEAD = 20  # pixels of what stands above groups of columns
LONGEST_HEAD = 16  # characters of it
BACKBONE, METHOD = "rgb(86, 180, 233)", "rgb(213, 94, 0)"

MAX_NAMES = 8  # of the series that share a point
MAX_TICKS = 16


def crossover_map(rows: pd.DataFrame) -> go.Figure | None:
    """Speedups by series, keep and batch size: blue is faster, orange slower; a view for each mode.

    Hatched is what saves MACs without being surely faster: its verdict is not FASTER.
    """
    timed = points(complete(rows)).dropna(subset=["speedup"])
    timed = timed[~timed["plain"] & (timed["speedup"] > 0)]
    if timed.empty:
        return None
    timed = timed.assign(told=[tell(line, [line]) for line in timed.to_dict("records")])
    keeps = timed.groupby("asked", sort=False)["keep"].max().sort_values(ascending=False, kind="stable")
    batches = sorted(timed["batch_size"].unique())
    columns = [(asked, batch) for asked in keeps.index for batch in batches]
    names = list(dict.fromkeys(timed["series"]))
    views = [
        View(label(word(mode)), list(_cells(part, names, columns, _span(timed))))
        for mode, part in timed.groupby("mode", sort=False)
    ]
    several = len(batches) > 1
    ticks = [word(batch) if several else label(asked.removeprefix("keep ")) for asked, batch in columns]
    figure = chart(
        views,
        height=_height(names),
        xaxis={
            **{"tickvals": list(range(len(columns))), "ticktext": ticks, "range": [-0.5, len(columns) - 0.5]},
            **{
                "showgrid": False,
                "title": {"text": "batch size (above: keep)" if several else f"keep, batch {batches[0]}"},
            },
        },
        yaxis={**_named(names), "showgrid": False},
        bargap=0,
        barmode="overlay",
    )
    if several:
        _head_groups(figure, list(keeps.index), len(batches))
    return figure


def tokens_per_block(rows: pd.DataFrame) -> go.Figure | None:
    """The patch tokens that leave each block, a step line for each series; a view for each keep."""
    rows = complete(rows)
    counted = points(rows, SETTING).dropna(subset=["tokens_per_block"])
    if counted.empty:
        return None
    counted = counted.assign(counts=counted["tokens_per_block"].map(lambda told: [float(n) for n in told.split()]))
    looks = styles(curves(rows))
    plain: list[float] = next(iter(counted.loc[counted["plain"], "counts"]), [])
    views = []
    for asked, part in _by_keep(counted):
        counts = dict(zip(part["series"], part["counts"], strict=True))
        lines = [(PLAIN_LABEL, PLAIN_STYLE, plain)]
        lines += [(label(name), look, counts.get(name, [])) for name, look in looks.items()]
        views.append(View(label(asked), [_steps(*line, lines) for line in lines]))
    deepest = max(map(len, counted["counts"]))
    return chart(
        views,
        HEIGHT,
        shown=len(views) // 2,
        xaxis={"title": {"text": "block"}, **({"dtick": 1} if deepest <= MAX_TICKS else {})},
        yaxis={"title": {"text": "patch tokens that leave it"}, "rangemode": "tozero"},
    )


def macs_split(rows: pd.DataFrame) -> go.Figure | None:
    """MACs as bars, the backbone's and the method's own; a view for each keep. The dotted line is the plain model."""
    rows = complete(rows)
    counted = tell_all(points(rows, SETTING), points(rows)).dropna(subset=["gmacs", "gmacs_method"])
    if counted.empty:
        return None
    plain = counted[counted["plain"]]
    names = list(dict.fromkeys([*plain["series"], *counted["series"]]))
    told = [PLAIN_LABEL if name in set(plain["series"]) else name for name in names]
    return chart(
        [View(label(asked), list(_bars(pd.concat([plain, part]), names))) for asked, part in _by_keep(counted)],
        height=_height(told),
        shown=len(_by_keep(counted)) // 2,
        xaxis={"title": {"text": "compute (GMACs an image)"}, "range": [0, 1.15 * counted["gmacs"].max()]},
        yaxis={**_named(told), "showgrid": False},
        barmode="stack",
        bargap=0.3,
        shapes=[reference("x", total) for total in plain["gmacs"]],
    )


def _by_keep(drawn: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """The points of each keep, falling, and of each schedule that says how much by itself.

    Where the plain model is alone, there is one part without points.
    """
    methods = drawn[~drawn["plain"]]
    parts = [(str(asked), part) for asked, part in methods.groupby("asked", sort=False)]
    return sorted(parts, key=lambda pair: -np.nan_to_num(pair[1]["keep"].max())) or [("", methods)]


def _named(names: Sequence[str]) -> dict[str, Any]:
    """An axis with a place for each name, the first on top: by number, as names that are cut may be the same."""
    ticktext = ["<br>".join(label(part, LONGEST_TICK) for part in _parts(name)) for name in names]
    span = {"tickvals": list(range(len(names))), "range": [len(names) - 0.5, -0.5]}
    return {**span, "ticktext": ticktext, "tickfont": {"size": 11}}


def _height(names: Sequence[str]) -> int:
    """Pixels that a chart with such an axis takes: the names that need most lines decide."""
    return REST + len(names) * (GAP + LINE * max(len(_parts(name)) for name in names))


def _parts(name: str) -> list[str]:
    """A name, and if they tell it apart its parameters and settings."""
    parts = [name] if name == PLAIN_LABEL else re.split(r"(?=[( ])", name, maxsplit=1)
    return [part.strip() for part in parts if part.strip()] or [name]


def _head_groups(figure: go.Figure, asked: Sequence[str], width: int) -> None:
    """Write what was asked above each group of so many columns, and draw lines between the groups."""
    for place, text in enumerate(asked):
        middle = (place + 0.5) * width - 0.5
        figure.add_annotation(
            **{"x": middle, "y": 1, "yref": "paper", "yanchor": "bottom", "showarrow": False},
            text=label(text.removeprefix("keep "), LONGEST_HEAD),
        )
        if place:
            figure.add_shape(reference("x", place * width - 0.5) | {"line": {"color": GREY, "width": 2}})
    figure.layout.margin.t += HEAD
    for menu in figure.layout.updatemenus:
        menu.pad.b += HEAD


def _span(timed: pd.DataFrame) -> float:
    """How far the colours reach from 1, both ways, as a logarithm to the base 2."""
    return float(np.log2(np.append(np.maximum(timed["speedup"], 1 / timed["speedup"]), LEAST_SPAN)).max())


def _cells(drawn: pd.DataFrame, names: Sequence[str], columns: Sequence[tuple[str, int]], span: float) -> Iterator[Any]:
    """The coloured cells, hatching over those that save MACs without being surely faster, and the numbers over both."""
    rows = [names.index(name) for name in drawn["series"]]
    places = [columns.index(pair) for pair in zip(drawn["asked"], drawn["batch_size"], strict=True)]
    speeds = np.log2(drawn["speedup"])
    z: list[list[float | None]] = [[None] * len(columns) for _ in names]
    told = [[""] * len(columns) for _ in names]
    for row, place, speed, text in zip(rows, places, speeds, drawn["told"], strict=True):
        z[row][place], told[row][place] = float(speed), text
    yield go.Heatmap(
        x=list(range(len(columns))),
        y=list(range(len(names))),
        z=z,
        hovertext=told,
        hovertemplate=HOVER,
        hoverongaps=False,
        **{"zmin": -span, "zmax": span, "colorscale": SPEEDUP_COLOURS, "showscale": False, "xgap": 2, "ygap": 2},
    )
    unsure = (drawn["gmacs_saved"] > 0) & (drawn["verdict"] != "FASTER")
    hatched = [cell for cell, marked in zip(zip(places, rows, strict=True), unsure, strict=True) if marked]
    yield go.Bar(
        x=[place for place, _ in hatched],
        y=[1] * len(hatched),
        base=[row - 0.5 for _, row in hatched],
        width=1,
        name="fewer MACs, not surely faster",
        marker={"color": CLEAR, "pattern": HATCHING},
        hoverinfo="skip",
    )
    yield go.Scatter(
        x=places,
        y=rows,
        text=[f"{speedup:.2f}" for speedup in drawn["speedup"]],
        textfont={"size": 10, "color": [DARK if abs(speed) <= PALE * span else LIGHT for speed in speeds]},
        **{"mode": "text", "hoverinfo": "skip", "showlegend": False},
    )


def _steps(name: str, look: Style, counts: Sequence[float], lines: Sequence[tuple[str, Style, Sequence[float]]]) -> Any:
    """One line over the blocks; each of its points names all `lines` that lie on one another there."""
    told = []
    for block, count in enumerate(counts):
        same = [other for other, _, others in lines if block < len(others) and others[block] == count]
        more = [f"and {len(same) - MAX_NAMES} more"] if len(same) > MAX_NAMES else []
        told.append("<br>".join([f"<b>{count:g} tokens leave block {block}</b>", *same[:MAX_NAMES], *more]))
    drawn = look.drawn()
    return go.Scatter(
        **told_by(told, look),
        x=list(range(len(counts))),
        y=list(counts),
        name=name,
        mode="lines+markers",
        line={**drawn["line"], "shape": "hvh"},
        marker={**drawn["marker"], "size": 6},
    )


def _bars(drawn: pd.DataFrame, names: Sequence[str]) -> Iterator[Any]:
    """The backbone's MACs, the method's own behind them, and at the end how much less it is."""
    places = [names.index(name) for name in drawn["series"]]
    backbone = drawn["gmacs"] - drawn["gmacs_method"]
    for name, share, colour in (
        ("backbone", backbone, BACKBONE),
        ("the method's own", drawn["gmacs_method"], METHOD),
    ):
        yield go.Bar(
            x=values(share),
            y=places,
            orientation="h",
            name=name,
            marker={"color": colour, "line": {"width": 0}},
            hovertext=list(drawn["told"]),
            hovertemplate=HOVER,
        )
    saved = zip(drawn["plain"], drawn["gmacs_saved"].round(1) + 0.0, strict=True)
    yield go.Scatter(
        **{"x": values(drawn["gmacs"]), "y": places, "mode": "text", "textposition": "middle right"},
        **{"hoverinfo": "skip", "showlegend": False, "cliponaxis": False},
        text=["" if plain or np.isnan(percent) else f" {-percent + 0.0:+.1f} %" for plain, percent in saved],
    )
