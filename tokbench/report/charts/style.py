"""How all charts look: colours, greys that are read on white and on black, texts without markup, menus.

Backgrounds are transparent, so that a page's own shows through.
"""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import plotly.graph_objects as go

# Okabe and Ito's colours, told apart by the colour-blind, without black and yellow, which one of the themes hides.
COLOURS = ("0, 114, 178", "230, 159, 0", "0, 158, 115", "213, 94, 0", "86, 180, 233", "204, 121, 167")
# Their number has no divisor in common with the colours', so 42 series pass before a colour meets its symbol again.
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "triangle-down", "x")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")

GREY = "rgb(128, 128, 128)"
FAINT = "rgba(128, 128, 128, 0.22)"
CLEAR = "rgba(0, 0, 0, 0)"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"

# Characters: two columns of legend on a telephone, and half of its width for the names beside an axis.
LONGEST = 36
LONGEST_TICK = 26

HEIGHT = 560  # pixels of a chart whose height nothing else decides; a legend takes up to half
HOVER = "%{hovertext}<extra></extra>"
PLAIN_LABEL = "plain model"

CONFIG: Mapping[str, Any] = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtons": [["toImage", "resetScale2d"]],
    "toImageButtonOptions": {"format": "svg"},
}
"""What plotly.js is to be started with, as `Plotly.newPlot`'s last argument or `to_html`'s `config`."""

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
    "legend": {  # along the lower edge, entries one after another
        **{"orientation": "h", "traceorder": "grouped", "tracegroupgap": 2},
        **{"xref": "container", "x": 0, "xanchor": "left", "yref": "container", "y": 0, "yanchor": "bottom"},
        **{"bgcolor": CLEAR, "font": {"size": 12}},
    },
}
AXIS: Mapping[str, Any] = {
    **{"gridcolor": FAINT, "linecolor": GREY, "tickcolor": FAINT, "ticks": "outside", "zeroline": False},
    **{"automargin": True, "title": {"standoff": 8}},
}

# What the entries of a menu may change in a trace; all else is the same in each of them.
SWITCHED = (
    *("x", "y", "z", "base", "text", "textfont.color", "hovertext"),
    *(f"error_{axis}.{side}" for axis in "xy" for side in ("array", "arrayminus")),
)


@dataclass(frozen=True)
class Style:
    """How one series looks in every chart: `colour` is "red, green, blue"."""

    colour: str
    symbol: str
    dash: str
    size: int = 8

    def paint(self, opacity: float = 1) -> str:
        """The colour as plotly takes it."""
        return f"rgba({self.colour}, {opacity:g})"

    def drawn(self) -> dict[str, Any]:
        """Line and markers of a trace."""
        colour = self.paint()
        return {
            "line": {"color": colour, "width": 1.5, "dash": self.dash},
            "marker": {"color": colour, "symbol": self.symbol, "size": self.size},
        }


PLAIN_STYLE = Style("128, 128, 128", "star", "solid", size=14)


@dataclass(frozen=True)
class View:
    """What one entry of a chart's menu shows.

    Attributes:
        name: What the menu calls it; markup is escaped already.
        traces: As many, and of the same kinds, in all views of a chart.
        layout: What it changes beside them, by plotly's paths: `{"xaxis.title.text": "ms"}`.
    """

    name: str
    traces: Sequence[Any]
    layout: Mapping[str, Any] = field(default_factory=dict)


def styles(names: Iterable[str]) -> dict[str, Style]:
    """A look for each series, the same wherever they come in the same order."""
    colours, symbols = itertools.cycle(COLOURS), itertools.cycle(SYMBOLS)
    dashes = itertools.cycle([dash for dash in DASHES for _ in COLOURS])  # the next one when the colours are through
    looks = map(Style, colours, symbols, dashes)
    return dict(zip(names, looks, strict=False))


def label(text: str, longest: int = LONGEST) -> str:
    """A text for any place of a chart: cut in the middle, as names differ at their ends, and with markup escaped."""
    if len(text) > longest:
        tail = longest // 3
        text = f"{text[: longest - tail - 1]}…{text[-tail:]}"
    return html.escape(text, quote=False)


def values(numbers: Iterable[float]) -> list[float | None]:
    """Numbers as JSON has them: what is missing or infinite is None."""
    return [float(value) if math.isfinite(value) else None for value in numbers]


def told_by(texts: Iterable[str], look: Style) -> dict[str, Any]:
    """What a trace's points say when the reader points at them."""
    return {"hovertext": list(texts), "hovertemplate": HOVER, "hoverlabel": {"bordercolor": look.paint()}}


def reference(axis: str, value: float) -> dict[str, Any]:
    """A line across the plot at a value on `axis`, x or y."""
    other = "y" if axis == "x" else "x"
    ends = {f"{axis}0": value, f"{axis}1": value, f"{other}0": 0, f"{other}1": 1, f"{other}ref": "paper"}
    return {"type": "line", "layer": "below", "line": {"color": GREY, "width": 1, "dash": "dot"}, **ends}


def chart(views: Sequence[View], height: int, shown: int = 0, **layout: Any) -> go.Figure:
    """A figure of one or more views; where there are several, with a menu to choose among them.

    Args:
        views: At least one.
        height: Pixels, of which the legend takes up to half.
        shown: Which of the views comes first.
        layout: More of plotly's layout: axes, shapes.
    """
    figure = go.Figure(list(views[shown].traces))
    for place, trace in enumerate(figure.data):
        # Entries without a group stand in columns as wide as the widest: one column on a telephone.
        trace.legendgroup = trace.legendgroup or str(place)
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
    """Above the plot, left. Its open entries have plotly's own light ground, so its text is dark in both themes."""
    return {
        "buttons": [{"label": view.name, "method": "update", "args": _changes(view)} for view in views],
        "active": shown,
        **{"x": 0, "xanchor": "left", "y": 1, "yanchor": "bottom", "pad": {"b": 10}},
        **{"bgcolor": "rgb(240, 240, 240)", "bordercolor": GREY, "font": {"color": "rgb(40, 40, 40)"}},
    }


def _changes(view: View) -> list[dict[str, Any]]:
    """Data is changed, not visibility: what the reader hid in the legend stays hidden."""
    paths = [path for path in SWITCHED if any(path in trace for trace in view.traces)]
    return [{path: [_data(trace, path) for trace in view.traces] for path in paths}, dict(view.layout)]


def _data(trace: Any, path: str) -> Any:
    """A trace's data at that path; None where its kind has no such path, for which a trace would raise."""
    if path not in trace:
        return None
    return trace[path]
