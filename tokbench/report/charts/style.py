"""The common look of all charts: colours, fonts, escaped texts, and the menu that switches between views.

Backgrounds are transparent, and greys are readable on white and on black, so that charts fit both themes of the page.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

# The palette of Okabe and Ito, which colour-blind readers can distinguish, without black and yellow: each is invisible
# in one of the themes.
SERIES_COLOURS = ("0, 114, 178", "230, 159, 0", "0, 158, 115", "213, 94, 0", "86, 180, 233", "204, 121, 167")
# 7 symbols and 6 colours have no common divisor, so the first 42 series all differ.
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "x")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")

GREY = "rgb(128, 128, 128)"
FAINT = "rgba(128, 128, 128, 0.22)"
CLEAR = "rgba(0, 0, 0, 0)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

# Characters: two legend columns on a phone, and half of its width for the names beside an axis.
MAX_LABEL = 36
MAX_TICK_LABEL = 26

HEIGHT = 560  # pixels of a chart whose height does not depend on its content; the legend takes up to half
HOVER = "%{hovertext}<extra></extra>"
PLAIN_LABEL = "plain model"

CONFIG: Mapping[str, Any] = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtons": [["toImage", "resetScale2d"]],
    "toImageButtonOptions": {"format": "svg"},
}
"""The configuration for plotly.js: the last argument of `Plotly.newPlot`, or `config` of `to_html`."""

LAYOUT: Mapping[str, Any] = {
    "template": "none",
    "paper_bgcolor": CLEAR,
    "plot_bgcolor": CLEAR,
    "font": {"family": FONT, "size": 13, "color": GREY},
    "hovermode": "closest",
    "hoverlabel": {
        **{"align": "left", "bgcolor": "rgb(32, 34, 38)"},
        "font": {"family": FONT, "size": 12, "color": "rgb(245, 245, 245)"},
    },
    "modebar": {"bgcolor": CLEAR, "color": GREY},
    "showlegend": True,
    "legend": {  # horizontal, along the lower edge
        **{"orientation": "h", "traceorder": "grouped", "tracegroupgap": 2},
        **{"xref": "container", "x": 0, "xanchor": "left", "yref": "container", "y": 0, "yanchor": "bottom"},
        **{"bgcolor": CLEAR, "font": {"size": 12}},
    },
}
AXIS: Mapping[str, Any] = {
    **{"gridcolor": FAINT, "linecolor": GREY, "tickcolor": FAINT, "ticks": "outside", "zeroline": False},
    **{"automargin": True, "title": {"standoff": 8}},
}

# The data of a trace that a menu entry replaces; everything else is the same in all views.
SWITCHED = (
    *("x", "y", "z", "base", "text", "textfont.color", "hovertext"),
    *(f"error_{axis}.{side}" for axis in "xy" for side in ("array", "arrayminus")),
)


@dataclass(frozen=True)
class Style:
    """The look of a series in every chart; `colour` is "red, green, blue"."""

    colour: str
    symbol: str
    dash: str
    size: int = 8

    def rgba(self, opacity: float = 1) -> str:
        """The colour in plotly's notation."""
        return f"rgba({self.colour}, {opacity:g})"

    def line_and_marker(self) -> dict[str, Any]:
        """The `line` and `marker` of a trace."""
        colour = self.rgba()
        return {
            "line": {"color": colour, "width": 1.5, "dash": self.dash},
            "marker": {"color": colour, "symbol": self.symbol, "size": self.size},
        }


PLAIN_STYLE = Style("128, 128, 128", "star", "solid", size=14)
FEWER_PIXELS_STYLE = Style("128, 128, 128", "star", "dash")


@dataclass(frozen=True)
class View:
    """What one entry of a chart's menu shows.

    Attributes:
        name: Its name in the menu, already escaped.
        traces: As many, and of the same types, in all views of a chart.
        layout: Layout changes by plotly's paths: `{"xaxis.title.text": "ms"}`.
    """

    name: str
    traces: Sequence[Any]
    layout: Mapping[str, Any] = field(default_factory=dict)


