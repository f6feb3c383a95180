"""A comparison as a figure for a paper: top-1 against compute or time, one panel for each model.

If all methods of every model cost the same (`--schedule 'budget(0.7)'`), their points would overlap on a cost axis:
they are ranked by top-1 instead, each on its own line.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from tokbench.files import write_atomically
from tokbench.names import EAGER
from tokbench.report.charts.style import PLAIN_LABEL, Style, series_styles
from tokbench.report.labels import cell_text
from tokbench.stats.pareto import EQUAL_COST

COLUMN_WIDTH = 3.3  # inches: one of two columns in the layouts of CVPR, ICML and IEEE

SAME_COST = 2 * EQUAL_COST  # of budgets, which are met to within EQUAL_COST on either side

STYLE: dict[str, Any] = {
    # Like the Times of most papers. The first and the last come with matplotlib; SVG viewers may lack the first.
    "font.family": ["serif", "DejaVu Sans"],
    "font.serif": ["STIXGeneral", "Times New Roman", "Times"],
    "font.size": 8,
    **dict.fromkeys(("axes.titlesize", "axes.labelsize", "legend.fontsize"), 8),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), 8),
    "text.parse_math": False,  # names may contain a $
    "axes.formatter.limits": (-9, 9),
    "axes.formatter.useoffset": False,
    **dict.fromkeys(("axes.spines.top", "axes.spines.right"), False),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 2.5),
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "lines.linewidth": 0.9,
    "lines.markersize": 4,
    "lines.markeredgewidth": 0,
    "legend.frameon": False,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # TrueType, as many publishers reject Type 3 fonts
    "svg.fonttype": "none",
    "svg.hashsalt": "tokbench",
}
# Leave out time stamps, so that the same points give the same bytes.
METADATA: dict[str, dict[str, Any]] = {".pdf": {"CreationDate": None}, ".svg": {"Date": None}, ".png": {}}
ENDINGS = tuple(METADATA)

# The styles of the page in matplotlib's notation.
MARKERS = dict(zip("circle square diamond triangle-up cross triangle-down x".split(), "osD^PvX", strict=True))
DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-.", "longdash": (0, (8, 3))}
INK = "0.15"
PLAIN_LINE: dict[str, Any] = {"color": INK, "linestyle": "--", "linewidth": 0.8}
STAR: dict[str, Any] = {"color": INK, "marker": "*", "markersize": 8}
RING: dict[str, Any] = {
    **{"linestyle": "none", "marker": "o", "markersize": 7},
    **{"markerfacecolor": "none", "markeredgecolor": INK, "markeredgewidth": 0.7},
}
BAR: dict[str, Any] = {"linestyle": "none", "color": "0.5", "markersize": 8, "markeredgewidth": 0.7}
RANKED = "#0072b2"

# Inches.
NARROWEST_PANEL = 2.2
PANEL_SHAPE = {False: 0.72, True: 1.0}  # height divided by width, with few series and with many
TALLEST = 3.6
TITLE = 0.8  # share of a panel's width; the rest is for its tick labels
RANK_HEIGHT = 0.15
FRAME_HEIGHT = 0.65  # title, axis title and tick labels of a ranking

MANY = 8
MOST_LEGEND_COLUMNS = 6
CHARACTERS_PER_INCH = 15  # of 8-point text beside a legend marker


def figure(points: pd.DataFrame, x: str, width: float = COLUMN_WIDTH) -> Figure:
    """Draw a comparison.

    Args:
        points: What `tokbench.report.paper.rows.figure_points` gives.
        x: The column of the horizontal axis, as given to `figure_points`.
        width: Of the figure, in inches; the height depends on the content.
    """
    models = list(points.groupby("model", sort=False))
    ranked = all(_same_cost(block, x) for _, block in models)
    looks = {} if ranked else series_styles(dict.fromkeys(points.loc[~points["plain"], "series"]))
    columns = min(len(models), max(1, int(width / NARROWEST_PANEL)))
    lines = math.ceil(len(models) / columns)
    with style.context(STYLE, after_reset=True):
        picture = Figure(figsize=(width, width), layout="constrained")
        panels = list(picture.subplots(lines, columns, squeeze=False).flat)
        for panel, (model, block) in zip(panels, models, strict=False):
            panel.set_title(_wrapped(cell_text(model), TITLE * width / columns))
            if ranked:
                _draw_ranking(panel, block, x, room=width / columns / 2)
            else:
                _draw_curves(panel, block, x, looks)
        for panel in panels[len(models) :]:
            panel.remove()
        legend = _legend(picture, _entries(points, looks), width)
        most = max(len(block) for _, block in models)
        shape = min(TALLEST, PANEL_SHAPE[len(looks) > MANY] * width / columns)
        height = FRAME_HEIGHT + RANK_HEIGHT * most if ranked else shape
        picture.set_size_inches(width, lines * height + legend.get_window_extent().height / picture.dpi)
    return picture


def save(picture: Figure, out: Path) -> None:
    """Write a figure in the format of the file's extension; the same points give the same bytes.

    Args:
        picture: What `figure` gives.
        out: The file; its extension is one of `ENDINGS`.

    Raises:
        OSError: The file cannot be written.
    """
    ending = out.suffix.lower()
    with style.context(STYLE, after_reset=True):
        write_atomically(out, lambda path: picture.savefig(path, format=ending[1:], metadata=METADATA[ending]))


def _same_cost(block: pd.DataFrame, x: str) -> bool:
    """Whether there are several methods and their costs are practically equal."""
    costs = block.loc[~block["plain"], x]
    return len(costs) > 1 and float(costs.max() - costs.min()) <= SAME_COST * float(costs.max())


def _draw_curves(panel: Axes, block: pd.DataFrame, x: str, looks: Mapping[str, Style]) -> None:
    """Draw top-1 against the cost, a line for each series."""
    for name, curve in block[~block["plain"]].groupby("series", sort=False):
        curve, look = curve.sort_values(["keep", x]), _matplotlib_style(looks[str(name)])
        bars = {
            "xerr": _error_bar_lengths(curve, x),
            "yerr": _error_bar_lengths(curve, "top1"),
            "ecolor": look["color"],
        }
        panel.errorbar(curve[x], curve["top1"], **bars, fmt="none", elinewidth=0.5, alpha=0.4, zorder=2)
        panel.plot(curve[x], curve["top1"], **look, zorder=3)
    for one in block[block["plain"]].to_dict("records"):
        panel.axhline(one["top1"], **PLAIN_LINE, zorder=1)
        panel.plot(one[x], one["top1"], **STAR, zorder=4)
    best = block[block["front"]]
    panel.plot(best[x], best["top1"], **RING, zorder=5)
    panel.set_xlabel(_cost_label(block, x))
    panel.set_ylabel("top-1 (%)")


def _draw_ranking(panel: Axes, block: pd.DataFrame, x: str, room: float) -> None:
    """Draw the top-1 of methods that cost the same, the best on top."""
    rows = block[~block["plain"]].sort_values("top1", kind="stable").reset_index(drop=True)
    panel.errorbar(
        rows["top1"],
        rows.index,
        xerr=_error_bar_lengths(rows, "top1"),
        fmt="none",
        ecolor=RANKED,
        elinewidth=0.7,
        alpha=0.5,
    )
    panel.plot(rows["top1"], rows.index, color=RANKED, marker="o", linestyle="none", zorder=3)
    for top1 in block.loc[block["plain"], "top1"]:
        panel.axvline(top1, **PLAIN_LINE, zorder=1)
    best = rows[rows["front"]]
    panel.plot(best["top1"], best.index, **RING, zorder=5)
    panel.set_yticks(list(rows.index), [_wrapped(name, room, lines=1) for name in rows["series"]])
    panel.set_ylim(-0.7, len(rows) - 0.3)
    panel.grid(axis="y", visible=False)
    panel.set_xlabel(f"top-1 (%) at {rows[x].mean():.3g} {_cost_label(block, x)}")


def _cost_label(block: pd.DataFrame, x: str) -> str:
    if x == "gmacs":
        return "GMACs per image"
    batch = " or ".join(map(str, sorted(block["batch_size"].unique())))
    mode = " or ".join(block["mode"].unique())
    name = "latency (ms)" if x == "latency_ms" else "speedup over the plain model"
    return f"{name}, batch {batch}" + ("" if mode == EAGER else f", {mode}")


def _error_bar_lengths(rows: pd.DataFrame, name: str) -> NDArray[np.float64]:
    """(2, points): the lengths of the interval below and above the estimate."""
    lengths = np.stack([rows[name] - rows[f"{name}_lo"], rows[f"{name}_hi"] - rows[name]]).astype(np.float64)
    # Rounding in a mean over seeds may put a number just outside its interval.
    return np.maximum(lengths, 0)


def _matplotlib_style(look: Style) -> dict[str, Any]:
    colour = tuple(int(part) / 255 for part in look.colour.split(","))
    return {"color": colour, "marker": MARKERS[look.symbol], "linestyle": DASHES[look.dash]}


def _entries(points: pd.DataFrame, looks: Mapping[str, Style]) -> list[tuple[str, Line2D]]:
    """The legend's entries, for what the figure contains."""
    entries = [(name, Line2D([], [], **_matplotlib_style(look))) for name, look in looks.items()]
    if points["plain"].any():
        mark = STAR if looks else {}
        entries.append((PLAIN_LABEL, Line2D([], [], **{**mark, **PLAIN_LINE})))
    if points["front"].any():
        entries.append(("Pareto", Line2D([], [], **RING)))
    if points[["top1_lo", "top1_hi"]].notna().all(axis=1).any():
        entries.append(("95 % interval", Line2D([], [], **BAR, marker="|" if looks else "_")))
    return entries


