"""Which rows form a curve, and which measurement of a row counts."""

import pytest
from curve_rows import one, row, same, sentence, table

from tokbench.report.html.curves import curves
from tokbench.report.html.headlines import at_equal, headlines


def test_the_order_of_the_rows_does_not_matter():
    rows = [row(0.9, 10.0, 0.0, 1.1), row(0.7, 30.0, -2.0, 1.5), row(0.5, 50.0, -6.0, 2.0)]
    assert same(one(*rows), one(*rows[::-1]))


def test_seeds_are_averaged_first():
    seeds = [row(0.7, 30.0, delta, 1.5 if seed == 1 else None, seed=seed) for seed, delta in enumerate((0, -1, -5))]
    assert same(one(*seeds, lost=1.0), one(row(0.7, 30.0, -2.0, 1.5), lost=1.0))
    assert sentence(*seeds).endswith(" faster at batch 8")  # though the first seed has no time and no verdict
    lost = row(0.7, 30.0, -50.0, 9.0, seed=3, status="failed")
    assert same(one(*seeds, lost), one(*seeds))


def test_failed_and_skipped_rows_are_left_out():
    ran = [row(0.9, 10.0, 0.0, 1.1), row(0.7, 30.0, -2.0, 1.5)]
    out = [row(0.5, 50.0, -6.0, 2.0, status="failed"), row(0.3, 60.0, -9.0, 3.0, status="skipped")]
    assert same(one(*ran, *out), one(*ran))


def test_other_settings_are_separate_curves():
    rows = [
        row(0.5, 50.0, -1.0, 2.0, model="vit"),
        row(0.7, 30.0, -1.0, 1.5),
        row(0.7, 30.0, -1.0, 1.5, batch_size=256),
        row(0.7, 30.0, -1.0, 1.5, mode="compile"),
        row(0.7, 30.0, -1.0, 1.5, schedule="budget(0.7)"),
        row(0.7, 30.0, -1.0, 1.5, method="evit", params="fuse=true"),
        row(0.7, 30.0, -1.0, 1.5, method="evit", params="fuse=false"),
    ]
    read = at_equal(table(*rows))
    # Grouped by model, within a model in the table's order.
    assert set(zip(read["model"], read["method"], read["mode"], read["batch_size"], strict=True)) == {
        ("vit", "tome", "eager", 8),
        ("deit", "tome stages(at=3-6-9)", "eager", 8),
        ("deit", "tome stages(at=3-6-9)", "eager", 256),
        ("deit", "tome stages(at=3-6-9)", "compile", 8),
        ("deit", "tome budget", "eager", 8),
        ("deit", "evit(fuse=true)", "eager", 8),
        ("deit", "evit(fuse=false)", "eager", 8),
    }
    assert len(read) == len(rows)


def test_a_point_may_have_no_keep():
    counts = row(None, 30.0, -2.0, 1.5, schedule="explicit(counts=9-6-3)")
    assert one(counts, lost=1.0)["saved_at_equal_accuracy"] == pytest.approx(15.0)


def test_the_plain_model_alone_has_no_curves_and_headlines():
    assert curves(table()) == []
    assert headlines(table()) == []
    assert list(at_equal(table()).columns) == list(at_equal(table(row(0.7, 30.0, -2.0, 1.5))).columns)
    assert headlines(table(row(0.7, None, None, None))) == []
    assert len(at_equal(table(row(0.7, 30.0, None, 1.5)))) == 0
