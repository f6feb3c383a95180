"""Made-up rows of a comparison, and ways to read what a chart shows."""

import json
from functools import cache

import pandas as pd

from tokbench.config import load_config
from tokbench.published.claims import beside
from tokbench.registry import discover
from tokbench.report.charts.accuracy import accuracy_by_compute, accuracy_by_latency
from tokbench.report.charts.cost import crossover_map, macs_split, tokens_per_block
from tokbench.report.charts.published import published_and_measured as draw_published
from tokbench.results import COLUMNS, MethodInfo, Plan
from tokbench.results.columns import TYPES
from tokbench.run.method_info import infos
from tokbench.vit.models import full_name

SMALL = "deit_small_patch16_224"

TIMES = [
    "latency_ms",
    "latency_ms_lo",
    "latency_ms_hi",
    "images_per_s",
    "speedup",
    "speedup_lo",
    "speedup_hi",
    "verdict",
]
ACCURACIES = ["top1", "top5", "images", "top1_lo", "top1_hi", "delta_top1", "delta_lo", "delta_hi"]
COUNTS = ["tokens_per_block", "gmacs", "gmacs_method", "gmacs_saved"]


def row(method="none", keep=1.0, **given):
    """A plausible row for DeiT-S: MACs, times and accuracy fall with keep."""
    left = keep or 0.6  # if the schedule fixes the counts
    gmacs = 4.599 * (0.3 + 0.7 * left)
    speedup = 4.599 / gmacs
    counts = [196] * 3 + [round(196 * left)] * 9
    values = dict.fromkeys(COLUMNS) | {
        **{"model": SMALL, "method": method, "params": "", "regime": "off-the-shelf", "status": "ok", "mode": "eager"},
        **{"site": "after_attention", "schedule": "stages(at=3-6-9)", "device": "cpu", "dtype": "fp32"},
        **{"keep": keep, "batch_size": 32, "compiled": False, "pareto": False, "reason": ""},
        **{"tokens_per_block": " ".join(map(str, counts)), "gmacs": gmacs, "gmacs_method": 0.01 * (1 - left)},
        **{"gmacs_saved": 100 * (1 - gmacs / 4.599), "latency_ms": 50 / speedup, "latency_ms_lo": 49 / speedup},
        **{
            "latency_ms_hi": 52 / speedup,
            "speedup": speedup,
            "speedup_lo": 0.98 * speedup,
            "speedup_hi": 1.03 * speedup,
        },
        **{"verdict": "FASTER", "top1": 80 * left**0.1, "top1_lo": 80 * left**0.1 - 2, "top1_hi": 80 * left**0.1 + 1},
        **{"images": 500, "delta_top1": -2.0, "delta_lo": -3.0, "delta_hi": -1.0},
    }
    if method == "none":
        values |= {"schedule": "", "site": "", "verdict": "SAME"}
    return values | given


def table(*rows):
    return pd.DataFrame(list(rows), columns=list(COLUMNS)).astype(TYPES)


TOME = {"method": "tome", "params": "proportional=true", "schedule": "every_block(r=13)", "keep": None}


def failed(method, keep=0.7, **given):
    measured = dict.fromkeys([*TIMES, *ACCURACIES, *COUNTS])
    return row(method, keep, **{**measured, "status": "failed", "reason": "out of memory", **given})


def small():
    return table(row(), *(row(method, keep) for method in ("tome", "evit") for keep in (0.9, 0.7)), failed("ats"))


def comparison():
    """Two batch sizes and two modes, a stochastic method, and one that failed."""
    rows = []
    for batch, mode, gain in ((1, "eager", 0.7), (256, "eager", 1.0), (256, "compile", 1.1)):
        given = {"batch_size": batch, "mode": mode, "compiled": mode == "compile"}
        rows.append(row(**given, latency_ms=50.0 * batch))
        for method in ("tome", "evit"):
            for keep in (0.9, 0.7, 0.5):
                one = row(method, keep, **given)
                speedup = one["speedup"] * gain
                verdict = "FASTER" if speedup > 1.1 else "SLOWER" if speedup < 1 else "AMBIGUOUS"
                rows.append(one | {"speedup": speedup, "latency_ms": 50 * batch / speedup, "verdict": verdict})
        rows += [row("random_selection", 0.7, seed=seed, top1=70.0 + seed, **given) for seed in (0, 1, 2)]
        rows.append(failed("ats", **given))
    return table(*rows)


def content(figure):
    """The figure as the page reads it from strict JSON."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(figure.to_json(), parse_constant=refuse)


def trace(figure, name):
    (found,) = [one for one in figure.data if one.name == name and one.showlegend is not False]
    return found


def drawn(one):
    """A trace's points, rounded to compare them as sets."""
    return {(round(x, 6), round(y, 6)) for x, y in zip(one.x, one.y, strict=True)}


def entries(figure):
    """The entries of a menu: name, and the data that it sets."""
    (menu,) = figure.layout.updatemenus
    return {button.label: button.args for button in menu.buttons}


@cache
def _methods() -> dict[str, MethodInfo]:
    return infos(discover()[0].values())


def published_and_measured(rows):
    """The chart of published numbers, as the page draws it for a finished comparison."""
    models = {model: full_name(model) for model in rows["model"].unique()}
    plan = Plan(load_config().suite("embedded", {}), "cpu", None, (), _methods(), models)
    return draw_published(rows, beside(rows, plan))


ALL = [
    *(accuracy_by_compute, accuracy_by_latency, crossover_map, tokens_per_block),
    *(macs_split, published_and_measured),
]
