"""The chart of published numbers beside measured ones of the same settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tokbench.report.charts.points import METHOD_COLUMNS, prepare_rows, series_names, wrap
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
    series_styles,
)
from tokbench.report.digits import RowValues
from tokbench.report.labels import cell_text


def published_and_measured(rows: pd.DataFrame, claims: pd.DataFrame) -> go.Figure | None:
    """Published numbers as hollow markers, each connected to the filled marker of the same setting as measured.

    Each regime has its own plot; the plain model is in all of them. A published number without GMACs is drawn at the
    measured GMACs. The connection is dotted if the images differ from those of the publication.

    Args:
        rows: The table's rows of one model.
        claims: What `tokbench.published.claims.beside` gives.
    """
    rows = prepare_rows(rows)
    texts = rows.assign(**{name: rows[name].fillna("") for name in METHOD_COLUMNS})
    series_of_method = texts[[*METHOD_COLUMNS, "series", "plain"]].drop_duplicates(METHOD_COLUMNS)
    own = claims[claims["model"].isin(rows["model"])]
    found = own.merge(series_of_method, on=METHOD_COLUMNS)
    pairs = found.assign(x=found["claimed_gmacs"].fillna(found["gmacs"])).dropna(subset=["x", "claimed_top1"])
    if pairs.empty:
        return None
    looks = series_styles(series_names(rows)) | dict.fromkeys(pairs.loc[pairs["plain"], "series"], PLAIN_STYLE)
    regimes = list(dict.fromkeys(pairs.loc[~pairs["plain"], "regime"])) or [""]
    traces = _legend_entries(pairs)
    axes: dict[str, Any] = {}
    for index, regime in enumerate(regimes):
        axis = f"yaxis{index + 1}" if index else "yaxis"
        part = pairs[pairs["plain"] | (pairs["regime"] == regime)]
        for trace in _pair_traces(part, looks):
            once = bool(trace.showlegend) and trace.legendgroup not in {other.legendgroup for other in traces}
            traces.append(trace.update(yaxis=axis.replace("axis", ""), showlegend=once))
        gap = 0.04 if index + 1 < len(regimes) else 0
        domain = [1 - (index + 1) / len(regimes) + gap, 1 - index / len(regimes)]
        axes[axis] = {"title": {"text": " · ".join(filter(None, ["top-1 (%)", label(regime)]))}, "domain": domain}
    title = {"text": "compute (GMACs per image)"}
    lowest = {"title": title, "anchor": axis.replace("axis", ""), "range": _compute_range(pairs[["x", "gmacs"]])}
    return make_figure([View("", traces)], HEIGHT + 300 * (len(regimes) - 1), xaxis=lowest, **axes)


def _legend_entries(pairs: pd.DataFrame) -> list[Any]:
    """Traces without points that explain markers and connections in the legend."""
    no_points = {"x": [None], "y": [None]}
    published, measured = (
        go.Scatter(**no_points, name=name, mode="markers", marker={"color": GREY, "symbol": symbol, "size": 9})
        for name, symbol in (("published", "circle-open"), ("measured", "circle"))
    )
    if pairs["not_comparable"].eq("").all():
        return [published, measured]
    dotted = {"color": GREY, "width": 1, "dash": "dot"}
    return [published, measured, go.Scatter(**no_points, name="not comparable", mode="lines", line=dotted)]


def _compute_range(compute: pd.DataFrame) -> list[float]:
    """The range of the compute axis, at least 10 % of its largest value, so that small differences look small."""
    numbers = compute.to_numpy(dtype=float)
    least, most = float(np.nanmin(numbers)), float(np.nanmax(numbers))
    margin = max(0.08 * (most - least), 0.05 * most)
    return [least - margin, most + margin]


def _pair_traces(pairs: pd.DataFrame, looks: Mapping[str, Style]) -> Iterator[Any]:
    """The connections, then the published and the measured numbers of each series."""
    not_comparable = pairs["not_comparable"] != ""
    for part, dash in ((pairs[~not_comparable], "solid"), (pairs[not_comparable], "dot")):
        xs = [(*json_numbers(pair), None) for pair in zip(part["x"], part["gmacs"], strict=True)]
        ys = [(*json_numbers(pair), None) for pair in zip(part["claimed_top1"], part["top1"], strict=True)]
        yield go.Scatter(
            x=sum(xs, ()),
            y=sum(ys, ()),
            mode="lines",
            line={"color": GREY, "width": 1, "dash": dash},
            hoverinfo="skip",
            showlegend=False,
        )
    for name, part in pairs.groupby("series", sort=False):
        records, look = part.to_dict("records"), looks[str(name)]
        for x, y, hover, suffix in (
            ("gmacs", "top1", _measured_hover, ""),
            ("x", "claimed_top1", _published_hover, "-open"),
        ):
            yield go.Scatter(
                x=json_numbers(part[x]),
                y=json_numbers(part[y]),
                **hover_settings([hover(record) for record in records], look),
                mode="markers",
                marker={**look.line_and_marker()["marker"], "symbol": look.symbol + suffix},
                name=PLAIN_LABEL if look is PLAIN_STYLE else label(str(name)),
                legendgroup=f"series {list(looks).index(str(name))}",
                showlegend=not suffix,
            )


def _published_hover(pair: RowValues) -> str:
    gmacs: str = "no GMACs" if pd.isna(pair["claimed_gmacs"]) else f"{pair['claimed_gmacs']:g} GMACs"
    lines = [
        *(f"<b>{text}</b>" for text in wrap(f"published: {cell_text(pair['published_as'])}")),
        f"{gmacs}, {pair['claimed_top1']:g} % top-1",
        label(f"read from a {cell_text(pair['read_from'])}") if cell_text(pair["read_from"]) else "",
        *(text for name in ("published_keep", "paper", "note") for text in wrap(cell_text(pair[name]))),
    ]
    return "<br>".join(filter(None, lines))


def _measured_hover(pair: RowValues) -> str:
    keep = "" if pair["plain"] or not cell_text(pair["keep"]) else f" · keep {cell_text(pair['keep'])}"
    name = PLAIN_LABEL if pair["plain"] else pair["series"]
    difference = f"{pair['difference']:+.2f} points compared with the published number"
    lines = [
        *(f"<b>{text}</b>" for text in wrap(f"measured: {name}{keep}")),
        f"{pair['gmacs']:.3f} GMACs, {pair['top1']:.2f} % top-1",
        *wrap(f"not comparable: {pair['not_comparable']}" if pair["not_comparable"] else difference),
    ]
    return "<br>".join(lines)
