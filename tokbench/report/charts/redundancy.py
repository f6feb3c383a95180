"""Charts of redundancy: whether attention is a low-pass filter, and how well few tokens stand for all of them.

Each takes a results directory and gives None where nothing of its matter was measured: `tokbench compare --analyse`
measures it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from tokbench.measure.redundancy import HIGH
from tokbench.report.charts.points import complete, curves
from tokbench.report.charts.style import COLOURS, HOVER, Style, View, chart, label, styles, told_by, values
from tokbench.report.digits import Line
from tokbench.report.labels import PARAMETER, word
from tokbench.results.table import read_reconstruction, read_spectra, read_table

HEIGHT = 620

WITHOUT = Style(COLOURS[1], "square", "dash")
MIXED = Style(COLOURS[0], "circle", "solid")
# Blue is let through less, orange more: told apart by the colour-blind, and light in between on either ground.
GAIN_COLOURS = [[0, "rgb(5, 95, 160)"], [0.5, "rgb(244, 244, 244)"], [1, "rgb(179, 88, 6)"]]
LEAST_SPAN = 3.0  # decibels: of the gain's colours on either side, where no gain is further from 0

SURE = 1.96  # standard errors on either side of a mean: 95 %

MOST_PARAMETERS = 8  # told of a point, a line each

KEYS = ["method", "params", "regime", "site", "schedule"]


def spectrum_chart(directory: Path) -> go.Figure | None:
    """The share of high frequencies in each block's values without and with attention, above what it lets through.

    The lower part is the gain at each frequency: the energy of A V divided by the energy of V, in decibels. There is a
    view for each model.

    Args:
        directory: What `tokbench compare` wrote.

    Raises:
        UserError: The directory holds no plan.
    """
    measured = read_spectra(directory)
    if measured.empty:
        return None
    measured["decibels"] = 10 * np.log10(measured["gain"].where(measured["gain"] > 0))
    span = max(LEAST_SPAN, measured["decibels"].abs().max())
    views = []
    for model, rings in measured.groupby("model", sort=False):
        shares = _shares(rings)
        lower = f"attention lowers the share in {(shares['after'] < shares['before']).sum()} of {len(shares)}"
        lines = _line(shares, "before", "values V", WITHOUT), _line(shares, "after", "mixed by attention, A V", MIXED)
        views.append(View(label(str(model)), [*lines, _gains(rings, span)], {"xaxis.title.text": f"block ({lower})"}))
    return chart(
        views,
        HEIGHT,
        xaxis={"anchor": "y2", "dtick": 1 if measured["depth"].max() < 16 else None, "showgrid": False, "tickangle": 0},
        yaxis={"title": {"text": "energy above half of Nyquist (%)"}, "rangemode": "tozero", "domain": [0.52, 1]},
        yaxis2={
            **{"title": {"text": "frequency (of Nyquist)"}, "domain": [0, 0.46]},
            **{"type": "category", "showgrid": False},
        },
    )


def reconstruction_chart(directory: Path) -> go.Figure | None:
    """The reconstruction error against the patch tokens left, a line for each series, a view for each block.

    Every reduction starts from the plain model's tokens (see `tokbench.measure.redundancy`). A point is the mean over
    images and seeds, its bar the 95 % interval over images.

    Args:
        directory: What `tokbench compare` wrote.

    Raises:
        UserError: The directory holds no plan.
    """
    measured = read_reconstruction(directory)
    if measured.empty:
        return None
    table = read_table(directory)
    several = measured["model"].nunique() > 1
    parts: list[pd.DataFrame] = []
    names: dict[str, None] = {}
    for model, part in measured.groupby("model", sort=False):
        rows = complete(table[table["model"] == model])
        parts.append(_points(part, rows).assign(model=model))
        names |= dict.fromkeys(curves(rows))
    drawn = pd.concat(parts)
    looks = styles(names)
    views = []
    for (owner, depth), part in drawn.groupby(["model", "depth"], sort=False):
        lines = [_curve(part[part["series"] == name], label(name), look) for name, look in looks.items()]
        title = f"{label(str(owner))}, block {depth}" if several else f"block {depth}"
        views.append(View(title, lines, {f"{axis}axis.autorange": True for axis in "xy"}))
    return chart(
        views,
        HEIGHT,
        xaxis={"title": {"text": "patch tokens left (%)"}},
        yaxis={"title": {"text": "reconstruction error (% of the tokens' variance)"}, "rangemode": "tozero"},
    )


def _shares(rings: pd.DataFrame) -> pd.DataFrame:
    """By depth, the percentages of the energy above half of Nyquist, and as `NAME_varying` those not in the mean."""
    high = rings[rings["frequency"] > HIGH].groupby("depth")[["before", "after"]].sum()
    varying = rings[rings["frequency"] > 0].groupby("depth")[["before", "after"]].sum()
    return 100 * high.join(varying.add_suffix("_varying"))


def _line(shares: pd.DataFrame, side: str, name: str, look: Style) -> Any:
    told = [
        f"<b>block {depth}</b><br>"
        f"above half of Nyquist: {line['before']:.1f} % → {line['after']:.1f} %<br>"
        f"not in the mean: {line['before_varying']:.1f} % → {line['after_varying']:.1f} %"
        for depth, line in shares.iterrows()
    ]
    data: dict[str, Any] = {"x": list(shares.index), "y": values(shares[side])}
    return go.Scatter(**data, **told_by(told, look), **look.drawn(), name=name, mode="lines+markers")


def _gains(rings: pd.DataFrame, span: float) -> Any:
    """Blocks from left to right, frequencies from the mean upwards; the colours reach `span` decibels each way."""
    told = [
        f"<b>block {line['depth']}, {_where(line['frequency'], ' of Nyquist')}</b><br>"
        f"of the energy: {100 * line['before']:.2f} % → {100 * line['after']:.2f} %<br>"
        f"gain: {line['decibels']:+.1f} dB"
        for line in rings.to_dict("records")
    ]
    cells = rings.assign(told=told).pivot(index="frequency", columns="depth")
    grid = cells["decibels"]
    data: dict[str, Any] = {
        "x": list(grid.columns),
        "y": [_where(frequency) for frequency in grid.index],
        "z": [values(line) for line in grid.to_numpy()],
        "hovertext": cells["told"].to_numpy().tolist(),
    }
    bar: dict[str, Any] = {"title": {"text": "gain<br>(dB)"}, "thickness": 10, "outlinewidth": 0}
    bar |= {"len": 0.46, "y": 0, "yanchor": "bottom"}
    colours: dict[str, Any] = {"colorscale": GAIN_COLOURS, "zmin": -span, "zmax": span, "colorbar": bar}
    return go.Heatmap(**data, **colours, hovertemplate=HOVER, yaxis="y2")


def _where(frequency: float, unit: str = "") -> str:
    return f"{frequency:.2f}{unit}" if frequency else "mean"


def _points(measured: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """One line for each series, schedule, keep and depth of one model: what its seeds have in common, and their mean.

    Args:
        measured: The model's reconstruction errors.
        rows: Its rows of the table, as `complete` gives them.
    """
    known = rows.assign(**{name: rows[name].map(word) for name in KEYS})[[*KEYS, "series"]].drop_duplicates(KEYS)
    texts = measured.assign(**{name: measured[name].map(word) for name in KEYS}).merge(known, on=KEYS)
    half = SURE * texts["error_sd"] / np.sqrt(texts["images"])
    cells = texts.assign(half=half).groupby(["series", *KEYS, "keep", "depth"], sort=False, dropna=False)
    drawn = cells[["tokens", "patches", "error", "half"]].mean()
    drawn["seeds"] = cells["seed"].nunique()
    return drawn.reset_index()


def _curve(drawn: pd.DataFrame, name: str, look: Style) -> Any:
    ordered = drawn.sort_values("tokens")
    data: dict[str, Any] = {
        "x": values(100 * ordered["tokens"] / ordered["patches"]),
        "y": values(100 * ordered["error"]),
    }
    bars = {"array": values(100 * ordered["half"]), "color": look.paint(0.35), "thickness": 1, "width": 0}
    told = [_tell(line, name) for line in ordered.to_dict("records")]
    return go.Scatter(**data, **told_by(told, look), **look.drawn(), error_y=bars, name=name, mode="lines+markers")


def _tell(line: Line, name: str) -> str:
    settings = [
        f"keep {word(line['keep'])}" if word(line["keep"]) else "",
        *(label(line[setting]) for setting in ("schedule", "site")),
        f"{line['seeds']} seeds" if line["seeds"] > 1 else "",
    ]
    told = [
        f"<b>{name}</b>",
        *(label(one) for one in PARAMETER.split(line["params"])[:MOST_PARAMETERS] if one),
        " · ".join(filter(None, settings)),
        f"{line['tokens']:.4g} of {line['patches']:.0f} patch tokens left",
        f"error {100 * line['error']:.1f} % ±{100 * line['half']:.1f}",
    ]
    return "<br>".join(told)
