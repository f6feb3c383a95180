"""Made-up rows that form curves, and the readings of a single curve."""

import pandas as pd
import pytest

from tokbench.report.html.headlines import at_equal, headlines

TIMES = "\N{MULTIPLICATION SIGN}"
SETTINGS = {
    "model": "deit",
    "params": "",
    "regime": "off-the-shelf",
    "site": "after_attention",
    "schedule": "stages(at=3-6-9)",
    "seed": None,
    "compiled": False,
    "batch_size": 8,
    "mode": "eager",
    "status": "ok",
    "noise_floor": 0.0,
}


def row(keep, saved, delta, speedup, verdict="FASTER", wide=1.0, **given_):
    """A row with an interval of ±`wide` points for the difference and ±5 % for the speedup."""
    timed = speedup is not None
    return {
        **{**SETTINGS, "method": "tome", "keep": keep, "gmacs_saved": saved, "delta_top1": delta},
        "delta_lo": None if delta is None else delta - wide,
        "delta_hi": None if delta is None else delta + wide,
        **{"speedup": speedup, "verdict": verdict if timed else ""},
        "speedup_lo": speedup * 0.95 if timed else None,
        "speedup_hi": speedup * 1.05 if timed else None,
        **given_,
    }


def plain(**given_):
    return row(1.0, 0.0, 0.0, 0.97, "SAME", **{"method": "none", "schedule": "", "site": "", **given_})


def table(*rows):
    return pd.DataFrame([plain(), *rows])


def one(*rows, **asked):
    """The only row of `at_equal`."""
    (only,) = at_equal(table(*rows), **asked).to_dict("records")
    return only


def spread(read, name):
    return [read[f"{name}{end}"] for end in ("_lo", "", "_hi")]


def same(read, other):
    return read == pytest.approx(other, nan_ok=True)


def sentence(*rows, **asked):
    (only,) = headlines(table(*rows), **asked)
    return only.text.replace(TIMES, "x")
