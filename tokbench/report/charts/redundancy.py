"""Charts of redundancy: is attention a low-pass filter, and how well do few tokens represent all of them?

Each function returns None if its data are missing: `tokbench compare --analyse` measures them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tokbench.kinds.redundancy import HIGH
from tokbench.report.charts.points import METHOD_COLUMNS, prepare_rows, series_names
from tokbench.report.charts.style import (
    HOVER,
    SERIES_COLOURS,
    Style,
    View,
    hover_settings,
    json_numbers,
    label,
    make_figure,
    series_styles,
)
from tokbench.report.digits import RowValues
from tokbench.report.labels import PARAMETER, cell_text

HEIGHT = 620

BEFORE = Style(SERIES_COLOURS[1], "square", "dash")
AFTER = Style(SERIES_COLOURS[0], "circle", "solid")
# Blue is attenuated, orange is amplified, so that colour-blind readers can distinguish them; the middle is light in
# both themes.
GAIN_COLOURS = [[0, "rgb(5, 95, 160)"], [0.5, "rgb(244, 244, 244)"], [1, "rgb(179, 88, 6)"]]
MIN_SCALE_END = 3.0  # decibels: the gain's colour scale ends at the most extreme gain, but at least here

STANDARD_ERRORS = 1.96  # on each side of a mean: a 95 % interval

MAX_PARAMETERS = 8  # shown in a hover text, one per line


def spectrum_chart(spectra: pd.DataFrame) -> go.Figure | None:
    """The share of high frequencies in each block before and after attention, above the gain of attention.

    The lower part is the gain at each frequency: the energy of A V divided by the energy of V, in decibels. There is a
    view for each model.

    Args:
        spectra: `Results.spectra`.
    """
    if spectra.empty:
        return None
    measured = spectra.assign(decibels=10 * np.log10(spectra["gain"].where(spectra["gain"] > 0)))
    scale_end = max(MIN_SCALE_END, measured["decibels"].abs().max())
    views = []
    for model, rings in measured.groupby("model", sort=False):
        shares = _high_shares(rings)
        lowered = f"attention lowers the share in {(shares['after'] < shares['before']).sum()} of {len(shares)}"
        lines = (
            _share_line(shares, "before", "before attention: V", BEFORE),
            _share_line(shares, "after", "after attention: A V", AFTER),
        )
        title = {"xaxis.title.text": f"block ({lowered})"}
        views.append(View(label(str(model)), [*lines, _gain_heatmap(rings, scale_end)], title))
    return make_figure(
        views,
        HEIGHT,
        xaxis={"anchor": "y2", "dtick": 1 if measured["depth"].max() < 16 else None, "showgrid": False, "tickangle": 0},
        yaxis={"title": {"text": "energy above half of Nyquist (%)"}, "rangemode": "tozero", "domain": [0.52, 1]},
        yaxis2={
            **{"title": {"text": "frequency (of Nyquist)"}, "domain": [0, 0.46]},
            **{"type": "category", "showgrid": False},
        },
    )


def reconstruction_chart(reconstruction: pd.DataFrame, table: pd.DataFrame) -> go.Figure | None:
    """The reconstruction error against the patch tokens left, a line for each series, a view for each block.

    Every reduction starts from the plain model's tokens (see `tokbench.measure.redundancy`). A point is the mean over
    images and seeds, its bar the 95 % interval over images.

    Args:
        reconstruction: `Results.reconstruction`.
        table: `Results.table`.
    """
    measured = reconstruction
    if measured.empty:
        return None
    several = measured["model"].nunique() > 1
    parts: list[pd.DataFrame] = []
    names: dict[str, None] = {}
    for model, part in measured.groupby("model", sort=False):
        rows = prepare_rows(table[table["model"] == model])
        parts.append(_average_seeds(part, rows).assign(model=model))
        names |= dict.fromkeys(series_names(rows))
    points = pd.concat(parts)
    looks = series_styles(names)
    views = []
    for (name_of_model, depth), part in points.groupby(["model", "depth"], sort=False):
        lines = [_error_line(part[part["series"] == name], label(name), look) for name, look in looks.items()]
        title = f"{label(str(name_of_model))}, block {depth}" if several else f"block {depth}"
        views.append(View(title, lines, {f"{axis}axis.autorange": True for axis in "xy"}))
    return make_figure(
        views,
        HEIGHT,
        xaxis={"title": {"text": "patch tokens left (%)"}},
        yaxis={"title": {"text": "reconstruction error (% of the tokens' variance)"}, "rangemode": "tozero"},
    )


def _high_shares(rings: pd.DataFrame) -> pd.DataFrame:
    """By depth, percent of the energy above half of Nyquist, and as `NAME_varying` outside the mean (frequency 0)."""
    high = rings[rings["frequency"] > HIGH].groupby("depth")[["before", "after"]].sum()
    varying = rings[rings["frequency"] > 0].groupby("depth")[["before", "after"]].sum()
    return 100 * high.join(varying.add_suffix("_varying"))


def _share_line(shares: pd.DataFrame, side: str, name: str, look: Style) -> Any:
    hover = [
        f"<b>block {depth}</b><br>"
        f"above half of Nyquist: {share['before']:.1f} % → {share['after']:.1f} %<br>"
        f"outside the mean: {share['before_varying']:.1f} % → {share['after_varying']:.1f} %"
        for depth, share in shares.iterrows()
    ]
    data: dict[str, Any] = {"x": list(shares.index), "y": json_numbers(shares[side])}
    return go.Scatter(**data, **hover_settings(hover, look), **look.line_and_marker(), name=name, mode="lines+markers")


def _gain_heatmap(rings: pd.DataFrame, scale_end: float) -> Any:
    """Blocks from left to right, frequencies from the mean upwards; colours from -scale_end to scale_end decibels."""
    hover = [
        f"<b>block {ring['depth']}, {_frequency_text(ring['frequency'], ' of Nyquist')}</b><br>"
        f"share of the energy: {100 * ring['before']:.2f} % → {100 * ring['after']:.2f} %<br>"
        f"gain: {ring['decibels']:+.1f} dB"
        for ring in rings.to_dict("records")
    ]
    cells = rings.assign(hover=hover).pivot(index="frequency", columns="depth")
    grid = cells["decibels"]
    data: dict[str, Any] = {
        "x": list(grid.columns),
        "y": [_frequency_text(frequency) for frequency in grid.index],
        "z": [json_numbers(row) for row in grid.to_numpy()],
        "hovertext": cells["hover"].to_numpy().tolist(),
    }
    bar: dict[str, Any] = {"title": {"text": "gain<br>(dB)"}, "thickness": 10, "outlinewidth": 0}
    bar |= {"len": 0.46, "y": 0, "yanchor": "bottom"}
    colours: dict[str, Any] = {"colorscale": GAIN_COLOURS, "zmin": -scale_end, "zmax": scale_end, "colorbar": bar}
    return go.Heatmap(**data, **colours, hovertemplate=HOVER, yaxis="y2")


def _frequency_text(frequency: float, unit: str = "") -> str:
    return f"{frequency:.2f}{unit}" if frequency else "mean"


def _average_seeds(measured: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """The means over seeds, a row for each series, schedule, keep and depth of one model.

    Args:
        measured: The model's reconstruction errors.
        rows: Its rows of the table, as `prepare_rows` gives them.
    """
    known = rows.assign(**{name: rows[name].map(cell_text) for name in METHOD_COLUMNS})
    series_of_method = known[[*METHOD_COLUMNS, "series"]].drop_duplicates(METHOD_COLUMNS)
    texts = measured.assign(**{name: measured[name].map(cell_text) for name in METHOD_COLUMNS})
    errors = texts.merge(series_of_method, on=METHOD_COLUMNS)
    half = STANDARD_ERRORS * errors["error_sd"] / np.sqrt(errors["images"])
    groups = errors.assign(half=half).groupby(["series", *METHOD_COLUMNS, "keep", "depth"], sort=False, dropna=False)
    points = groups[["tokens", "patches", "error", "half"]].mean()
    points["seeds"] = groups["seed"].nunique()
    return points.reset_index()


def _error_line(points: pd.DataFrame, name: str, look: Style) -> Any:
    ordered = points.sort_values("tokens")
    data: dict[str, Any] = {
        "x": json_numbers(100 * ordered["tokens"] / ordered["patches"]),
        "y": json_numbers(100 * ordered["error"]),
    }
    bars = {"array": json_numbers(100 * ordered["half"]), "color": look.rgba(0.35), "thickness": 1, "width": 0}
    hover = [_error_hover(point, name) for point in ordered.to_dict("records")]
    look_and_hover = {**hover_settings(hover, look), **look.line_and_marker()}
    return go.Scatter(**data, **look_and_hover, error_y=bars, name=name, mode="lines+markers")


def _error_hover(point: RowValues, name: str) -> str:
    settings = [
        f"keep {cell_text(point['keep'])}" if cell_text(point["keep"]) else "",
        *(label(point[setting]) for setting in ("schedule", "site")),
        f"{point['seeds']} seeds" if point["seeds"] > 1 else "",
    ]
    lines = [
        f"<b>{name}</b>",
        *(label(one) for one in PARAMETER.split(point["params"])[:MAX_PARAMETERS] if one),
        " · ".join(filter(None, settings)),
        f"{point['tokens']:.4g} of {point['patches']:.0f} patch tokens left",
        f"error {100 * point['error']:.1f} % ±{100 * point['half']:.1f}",
    ]
    return "<br>".join(lines)
