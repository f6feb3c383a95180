"""What holds for all charts: they are valid, need measurements, escape texts, and show a series alike."""

import html
import re

import pandas as pd
import plotly.graph_objects as go
import pytest
from chart_rows import (
    ACCURACIES,
    ALL,
    COUNTS,
    TIMES,
    TOME,
    comparison,
    content,
    failed,
    published_and_measured,
    row,
    small,
    table,
    trace,
)

from tokbench.report.charts.accuracy import accuracy_by_compute, accuracy_by_latency
from tokbench.report.charts.cost import crossover_map, macs_split, tokens_per_block
from tokbench.results.columns import TYPES

# Markup of the charts' own, around texts from users.
OWN = re.compile(r"</?b>|<br>|<extra></extra>")


def texts(part):
    """All texts in a JSON value."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, dict | list):
        for inner in part.values() if isinstance(part, dict) else part:
            yield from texts(inner)


@pytest.mark.parametrize("draw", ALL)
def test_committed_results_are_drawn(draw, embedded, photographs):
    if draw is not published_and_measured:  # there are no published numbers for the embedded model
        assert content(draw(embedded))["data"]
    assert content(draw(photographs))["data"]
    assert published_and_measured(embedded) is None


@pytest.mark.parametrize("draw", ALL)
def test_a_figure_goes_through_json_and_is_valid(draw):
    figure = draw(pd.concat([comparison(), table(row(**TOME))]))
    assert content(go.Figure(content(figure))) == content(figure)
    # Background and width come from the page.
    assert {figure.layout.paper_bgcolor, figure.layout.plot_bgcolor} == {"rgba(0, 0, 0, 0)"}
    assert figure.layout.width is None


@pytest.mark.parametrize("draw", ALL)
def test_no_chart_without_measurements(draw):
    assert draw(table()) is None
    assert draw(table(failed("none", 1.0), failed("tome"), failed("evit", status="skipped"))) is None


OF_A_FAMILY = (accuracy_by_compute, accuracy_by_latency)


@pytest.mark.parametrize("draw", [draw for draw in ALL if draw not in OF_A_FAMILY])
def test_rows_of_several_models_are_rejected(draw):
    with pytest.raises(ValueError, match="one model"):
        draw(table(row(), row(model="deit_tiny_patch16_224")))


@pytest.mark.parametrize(
    ("missing", "lost"),
    [
        (TIMES, [accuracy_by_latency, crossover_map]),
        (ACCURACIES, [accuracy_by_compute, accuracy_by_latency]),
        (COUNTS, [accuracy_by_compute, tokens_per_block, macs_split]),
    ],
)
def test_missing_measurements_remove_only_their_own_charts(missing, lost):
    rows = small().assign(**dict.fromkeys(missing)).astype(TYPES)
    found = {draw for draw in ALL if draw is not published_and_measured and draw(rows) is None}
    assert found == set(lost)


def test_a_series_looks_the_same_in_all_charts():
    rows = comparison()
    looks = [
        {one.name: (one.line.color, one.marker.symbol, one.line.dash) for one in draw(rows).data if one.name in order}
        for order in [("tome", "evit", "random_selection", "plain model")]
        for draw in (accuracy_by_compute, accuracy_by_latency, tokens_per_block)
    ]
    assert looks[0] == looks[1] == looks[2]
    assert len(set(looks[0].values())) == 4


def test_the_style_of_a_series_does_not_depend_on_what_is_measured():
    done = accuracy_by_compute(table(row(), row("evit", 0.7), row("tome", 0.7)))
    begun = accuracy_by_compute(table(row(), failed("evit"), row("tome", 0.7)))
    assert trace(done, "tome").marker == trace(begun, "tome").marker


MARKUP = "<script>alert(1)</script><b>&lt;\"'</b><a href='x'>$\\alpha$</a> {%{x}} \x1b[31m\n\u202e"


def hostile():
    """Names with markup, very long names, and names that are equal when cut."""
    rows = [row()]
    for number, method in enumerate((MARKUP, "n" * 10_000, "n" * 9_000 + "m" * 1_000, "<" * 10_000)):
        for batch in (1, 256):
            for keep in (0.7, 0.5):
                params = f"text={MARKUP * 200},variant={number}"
                rows.append(row(method, keep, params=params, batch_size=batch))
        rows.append(failed(method, params=MARKUP, reason=MARKUP * 500))
    return table(*rows, row(**TOME))


@pytest.mark.parametrize("draw", ALL)
def test_texts_from_users_are_escaped_and_cut(draw):
    found = list(texts(content(draw(hostile()))))
    assert any("alert(1)" in text for text in found) or draw is published_and_measured
    for text in found:
        assert "<" not in OWN.sub("", text)
        assert not re.search(r"[\x00-\x1f\u202e]", text)
        assert max(len(html.unescape(line)) for line in OWN.sub("\n", text).split("\n")) <= 100
        assert text.count("<br>") < 30


def test_names_that_are_equal_when_cut_stay_separate():
    rows = [row(), *(row("n" * 50 + letter + "n" * 50, 0.7, gmacs=gmacs) for letter, gmacs in (("a", 1.0), ("b", 2.0)))]
    split = macs_split(table(*rows))
    assert len(set(split.layout.yaxis.ticktext)) == 2
    assert split.data[0].y == (0, 1, 2)
    assert len([one for one in accuracy_by_compute(table(*rows)).data if one.x in ((1.0,), (2.0,))]) == 2
    assert len(crossover_map(table(*rows)).data[0].z) == 2
