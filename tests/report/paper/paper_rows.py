"""Made-up rows of a comparison, and ways to read the figures and tables made from them."""

import itertools
import re
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from tokbench.report.paper.figure import MARKERS, figure
from tokbench.report.paper.rows import figure_points, select_rows
from tokbench.results import COLUMNS
from tokbench.results.columns import TYPES

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    r"$\frac{$",
    "%_&#",
    "a|b",
    "<script>alert(1)</script>",
    r"\input{x}~^",
    "*bold*",
    "[1ex]",
    "`code` @me !",
    "名",
]
LONG = "endless" * 1400


def row(method="none", keep=1.0, **given):
    """A plausible row for DeiT-Ti."""
    plain = method == "none"
    gmacs = 1.2537 * (0.3 + 0.7 * keep)
    drop = 18 * (1 - keep) ** 1.5
    values = {
        **{"model": "deit_tiny_patch16_224", "method": method, "params": "", "regime": "off-the-shelf"},
        **{"site": "" if plain else "after_attention", "schedule": "" if plain else "stages(at=3-6-9)"},
        **{"keep": keep, "device": "cpu", "dtype": "fp32", "batch_size": 32, "compiled": False, "mode": "eager"},
        **{"attention_kernel": "fused", "status": "ok", "reason": "", "gmacs": gmacs, "gmacs_method": 0.013},
        **{"gmacs_saved": 100 * (1 - gmacs / 1.2537), "latency_ms": 10 * gmacs, "latency_ms_lo": 9.8 * gmacs},
        **{"latency_ms_hi": 10.1 * gmacs, "speedup": 1.25 / gmacs, "speedup_lo": 1.2 / gmacs, "pareto": plain},
        **{"pareto_time": plain, "best_at_compute": False},
        **{"speedup_hi": 1.3 / gmacs, "verdict": "SAME" if plain else "FASTER", "top1": 72.4 - drop, "images": 500},
        **{"top1_lo": 68.5 - drop, "top1_hi": 76.1 - drop, "delta_top1": -drop, "delta_lo": -drop - 0.8},
        "delta_hi": -drop + 0.7,
    }
    return values | given


def lost(method, **given):
    return row(method, 0.7, **{"status": "failed", "reason": "RuntimeError: out of memory", "top1": 99.9} | given)


def table(*rows):
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS)).astype(TYPES)


def comparison():
    """Two methods at two keeps, one of them with two seeds, and one that failed.

    Two rows are on the Pareto front, one of them and another are the best at equal compute.
    """
    return table(
        row(),
        *(row("tome", keep, pareto=keep == 0.5, best_at_compute=True) for keep in (0.5, 0.7)),
        *(
            row("random_selection", keep, seed=seed, top1=50 + seed, top1_lo=45, top1_hi=55)
            for keep in (0.9, 0.7)
            for seed in (0, 2)
        ),
        lost("dpc_knn"),
    )


def timed():
    modes = itertools.product((8, 256), ("eager", "compile"))
    return table(*(row(*what, batch_size=size, mode=mode) for size, mode in modes for what in ((), ("tome", 0.7))))


def of_all_kinds():
    names = [row(name, 0.7, best_at_compute=name == "a|b") for name in HOSTILE]
    return table(row(), *names, row(LONG, 0.5), *comparison().iloc[1:].to_dict("records"))


def drawn(rows, x="gmacs", width=3.3, **asked):
    """The figure and its panels."""
    picture = figure(figure_points(select_rows(rows, **asked), x), x, width)
    return picture, picture.axes


def laid_out(rows, **settings):
    """The figure and its panels after layout."""
    picture, panels = drawn(rows, **settings)
    picture.draw_without_rendering()
    return picture, panels


def texts(svg):
    return ["".join(element.itertext()) for element in ElementTree.parse(svg).iter(f"{SVG}text")]


def marks(svg):
    """The number of markers inside panels, which are clipped, unlike ticks and those in the legend."""
    groups = ElementTree.parse(svg).iter(f"{SVG}g")
    return sum(len(group.findall(f"{SVG}use")) for group in groups if "clip-path" in group.attrib)


def curves(panel):
    """The points of each method's line, without the plain model and the rings."""
    lines = [line for line in panel.lines if line.get_marker() in MARKERS.values()]
    return [np.column_stack(line.get_data()) for line in lines if line.get_markerfacecolor() != "none"]


def tex_table(text):
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")].replace("\\toprule\n", "")
    head, rows = body.split("\\midrule\n")
    # A heading above a number and its interval is the number's.
    head = re.sub(r"\\multicolumn\{2\}\{c\}\{(.*?)\}(?= [&\\])", r"\1 & \1 interval", head)
    cells = [re.split(r"(?<!\\)&", line) for line in (head + rows).split("\\\\\n")[:-1]]
    return [[cell.strip() for cell in line] for line in cells]