def series_styles(names: Iterable[str]) -> dict[str, Style]:
    """A style for each series; the same names in the same order always get the same styles."""
    colours, symbols = itertools.cycle(SERIES_COLOURS), itertools.cycle(SYMBOLS)
    dashes = itertools.cycle([dash for dash in DASHES for _ in SERIES_COLOURS])  # changes after each cycle of colours
    looks = map(Style, colours, symbols, dashes)
    return dict(zip(names, looks, strict=False))


def label(text: str, longest: int = MAX_LABEL) -> str:
    """A text for a chart, with markup escaped; long ones are cut in the middle, as names often differ at their ends."""
    if len(text) > longest:
        tail = longest // 3
        text = f"{text[: longest - tail - 1]}…{text[-tail:]}"
    return html.escape(text, quote=False)


def json_numbers(numbers: Iterable[float]) -> list[float | None]:
    """Numbers for JSON: missing and infinite ones become None."""
    return [float(value) if math.isfinite(value) else None for value in numbers]


def hover_settings(texts: Iterable[str], look: Style) -> dict[str, Any]:
    """The hover texts of a trace's points."""
    return {"hovertext": list(texts), "hovertemplate": HOVER, "hoverlabel": {"bordercolor": look.rgba()}}


def reference_line(axis: str, value: float) -> dict[str, Any]:
    """A dotted line across the plot at a value on `axis`, x or y."""
    other = "y" if axis == "x" else "x"
    ends = {f"{axis}0": value, f"{axis}1": value, f"{other}0": 0, f"{other}1": 1, f"{other}ref": "paper"}
    return {"type": "line", "layer": "below", "line": {"color": GREY, "width": 1, "dash": "dot"}, **ends}


def make_figure(views: Sequence[View], height: int, shown: int = 0, **layout: Any) -> go.Figure:
    """A figure with one or more views; several views get a menu.

    Args:
        views: At least one.
        height: Pixels; the legend takes up to half of them.
        shown: The index of the view that is shown first.
        layout: Further plotly layout: axes, shapes.
    """
    figure = go.Figure(list(views[shown].traces))
    for index, trace in enumerate(figure.data):
        # Entries without a group are laid out in columns as wide as the widest entry: one column on a phone.
        trace.legendgroup = trace.legendgroup or str(index)
    figure.update_layout(
        **LAYOUT,
        height=height,
        margin={"l": 8, "r": 12, "t": 16 if len(views) == 1 else 56, "b": 8},
        updatemenus=[_menu(views, shown)] if len(views) > 1 else [],
    )
    figure.update_layout(**layout)
    figure.update_xaxes(**AXIS)
    figure.update_yaxes(**AXIS)
    figure.plotly_relayout(dict(views[shown].layout))
    return figure


def _menu(views: Sequence[View], shown: int) -> dict[str, Any]:
    """A menu above the plot on the left. Plotly gives open entries a light background, so its text is always dark."""
    return {
        "buttons": [{"label": view.name, "method": "update", "args": _update(view)} for view in views],
        "active": shown,
        **{"x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": 10}},
        **{"bgcolor": "rgb(240, 240, 240)", "bordercolor": GREY, "font": {"color": "rgb(40, 40, 40)"}},
    }


def _update(view: View) -> list[dict[str, Any]]:
    """The data and layout of a view. Visibility is not changed: series hidden in the legend stay hidden."""
    paths = [path for path in SWITCHED if any(path in trace for trace in view.traces)]
    return [{path: [_data(trace, path) for trace in view.traces] for path in paths}, dict(view.layout)]


def _data(trace: Any, path: str) -> Any:
    """A trace's data at a path; None if its type has no such path, where indexing would raise."""
    if path not in trace:
        return None
    return trace[path]
