"""The names of rows: short, but unique."""

import pandas as pd

from tokbench.report.labels import cell_text, labels, series


def rows(*settings):
    """Rows of one model: (method, params), (…, schedule), (…, site), (…, regime)."""
    usual = ("", "", "stages(at=3-6-9)", "after_attention", "off-the-shelf")
    columns = ["method", "params", "schedule", "site", "regime"]
    return pd.DataFrame([(*one, *usual[len(one) :]) for one in settings], columns=columns)


def test_shared_parameters_are_left_out():
    table = rows(("tome", "proportional=true"), ("tp", "algorithm=kmeans,w=1"), ("tp", "algorithm=kmedoids,w=1"))
    assert labels(table) == ["tome", "tp(algorithm=kmeans)", "tp(algorithm=kmedoids)"]
    assert list(series(table)) == labels(table)


def test_a_series_contains_all_keeps_and_seeds():
    table = rows(*[("tome", "")] * 4, ("evit", "")).assign(keep=[0.9, 0.7, 0.7, 0.5, 0.7], seed=[0, 0, 1, 0, 0])
    assert list(series(table)) == ["tome"] * 4 + ["evit"]


def test_settings_are_only_added_to_labels_with_several():
    table = rows(("tome", ""), ("tome", "", "every_block"), ("evit", "", "stages(at=3-6-9)", "before_block"))
    assert list(series(table)) == ["tome stages(at=3-6-9)", "tome every_block", "evit"]


def test_budgets_are_points_of_one_series():
    table = rows(*(("tome", "", f"budget({fraction})") for fraction in (0.7, 0.5, 1e-05)), ("evit", ""))
    assert list(series(table)) == ["tome", "tome", "tome", "evit"]
    table = rows(*(("tome", "", text) for text in ("budget(0.7)", "budget(0.5)", "budget(0.7,at=2-5)", "every_block")))
    assert list(series(table)) == ["tome budget", "tome budget", "tome budget(at=2-5)", "tome every_block"]


def test_searches_are_points_of_one_series():
    table = rows(*(("tome", "", text) for text in ("searched(0.7)", "searched(0.5)", "searched(0.5,seed=1)")))
    assert list(series(table)) == ["tome searched", "tome searched", "tome searched(seed=1)"]


def test_all_varying_settings_are_added():
    table = rows(
        ("tome", ""),
        ("tome", "", "every_block"),
        ("tome", "", "every_block", "before_block"),
        ("tome", "", "every_block", "before_block", "fine-tuned"),
    )
    told = list(series(table))
    assert len(set(told)) == len(told)
    assert told[-1] == "tome every_block before_block fine-tuned"


def test_settings_are_compared_within_a_label():
    table = rows(("tp", "a=1"), ("tp", "a=2"), ("tp", "a=2", "every_block"))
    assert list(series(table)) == ["tp(a=1)", "tp(a=2) stages(at=3-6-9)", "tp(a=2) every_block"]


def test_the_index_is_kept():
    table = rows(("tome", ""), ("evit", "")).set_index(pd.Index([7, 3]))
    assert dict(series(table)) == {7: "tome", 3: "evit"}
    assert list(series(rows())) == []


def test_missing_values_are_empty_texts():
    table = rows(("none", None, None, None), ("tome", float("nan")))
    assert list(series(table)) == ["none", "tome"]
    assert [cell_text(value) for value in (None, float("nan"), pd.NA, 0.7, 1.0, "a\nb\x1b[31m")] == [
        *("", "", "", "0.7", "1", "a b [31m"),
    ]
