"""A method against the plain model with fewer pixels, on made-up outcomes."""

import numpy as np
import pandas as pd
import pytest

from tokbench.kinds.pixels import PIXEL_COLUMNS, over_pixels
from tokbench.stats.differences import mean_interval

RNG = np.random.default_rng(0)
EASY = RNG.random(400)
SETTINGS = {
    **{"model": "m", "params": "", "dtype": "fp32", "batch_size": 8, "mode": "eager", "gmacs": None},
    **{"speedup": None, "speedup_lo": None, "speedup_hi": None, "regime": "off-the-shelf"},
}


def answers(skill):
    return "".join(np.where(EASY + RNG.normal(0, 0.05, EASY.size) < skill, "0", "-"))


FULL, AT_192, AT_160, OWN = answers(0.9), answers(0.8), answers(0.5), answers(0.8)


def row(method, gmacs, speedup=None, wide=0.0, **settings):
    timed = speedup is not None
    return {
        **{**SETTINGS, "method": method, "gmacs": gmacs, "speedup": speedup},
        "speedup_lo": speedup * (1 - wide) if timed else None,
        "speedup_hi": speedup * (1 + wide) if timed else None,
        **settings,
    }


def plain(**settings):
    return [
        row("none", 1.0, 0.98, 0.01, **settings),
        row("none", 0.7, 1.25, **{"params": "img_size=192", **settings}),
        row("none", 0.4, 2.0, **{"params": "img_size=160", **settings}),
    ]


def found(*methods, outcomes=None, baselines=None):
    """The columns of the methods, after three resolutions."""
    table = pd.DataFrame([*(baselines or plain()), *methods])
    columns = over_pixels(table, [FULL, AT_192, AT_160, *(outcomes or [OWN] * len(methods))])
    assert list(columns) == [column.name for column in PIXEL_COLUMNS]
    return pd.DataFrame(columns)


def right(outcomes):
    return (np.array(list(outcomes)) == "0").astype(float)


def expected(mixed, own=OWN):
    interval = mean_interval(right(own) - mixed)
    return [100 * value for value in (interval.estimate, interval.lo, interval.hi)]


COMPUTE = ["over_pixels", "over_pixels_lo", "over_pixels_hi"]
TIME = ["over_pixels_time", "over_pixels_time_lo", "over_pixels_time_hi"]


@pytest.mark.parametrize(
    ("gmacs", "mixed"),
    [
        (0.7, right(AT_192)),
        (1.0, right(FULL)),
        (0.4, right(AT_160)),
        (0.85, (right(FULL) + right(AT_192)) / 2),
        (0.475, 0.75 * right(AT_160) + 0.25 * right(AT_192)),
    ],
)
def test_at_equal_compute(gmacs, mixed):
    columns = found(row("tome", gmacs))
    assert columns[COMPUTE].iloc[3].tolist() == pytest.approx(expected(mixed))
    assert columns[TIME].isna().all().all()


def test_at_equal_time():
    # A third of the way from 1/1.25 to 1/2 of the plain model's time.
    columns = found(row("tome", 0.2, 1 / 0.7))
    mixed = 2 / 3 * right(AT_192) + 1 / 3 * right(AT_160)
    assert columns[TIME].iloc[3].tolist() == pytest.approx(expected(mixed))
    assert columns[COMPUTE].isna().all().all()


def test_the_plain_models_own_time_is_1_by_definition():
    columns = found(row("tome", 0.7, 1 / 0.9))
    assert columns[TIME].iloc[3].tolist() == pytest.approx(expected((right(FULL) + right(AT_192)) / 2))


def test_an_uncertain_speedup_widens_the_interval():
    columns = found(row("tome", 0.7, 1.6), row("tome", 0.7, 1.6, 0.1))
    (sure, lo, hi), (unsure, lowest, highest) = columns[TIME].iloc[3:].to_numpy()
    assert sure == unsure
    assert lowest < lo - 1 < hi + 1 < highest


def test_beyond_the_measured_resolutions_there_is_no_number():
    columns = found(row("tome", 0.39, 2.1), row("tome", 1.01, 0.9), row("tome", None, None))
    assert columns.isna().all().all()


def test_the_plain_models_get_no_number():
    columns = found(row("none", 0.9, 1.1, params="attention=eager"), row("tome", 0.9, 1.1))
    assert columns.iloc[:4].isna().all().all()
    assert columns.iloc[4].notna().all()


def test_without_smaller_resolutions_there_is_no_number():
    table = pd.DataFrame([row("none", 1.0, 1.0), row("tome", 0.7, 1.2)])
    columns = pd.DataFrame(over_pixels(table, [FULL, OWN]))
    assert columns.isna().all().all()
    assert len(columns) == 2
    assert set(columns.dtypes) == {np.dtype(float)}


def test_models_batch_sizes_and_modes_have_their_own_baselines():
    other = {"model": "n"}
    table = pd.DataFrame(
        [*plain(), row("tome", 0.85), *plain(**other), row("tome", 0.85, **other), row("tome", 0.85, batch_size=1)]
    )
    columns = pd.DataFrame(over_pixels(table, [FULL, AT_192, AT_160, OWN, FULL, AT_160, AT_160, OWN, OWN]))
    assert columns[COMPUTE].iloc[3].tolist() == pytest.approx(expected((right(FULL) + right(AT_192)) / 2))
    assert columns[COMPUTE].iloc[7].tolist() == pytest.approx(expected((right(FULL) + right(AT_160)) / 2))
    assert columns.iloc[8].isna().all()


def test_larger_images_and_slower_baselines_are_no_fewer_pixels():
    baselines = [
        row("none", 1.0, 1.0),
        row("none", 1.4, 0.7, params="img_size=256"),
        row("none", 0.4, 2.0, params="img_size=160"),
    ]
    columns = found(row("tome", 1.2, 0.8), row("tome", 0.7, 4 / 3), baselines=baselines)
    assert columns.iloc[3].isna().all()
    mixed = (right(FULL) + right(AT_160)) / 2
    assert columns[COMPUTE].iloc[4].tolist() == pytest.approx(expected(mixed))


def test_rows_without_answers_are_left_out():
    assert found(row("tome", 0.7, 1.2), outcomes=[None]).isna().all().all()
    columns = over_pixels(pd.DataFrame([*plain(), row("tome", 0.7)]), [FULL, None, AT_160, OWN])
    mixed = (right(FULL) + right(AT_160)) / 2
    assert columns["over_pixels"].iloc[3] == pytest.approx(expected(mixed)[0])


def test_images_that_a_row_could_not_read_are_left_out():
    unread = "?" * 100 + OWN[100:]
    columns = found(row("tome", 0.7), outcomes=[unread])
    interval = mean_interval((right(OWN) - right(AT_192))[100:])
    assert columns[COMPUTE].iloc[3].tolist() == pytest.approx(
        [100 * v for v in (interval.estimate, interval.lo, interval.hi)]
    )
