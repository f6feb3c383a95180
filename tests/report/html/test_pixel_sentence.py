"""The half of a headline that compares a method with fewer pixels."""

import pandas as pd
import pytest
from curve_rows import plain, row

from tokbench.kinds.pixels import PIXEL_COLUMNS
from tokbench.report.html.headlines import headlines
from tokbench.report.html.pixels import pixel_sentence

EMPTY = {column.name: None for column in PIXEL_COLUMNS} | {"gmacs": 1.0, "top1": 70.0}
SMALLER = plain(params="img_size=192", gmacs_saved=30.0, **EMPTY)


def measured(keep, saved, compute=None, time=None, speedup=1.4, **given):
    """A method's row with its points above fewer pixels, ±1.5 at equal compute and ±2 at equal time."""
    numbers = dict(EMPTY)
    for name, value, half in (("over_pixels", compute, 1.5), ("over_pixels_time", time, 2.0)):
        if value is not None:
            numbers |= {name: value, f"{name}_lo": value - half, f"{name}_hi": value + half}
    return row(keep, saved, -2.0, speedup, **(numbers | given))


def sentences(*rows, baselines=(SMALLER,)):
    table = pd.DataFrame([plain(**EMPTY), *baselines, *rows])
    return {headline.method: pixel_sentence(table, headline) for headline in headlines(table)}


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (
            [measured(0.7, 30.0, 5.0, 1.2)],
            "at keep 0.7, at equal compute 5.0 points [3.5, 6.5] above fewer pixels, "
            "and at equal time 1.2 points [-0.8, 3.2] above fewer pixels",
        ),
        (
            [measured(0.7, 30.0, -5.0, -1.2)],
            "at keep 0.7, at equal compute 5.0 points [3.5, 6.5] below fewer pixels, "
            "and at equal time 1.2 points [-0.8, 3.2] below fewer pixels",
        ),
        (
            [measured(0.7, 30.0, 5.0, speedup=None)],
            "at keep 0.7, at equal compute 5.0 points [3.5, 6.5] above fewer pixels",
        ),
        (
            [measured(0.7, 30.0, 5.0, speedup=0.8)],
            "at keep 0.7, at equal compute 5.0 points [3.5, 6.5] above fewer pixels, "
            "and at equal time beyond the measured resolutions, as it is slower than the plain model",
        ),
        (
            [measured(0.7, 80.0, None, 3.0, speedup=3.0)],
            "at keep 0.7, at equal compute beyond the measured resolutions, "
            "and at equal time 3.0 points [1.0, 5.0] above fewer pixels",
        ),
        ([measured(0.7, 80.0)], "against fewer pixels: beyond the measured resolutions"),
        # The keep nearest to 30 % fewer MACs that has a result, whatever the others gain.
        (
            [measured(0.9, 10.0, 9.0, speedup=None), measured(0.7, 35.0, 1.0, speedup=None), measured(0.69, 30.0)],
            "at keep 0.7, at equal compute 1.0 points [-0.5, 2.5] above fewer pixels",
        ),
        # Seeds are averaged.
        (
            [measured(0.7, 30.0, value, speedup=None, seed=seed) for seed, value in enumerate((1.0, 2.0, 6.0))],
            "at keep 0.7, at equal compute 3.0 points [1.5, 4.5] above fewer pixels",
        ),
        # Times are those of the headline's batch size.
        (
            [
                measured(0.7, 30.0, 5.0, 1.2, batch_size=batch, speedup=speedup)
                if batch == 8
                else measured(0.7, 30.0, 5.0, 4.0, batch_size=batch, speedup=speedup)
                for batch, speedup in ((1, 1.2), (8, 1.4))
            ],
            "at keep 0.7, at equal compute 5.0 points [3.5, 6.5] above fewer pixels, "
            "and at equal time 1.2 points [-0.8, 3.2] above fewer pixels",
        ),
    ],
)
def test_the_sentence(rows, text):
    assert sentences(*rows) == {"tome": text}


def test_without_smaller_resolutions_there_is_no_sentence():
    assert sentences(measured(0.7, 30.0, 5.0), baselines=()) == {"tome": ""}


def test_each_method_has_its_own():
    found = sentences(measured(0.7, 30.0, 5.0, speedup=None), measured(0.7, 30.0, -1.0, speedup=None, method="evit"))
    assert found["tome"].endswith("5.0 points [3.5, 6.5] above fewer pixels")
    assert found["evit"].endswith("1.0 points [-0.5, 2.5] below fewer pixels")
