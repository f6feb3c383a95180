"""Which rows and points a paper shows."""

import numpy as np
import pytest
from paper_rows import curves, drawn, lost, row, table, timed

from tokbench.errors import UserError
from tokbench.report.paper.rows import figure_points, select_rows


def test_latency_is_of_one_batch_size_and_mode():
    for asked, found in (
        ({}, "latency (ms), batch 256"),
        ({"batch_size": 8}, "latency (ms), batch 8"),
        ({"mode": "compile"}, "latency (ms), batch 256, compile"),
    ):
        _, (panel,) = drawn(timed(), "latency_ms", **asked)
        assert panel.get_xlabel() == found
        assert len(np.concatenate(curves(panel))) == 1
    with pytest.raises(UserError, match="--batch-size 32 was not measured: choose one of 8, 256"):
        select_rows(timed(), batch_size=32)
    with pytest.raises(UserError, match="--mode cudagraph was not measured: choose one of compile, eager"):
        select_rows(timed(), mode="cudagraph")


def test_compute_is_the_same_at_all_batch_sizes():
    assert len(np.concatenate(curves(drawn(timed())[1][0]))) == 1


def test_methods_are_selected_by_method_or_series():
    both = [row("token_pooling", keep, params=f"algorithm={a}") for a in ("kmeans", "kmedoids") for keep in (0.9, 0.5)]
    rows = table(row(), *both, row("tome", 0.7), lost("evit"))
    for asked, lines in (("tome", 1), ("token_pooling", 2), ("token_pooling(algorithm=kmeans)", 1)):
        _, (panel,) = drawn(rows, methods=[asked])
        assert len(curves(panel)) == lines
        assert any(line.get_marker() == "*" for line in panel.lines)
    with pytest.raises(UserError, match="no method 'tomme' in these results: did you mean 'tome'"):
        select_rows(rows, ["tomme"])
    with pytest.raises(UserError, match=r"'evit' has no result \(failed: RuntimeError: out of memory\): leave it out"):
        select_rows(rows, ["tome", "evit"])


def test_nothing_to_draw_says_what_to_run():
    unanswered = row("tome", 0.7, top1=np.nan)
    with pytest.raises(UserError, match=r"no accuracy was measured: .*--only macs,accuracy"):
        figure_points(select_rows(table(row(top1=np.nan), unanswered)), "gmacs")
    with pytest.raises(UserError, match=r"no latency was measured: .*--only macs,latency,accuracy"):
        figure_points(select_rows(table(row(latency_ms=np.nan), row("tome", 0.7, latency_ms=np.nan))), "latency_ms")
    with pytest.raises(UserError, match=r"no row has a result \(RuntimeError: out of memory\)"):
        select_rows(table(lost("none"), lost("tome")))


def test_fewer_pixels_are_one_curve_over_all_sizes():
    sizes = [row("none", params=f"img_size={size}", gmacs=size / 224) for size in (160, 208, 192)]
    points = figure_points(select_rows(table(row(), *sizes)), "gmacs")
    fewer = points[points["series"] == "fewer pixels"]
    assert sorted(fewer["gmacs"]) == [160 / 224, 192 / 224, 208 / 224]
    _, (panel,) = drawn(table(row(), *sizes, row("tome", 0.7, gmacs=0.3)))
    assert [list(curve[:, 0]) for curve in curves(panel) if len(curve) == 3] == [[160 / 224, 192 / 224, 208 / 224]]


def test_one_schedule_is_selected_by_its_text_or_its_curve():
    budgets = [row("tome", keep, schedule=f"budget({keep})") for keep in (0.7, 0.5)]
    rows = table(row(), row("tome", 0.7), *budgets)
    assert list(select_rows(rows, schedule="budget")["schedule"].dropna()) == ["budget(0.7)", "budget(0.5)"]
    assert list(select_rows(rows, schedule="budget(0.5)")["schedule"].dropna()) == ["budget(0.5)"]
    assert select_rows(rows, schedule="budget")["plain"].sum() == 1
    with pytest.raises(UserError, match="--schedule every_block was not measured: choose one of "):
        select_rows(rows, schedule="every_block")