def _legend(picture: Figure, entries: Sequence[tuple[str, Line2D]], width: float) -> Legend:
    """The legend below the panels, with as many columns as fit."""
    tight: dict[str, Any] = {"columnspacing": 0.9, "handletextpad": 0.5, "handlelength": 1.6}
    tight |= {"labelspacing": 0.25, "borderpad": 0.2}
    marks = [mark for _, mark in entries]
    attempts = [
        (inches, n) for inches in (width, width / 2) for n in range(min(MOST_LEGEND_COLUMNS, len(marks)), 0, -1)
    ]
    for inches, columns in attempts:
        names = [_wrapped(name, inches) for name, _ in entries]
        legend = picture.legend(marks, names, loc="outside lower center", ncols=columns, **tight)
        if legend.get_window_extent().width <= picture.bbox.width or (inches, columns) == attempts[-1]:
            break
        legend.remove()
    return legend


def _wrapped(text: str, inches: float, lines: int = 3) -> str:
    """A text wrapped to a width in inches, cut after this many lines."""
    characters = max(8, int(CHARACTERS_PER_INCH * inches))
    most = characters * lines
    whole = text if len(text) <= most else f"{text[: most - 1]}…"
    return "\n".join(textwrap.wrap(whole, characters, max_lines=lines, placeholder="…"))
