"""Readings at equal accuracy, compute and time, compared with numbers computed by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from curve_rows import one, row, sentence, spread

from tokbench.report.html.headlines import at_equal, headlines


def test_readings_of_the_photographs(photographs):
    read = at_equal(photographs).set_index("method")
    # tome saves 35.125 % at -0.4 points and 50.288 % at -10.2: 30 % are saved at a fraction of 0.76293 of the way
    # from 13.505 % to 35.125 %.
    assert read.loc["tome", "saved_at_equal_accuracy"] == pytest.approx(35.27977, abs=1e-4)
    assert read.loc["tome", "delta_at_equal_compute"] == pytest.approx(-0.4)
    assert read.loc["tome", "delta_at_equal_compute_lo"] == pytest.approx(-2.28805, abs=1e-4)
    assert read.loc["tome", "delta_at_equal_compute_hi"] == pytest.approx(1.41748, abs=1e-4)
    # gtp loses too much at its first keep: 0.5 of 0.6 points, on the way from the plain model.
    assert read.loc["gtp", "saved_at_equal_accuracy"] == pytest.approx(12.023579 * 0.5 / 0.6, abs=1e-4)
    # ats is 1.449 times as fast at its first keep, and loses 4 points there.
    assert read.loc["ats", "delta_at_equal_time"] == pytest.approx(-4.0 * 0.3 / 0.4490836, abs=1e-4)


def test_embedded_and_unfinished_results_can_be_read(reference):
    measured = reference.table
    stored = pd.read_parquet(reference.directory / "table.parquet")
    pd.testing.assert_frame_equal(at_equal(measured), at_equal(stored))
    assert len(headlines(measured)) == len(at_equal(measured)) > 0
    waiting = measured.assign(status="failed", reason="not measured yet")
    assert headlines(waiting) == []
    assert len(at_equal(waiting)) == 0


def test_equal_accuracy_by_hand():
    rows = [row(0.9, 10.0, 0.0, 1.1), row(0.7, 30.0, -2.0, 1.5), row(0.5, 50.0, -6.0, 2.0)]
    read = one(*rows, lost=0.5, saved=40.0, speedup=1.3)
    # -0.5 is a quarter of the way to keep 0.7; the lower ends (-1, -3, -7) reach it half-way to keep 0.9, the upper
    # ends (1, -1, -5) at three quarters of the way to keep 0.7.
    assert spread(read, "saved_at_equal_accuracy") == pytest.approx([5.0, 15.0, 25.0])
    assert spread(read, "speedup_at_equal_accuracy") == pytest.approx([1.2 * 0.95, 1.2, 1.2 * 1.05])
    assert spread(read, "delta_at_equal_compute") == pytest.approx([-5.0, -4.0, -3.0])
    # 1.3 is half-way between keeps 0.9 and 0.7. The lower ends (1.045, 1.425) reach it later, the upper ends
    # (1.155, 1.575) earlier; meanwhile delta's lower end goes from -1 to -3, its upper end from 1 to -1.
    low, high = (1.3 - 1.045) / 0.38, (1.3 - 1.155) / 0.42
    assert spread(read, "delta_at_equal_time") == pytest.approx([-1 - 2 * low, -1.0, 1 - 2 * high])
    assert read["saved_measured"] == 50.0


@pytest.mark.parametrize(("lost", "saved"), [(0.0, 10.0), (0.5, 15.0), (1.0, 20.0), (2.0, 30.0), (6.0, math.nan)])
def test_the_limit_can_be_changed(lost, saved):
    rows = [row(0.9, 10.0, 0.0, 1.1), row(0.7, 30.0, -2.0, 1.5), row(0.5, 50.0, -6.0, 2.0)]
    assert one(*rows, lost=lost)["saved_at_equal_accuracy"] == pytest.approx(saved, nan_ok=True)


def test_readings_beyond_the_lowest_keep_are_open():
    read = one(row(0.9, 10.0, 0.2, 1.1), row(0.7, 30.0, -0.2, 1.25), lost=0.5, saved=31.0, speedup=1.3)
    lo, estimate, hi = spread(read, "saved_at_equal_accuracy")
    # The lower ends are -0.8 and -1.2.
    assert lo == pytest.approx(10 * 0.5 / 0.8)
    assert math.isnan(estimate)
    assert math.isnan(hi)
    assert read["saved_measured"] == 30.0
    assert read["speedup_at_equal_accuracy"] == pytest.approx(1.25)
    for name in ("delta_at_equal_compute", "delta_at_equal_time"):
        assert np.isnan(spread(read, name)).all()
    # Reached by the estimate (1.25) but not by the lower ends (1.1875).
    lo, estimate, hi = spread(one(row(0.7, 30.0, -0.2, 1.25), speedup=1.2), "delta_at_equal_time")
    assert math.isnan(lo)
    assert (estimate, hi) == (pytest.approx(-0.2 * 0.8), pytest.approx(0.8))


def test_a_method_that_recovers_gets_no_credit_beyond_its_first_loss():
    dips = [row(0.9, 10.0, -1.0, 1.1), row(0.7, 30.0, 0.0, 1.5), row(0.5, 50.0, -6.0, 2.0)]
    assert one(*dips, lost=0.5)["saved_at_equal_accuracy"] == pytest.approx(5.0)
    # A point exactly at the limit is within it.
    touches = [row(0.9, 10.0, -0.5, 1.1), row(0.7, 30.0, 0.0, 1.5), row(0.5, 50.0, -6.0, 2.0)]
    assert one(*touches, lost=0.5)["saved_at_equal_accuracy"] == pytest.approx(30 + 20 / 12)


def test_rounding_errors_do_not_move_a_point_outside_the_limit():
    loss = 100 * 0.007  # 0.7000000000000001
    assert loss > 0.7
    assert sentence(row(0.9, 10.0, -loss, 1.1), lost=0.7).startswith("keeps top-1 within 0.7 points with at least 10 %")


def test_a_keep_that_costs_more_than_the_plain_model_does_not_reduce_the_saving():
    # The saving goes from 0 % to -4 % and then to 20 %; the limit is crossed half-way between the two keeps, at 8 %.
    rows = [row(0.9, -4.0, 0.0, 0.9, "SLOWER"), row(0.7, 20.0, -1.0, 1.5)]
    read = one(*rows, lost=0.5, saved=8.0)
    assert read["saved_at_equal_accuracy"] == pytest.approx(8.0)
    assert read["delta_at_equal_compute"] == pytest.approx(-0.5)
    assert one(*rows, lost=0.1)["saved_at_equal_accuracy"] == 0.0


def test_no_speedup_next_to_an_untimed_keep():
    rows = [row(0.9, 10.0, 0.0, 1.1), row(0.7, 30.0, -2.0, None), row(0.5, 50.0, -6.0, 2.0)]
    read = one(*rows, lost=0.5)
    assert np.isnan(spread(read, "speedup_at_equal_accuracy")).all()
    assert sentence(*rows) == "keeps top-1 within 0.5 points with 15 % [5, 25] fewer MACs"
    assert one(*rows, lost=0.0)["speedup_at_equal_accuracy"] == pytest.approx(1.1)  # exactly at a timed keep
    # Equal time needs no MACs, equal compute needs no times.
    assert one(row(0.5, None, -2.0, 1.6), speedup=1.3)["delta_at_equal_time"] == pytest.approx(-1.0)
    assert one(row(0.5, 60.0, -2.0, None), saved=30.0)["delta_at_equal_compute"] == pytest.approx(-1.0)
