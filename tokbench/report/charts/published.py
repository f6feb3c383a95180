"""The chart of what was published beside what was measured of the same settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tokbench.published.claims import beside
from tokbench.report.charts.points import complete, curves, wrapped
from tokbench.report.charts.style import (
    GREY,
    HEIGHT,
    PLAIN_LABEL,
    PLAIN_STYLE,
    Style,
    View,
    chart,
    label,
    styles,
    told_by,
    values,
)
from tokbench.report.digits import Line
from tokbench.report.labels import word

KEYS = ["method", "params", "regime", "site", "schedule"]


def claims_beside(rows: pd.DataFrame) -> go.Figure | None:
    """Published numbers, hollow, each tied to the full marker of what was measured of the same setting.

    A regime has a plot of its own, and the plain model is in all of them. A published number without GMACs stands
    above or below what was measured. The tie is dotted where the images were not those of the publication.
    """
    rows = complete(rows)
    texts = rows.assign(**{name: rows[name].fillna("") for name in KEYS})
    found = beside(texts).merge(texts[[*KEYS, "series", "plain"]].drop_duplicates(KEYS), on=KEYS)
    pairs = found.assign(at=found["claimed_gmacs"].fillna(found["gmacs"])).dropna(subset=["at", "claimed_top1"])
    if pairs.empty:
        return None
    looks = styles(curves(rows)) | dict.fromkeys(pairs.loc[pairs["plain"], "series"], PLAIN_STYLE)
    regimes = list(dict.fromkeys(pairs.loc[~pairs["plain"], "regime"])) or [""]
    traces = _keys(pairs)
    axes: dict[str, Any] = {}
    for place, regime in enumerate(regimes):
        axis = f"yaxis{place + 1}" if place else "yaxis"
        part = pairs[pairs["plain"] | (pairs["regime"] == regime)]
        for trace in _pairs(part, looks):
            once = bool(trace.showlegend) and trace.legendgroup not in {other.legendgroup for other in traces}
            traces.append(trace.update(yaxis=axis.replace("axis", ""), showlegend=once))
        below = 0.04 if place + 1 < len(regimes) else 0
        domain = [1 - (place + 1) / len(regimes) + below, 1 - place / len(regimes)]
        axes[axis] = {"title": {"text": " · ".join(filter(None, ["top-1 (%)", label(regime)]))}, "domain": domain}
    title = {"text": "compute (GMACs an image)"}
    lowest = {"title": title, "anchor": axis.replace("axis", ""), "range": _wide(pairs[["at", "gmacs"]])}
    return chart([View("", traces)], HEIGHT + 300 * (len(regimes) - 1), xaxis=lowest, **axes)


def _keys(pairs: pd.DataFrame) -> list[Any]:
    """Entries of the legend that are nowhere in the plot: what markers and ties mean."""
    nowhere = {"x": [None], "y": [None]}
    published, measured = (
        go.Scatter(**nowhere, name=name, mode="markers", marker={"color": GREY, "symbol": symbol, "size": 9})
        for name, symbol in (("published", "circle-open"), ("measured", "circle"))
    )
    if pairs["not_comparable"].eq("").all():
        return [published, measured]
    tie = {"color": GREY, "width": 1, "dash": "dot"}
    return [published, measured, go.Scatter(**nowhere, name="not comparable", mode="lines", line=tie)]


def _wide(compute: pd.DataFrame) -> list[float]:
    """The range of an axis that shows no difference in compute larger than it is: at least a tenth of all of it."""
    numbers = compute.to_numpy(dtype=float)
    least, most = float(np.nanmin(numbers)), float(np.nanmax(numbers))
    margin = max(0.08 * (most - least), 0.05 * most)
    return [least - margin, most + margin]


def _pairs(pairs: pd.DataFrame, looks: Mapping[str, Style]) -> Iterator[Any]:
    """The ties, then the published and the measured numbers of each series."""
    unlike = pairs["not_comparable"] != ""
    for part, dash in ((pairs[~unlike], "solid"), (pairs[unlike], "dot")):
        ends = [(*values(pair), None) for pair in zip(part["at"], part["gmacs"], strict=True)]
        heights = [(*values(pair), None) for pair in zip(part["claimed_top1"], part["top1"], strict=True)]
        yield go.Scatter(
            x=sum(ends, ()),
            y=sum(heights, ()),
            mode="lines",
            line={"color": GREY, "width": 1, "dash": dash},
            hoverinfo="skip",
            showlegend=False,
        )
    for name, part in pairs.groupby("series", sort=False):
        lines, look = part.to_dict("records"), looks[str(name)]
        for x, y, told, kind in (("gmacs", "top1", _measured, ""), ("at", "claimed_top1", _published, "-open")):
            yield go.Scatter(
                x=values(part[x]),
                y=values(part[y]),
                **told_by([told(line) for line in lines], look),
                mode="markers",
                marker={**look.drawn()["marker"], "symbol": look.symbol + kind},
                name=PLAIN_LABEL if look is PLAIN_STYLE else label(str(name)),
                legendgroup=f"series {list(looks).index(str(name))}",
                showlegend=not kind,
            )


def _published(line: Line) -> str:
    gmacs: str = "no GMACs" if pd.isna(line["claimed_gmacs"]) else f"{line['claimed_gmacs']:g} GMACs"
    told = [
        *(f"<b>{text}</b>" for text in wrapped(f"published: {word(line['published_as'])}")),
        f"{gmacs}, {line['claimed_top1']:g} % top-1",
        label(f"read from a {word(line['read_from'])}") if word(line["read_from"]) else "",
        *(text for name in ("published_keep", "paper", "note") for text in wrapped(word(line[name]))),
    ]
    return "<br>".join(filter(None, told))


def _measured(line: Line) -> str:
    keep = "" if line["plain"] or not word(line["keep"]) else f" · keep {word(line['keep'])}"
    name = PLAIN_LABEL if line["plain"] else line["series"]
    difference = f"{line['difference']:+.2f} points against the published"
    told = [
        *(f"<b>{text}</b>" for text in wrapped(f"measured: {name}{keep}")),
        f"{line['gmacs']:.3f} GMACs, {line['top1']:.2f} % top-1",
        *wrapped(f"not comparable: {line['not_comparable']}" if line["not_comparable"] else difference),
    ]
    return "<br>".join(told)
