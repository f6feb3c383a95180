"""Colours, symbols and labels."""

from tokbench.report.charts.style import DASHES, MAX_LABEL, SERIES_COLOURS, SYMBOLS, label, series_styles


def test_forty_series_look_different():
    count = len(SERIES_COLOURS) * len(SYMBOLS)
    looks = series_styles(map(str, range(count))).values()
    assert len({(one.colour, one.symbol) for one in looks}) == count
    few = list(series_styles(map(str, range(len(SERIES_COLOURS) * len(DASHES)))).values())
    assert len({(one.colour, one.dash) for one in few}) == len(few)


def test_a_label_keeps_both_ends():
    assert label("tome") == "tome"
    long = label("token_pooling(algorithm=kmedoids,init=scores,w=true)")
    assert len(long) == MAX_LABEL
    assert long.startswith("token_pooling(")
    assert long.endswith("w=true)")
    assert label("<b>&") == "&lt;b&gt;&amp;"
