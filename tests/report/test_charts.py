"""The charts, compared with the rows that they are made from."""

import html
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from tokbench.report import charts
from tokbench.report.charts.style import DASHES, MAX_LABEL, SERIES_COLOURS, SYMBOLS, label, series_styles
from tokbench.results.table import COLUMNS, read_table

RESULTS = Path(__file__).parents[2] / "results"
SMALL = "deit_small_patch16_224"
ALL = [
    *(charts.accuracy_by_compute, charts.accuracy_by_latency, charts.crossover_map, charts.tokens_per_block),
    *(charts.macs_split, charts.published_and_measured),
]
# Markup of the charts' own, around texts from users.
OWN = re.compile(r"</?b>|<br>|<extra></extra>")

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
    return pd.DataFrame(list(rows), columns=list(COLUMNS)).astype(COLUMNS)


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


@pytest.fixture(scope="module")
def embedded():
    return read_table(RESULTS / "reference" / "embedded")


@pytest.fixture(scope="module")
def photographs():
    stored = pd.read_csv(RESULTS / "photographs" / "stages" / "table.csv")
    return stored.reindex(columns=list(COLUMNS)).assign(mode="eager")


def content(figure):
    """The figure as the page reads it from strict JSON."""

    def refuse(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(figure.to_json(), parse_constant=refuse)


def texts(part):
    """All texts in a JSON value."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, dict | list):
        for inner in part.values() if isinstance(part, dict) else part:
            yield from texts(inner)


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


@pytest.mark.parametrize("draw", ALL)
def test_committed_results_are_drawn(draw, embedded, photographs):
    if draw is not charts.published_and_measured:  # there are no published numbers for the embedded model
        assert content(draw(embedded))["data"]
    assert content(draw(photographs))["data"]
    assert charts.published_and_measured(embedded) is None


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


@pytest.mark.parametrize("draw", ALL)
def test_rows_of_several_models_are_rejected(draw):
    with pytest.raises(ValueError, match="one model"):
        draw(table(row(), row(model="deit_tiny_patch16_224")))


@pytest.mark.parametrize(
    ("missing", "lost"),
    [
        (TIMES, [charts.accuracy_by_latency, charts.crossover_map]),
        (ACCURACIES, [charts.accuracy_by_compute, charts.accuracy_by_latency]),
        (COUNTS, [charts.accuracy_by_compute, charts.tokens_per_block, charts.macs_split]),
    ],
)
def test_missing_measurements_remove_only_their_own_charts(missing, lost):
    rows = small().assign(**dict.fromkeys(missing)).astype(COLUMNS)
    found = {draw for draw in ALL if draw is not charts.published_and_measured and draw(rows) is None}
    assert found == set(lost)


def test_each_setting_is_one_point_against_compute(embedded):
    figure = charts.accuracy_by_compute(embedded)
    others = embedded[embedded["method"] != "none"]
    expected = others.groupby(["method", "params", "keep"])[["gmacs", "top1"]].mean()
    points = [drawn(one) for one in figure.data if one.mode == "lines+markers" and one.name != "plain model"]
    assert set().union(*points) == set(map(tuple, expected.round(6).to_numpy()))
    assert len(points) == len(expected.groupby(level=["method", "params"]))
    plain = embedded[embedded["method"] == "none"].iloc[0]
    assert drawn(trace(figure, "plain model")) == {(round(plain["gmacs"], 6), round(plain["top1"], 6))}
    (line,) = figure.layout.shapes
    assert line.y0 == line.y1 == plain["top1"]


def test_a_line_connects_points_in_the_order_of_keeps():
    rows = [row(), *(row("tome", keep, latency_ms=ms) for keep, ms in ((0.5, 40.0), (0.9, 30.0), (0.7, 50.0)))]
    assert trace(charts.accuracy_by_latency(table(*rows)), "tome").x == (40.0, 50.0, 30.0)


def test_batch_sizes_modes_and_seeds_share_one_point_against_compute():
    one = trace(charts.accuracy_by_compute(comparison()), "random_selection")
    assert one.y == (71.0,)
    assert "3 seeds" in one.hovertext[0]
    for setup in ("batch 1:", "batch 256:", "batch 256 compile:"):
        assert setup in one.hovertext[0]


def test_error_bars_match_the_intervals_of_the_table():
    rows = table(row(), row("tome", 0.7), row("evit", 0.7, top1_lo=None, latency_ms_hi=None))
    for figure, name in ((charts.accuracy_by_compute(rows), "gmacs"), (charts.accuracy_by_latency(rows), "latency_ms")):
        told = rows.set_index("method").loc["tome"]
        one = trace(figure, "tome")
        assert one.y[0] + one.error_y.array[0] == pytest.approx(told["top1_hi"])
        assert one.y[0] - one.error_y.arrayminus[0] == pytest.approx(told["top1_lo"])
        if name == "latency_ms":
            assert one.x[0] + one.error_x.array[0] == pytest.approx(told["latency_ms_hi"])
            assert one.x[0] - one.error_x.arrayminus[0] == pytest.approx(told["latency_ms_lo"])
            assert trace(figure, "evit").error_x.array == (None,)
        assert trace(figure, "evit").error_y.arrayminus == (None,)


def test_the_front_against_compute_is_that_of_the_table(photographs):
    figure = charts.accuracy_by_compute(photographs)
    front = photographs[photographs["pareto"]].groupby(["method", "params", "keep"], dropna=False)
    assert drawn(trace(figure, "Pareto front")) == set(map(tuple, front[["gmacs", "top1"]].mean().round(6).to_numpy()))
    (steps,) = [one for one in figure.data if one.line.shape == "hv"]
    assert list(steps.y) == sorted(set(steps.y))
    assert list(steps.x) == sorted(set(steps.x))


def test_the_front_against_time_has_the_points_that_no_other_beats():
    figure = charts.accuracy_by_latency(comparison())
    points = set().union(*(drawn(one) for one in figure.data if one.mode == "lines+markers"))
    best = {(x, y) for x, y in points if not any(a <= x and b >= y and (a, b) != (x, y) for a, b in points)}
    assert drawn(trace(figure, "Pareto front of the estimates")) == best


def test_hover_texts_show_the_row():
    rows = [row(), row("tp", 0.7, params="algorithm=kmeans,weighted=true"), row("tp", 0.7, params="algorithm=kmedoids")]
    told = trace(charts.accuracy_by_compute(table(*rows)), "tp(algorithm=kmeans,weighted=true)").hovertext[0]
    for part in (
        *("<b>tp(algorithm=kmeans,weighted=true)</b>", "algorithm=kmeans, weighted=true", "keep 0.7"),
        *("stages(at=3-6-9)", "after_attention", "3.63 GMACs, 21.0 % saved", "77.2 % top-1 [75.2, 78.2]"),
        *("-2.0 points [-3.0, -1.0] against the plain model", "batch 32: 40 ms [39, 41]"),
        "1.27× [1.24, 1.30], faster",  # noqa: RUF001
    ):
        assert part in told, told


def test_each_batch_size_and_mode_has_a_view_against_time():
    rows = comparison()
    figure = charts.accuracy_by_latency(rows)
    found = entries(figure)
    assert list(found) == ["batch 1", "batch 256", "batch 256 compile"]
    order = [one.name for one in figure.data]
    for (batch, mode), name in {(1, "eager"): "batch 1", (256, "compile"): "batch 256 compile"}.items():
        data, layout = found[name]
        own = rows[(rows["batch_size"] == batch) & (rows["mode"] == mode) & (rows["method"] == "tome")]
        place = order.index("tome")
        assert sorted(data["x"][place]) == sorted(own["latency_ms"])
        assert name in layout["xaxis.title.text"]
        assert all(len(values) == len(figure.data) for values in data.values())
        # Series that the reader has hidden stay hidden.
        assert "visible" not in data
    assert found["batch 1"][0]["x"][order.index("tome")] == trace(figure, "tome").x
    assert not charts.accuracy_by_latency(rows[rows["batch_size"] == 1]).layout.updatemenus


def cells(figure):
    """The map's cells by row and column: the value of the colour, and whether they are hatched."""
    heat, hatched, numbers = figure.data
    assert {(y, x): text for y, x, text in zip(numbers.y, numbers.x, numbers.text, strict=True)} == {
        (y, x): f"{2**z:.2f}" for y, line in enumerate(heat.z) for x, z in enumerate(line) if z is not None
    }
    marked = {(round(base + 0.5), x) for base, x in zip(hatched.base, hatched.x, strict=True)}
    return {
        (figure.layout.yaxis.ticktext[y], x): (z, (y, x) in marked)
        for y, line in enumerate(heat.z)
        for x, z in enumerate(line)
    }


def test_the_map_distinguishes_faster_from_slower_and_certain_from_uncertain():
    rows = comparison()
    figure = charts.crossover_map(rows[rows["mode"] == "eager"])
    found = cells(figure)
    assert list(figure.layout.xaxis.ticktext) == ["1", "256"] * 3
    assert [note.text for note in figure.layout.annotations] == ["0.9", "0.7", "0.5"]
    assert list(figure.layout.yaxis.ticktext) == ["tome", "evit", "random_selection"]
    for place, (keep, batch) in enumerate((k, b) for k in (0.9, 0.7, 0.5) for b in (1, 256)):
        own = rows[(rows["method"] == "tome") & (rows["keep"] == keep) & (rows["batch_size"] == batch)].iloc[0]
        z, hatched = found["tome", place]
        assert 2**z == pytest.approx(own["speedup"])
        assert hatched == (own["verdict"] != "FASTER")
    assert set(rows["verdict"].dropna()) >= {"FASTER", "SLOWER", "AMBIGUOUS"}
    assert found["random_selection", 0] == (None, False)
    heat = figure.data[0]
    assert heat.zmin == -heat.zmax
    assert heat.zmax >= max(abs(z) for z, _ in found.values() if z is not None)


def test_cells_that_save_nothing_are_not_hatched():
    figure = charts.crossover_map(table(row(), row("tome", 0.9, gmacs_saved=-1.0, verdict="SLOWER", speedup=0.9)))
    assert cells(figure) == {("tome", 0): (pytest.approx(np.log2(0.9)), False)}
    assert figure.layout.xaxis.ticktext == ("0.9",)
    assert figure.layout.xaxis.title.text == "keep, batch 32"


def test_the_map_has_a_view_for_each_mode():
    found = entries(charts.crossover_map(comparison()))
    assert list(found) == ["eager", "compile"]
    assert found["eager"][0]["z"][0] != found["compile"][0]["z"][0]
    assert len(found["eager"][0]["z"][0]) == len(found["compile"][0]["z"][0]) == 3


def test_tokens_per_block_match_the_table(embedded):
    figure = charts.tokens_per_block(embedded)
    found = entries(figure)
    order = [one.name for one in figure.data]
    assert list(found) == ["keep 0.7", "keep 0.5", "keep 0.3"]
    for keep, (data, _) in zip((0.7, 0.5, 0.3), found.values(), strict=True):
        own = embedded[(embedded["method"] == "grid_pooling") & (embedded["keep"] == keep)].iloc[0]
        assert list(data["y"][order.index("grid_pooling")]) == [float(n) for n in own["tokens_per_block"].split()]
        assert list(data["y"][order.index("plain model")]) == [64.0] * 12


def test_hover_texts_name_all_coinciding_lines():
    figure = charts.tokens_per_block(
        table(row(), row("tome", 0.7), row("evit", 0.7), row("dct", 0.7, tokens_per_block="196 9"))
    )
    told = trace(figure, "tome").hovertext
    assert told[0] == "<b>196 tokens after block 0</b><br>plain model<br>tome<br>evit<br>dct"
    assert told[5] == "<b>137 tokens after block 5</b><br>tome<br>evit"
    assert trace(figure, "dct").hovertext[1] == "<b>9 tokens after block 1</b><br>dct"


def test_bars_add_up_to_the_total():
    rows = table(row(), row("tome", 0.7, gmacs_method=0.4), row("evit", 0.7, gmacs_saved=-2.0))
    backbone, own, saved = charts.macs_split(rows).data
    assert [a + b for a, b in zip(backbone.x, own.x, strict=True)] == pytest.approx(saved.x)
    assert own.x == (0.0, 0.4, pytest.approx(0.003))
    assert own.y == (0, 1, 2)
    assert [text.strip() for text in saved.text] == ["", "-21.0 %", "+2.0 %"]
    figure = charts.macs_split(rows)
    assert list(figure.layout.yaxis.ticktext) == ["plain model", "tome", "evit"]
    (line,) = figure.layout.shapes
    assert line.x0 == line.x1 == rows["gmacs"].iloc[0]


def ends(figure):
    """The two ends of each connection, by axis."""
    ties = [one for one in figure.data if one.mode == "lines"]
    return {
        one.yaxis: ((one.x[i], one.y[i]), (one.x[i + 1], one.y[i + 1]), one.line.dash)
        for one in ties
        for i in range(0, len(one.x), 3)
    }


def test_published_and_measured_points_are_connected():
    figure = charts.published_and_measured(table(row(**TOME, gmacs=2.703, top1=78.9, images=50_000)))
    assert ends(figure) == {"y": ((2.7, 78.826), (2.703, 78.9), "solid")}
    hollow, full = (
        next(one for one in figure.data if one.marker.symbol == symbol and one.x != (None,))
        for symbol in ("circle-open", "circle")
    )
    assert drawn(hollow) == {(2.7, 78.826)}
    assert drawn(full) == {(2.703, 78.9)}
    assert "read from" in hollow.hovertext[0]
    assert "+0.07 points" in full.hovertext[0]


def test_incomparable_claims_are_dotted_and_regimes_have_their_own_plots():
    both = [row(**TOME, gmacs=2.703, top1=78.9), row("evit", 0.7, regime="fine-tuned", images=50_000, top1=79.4)]
    figure = charts.published_and_measured(table(row(), *both))
    titles = {axis: figure.layout[axis].title.text for axis in ("yaxis", "yaxis2")}
    assert titles == {"yaxis": "top-1 (%) · off-the-shelf", "yaxis2": "top-1 (%) · fine-tuned"}
    assert figure.layout.yaxis.domain[0] > figure.layout.yaxis2.domain[1]
    ties = {one.yaxis: one.line.dash for one in figure.data if one.mode == "lines" and 79.5 in one.y}
    assert ties == {"y2": "solid"}
    ties = {one.yaxis: one.line.dash for one in figure.data if one.mode == "lines" and 78.826 in one.y}
    assert ties == {"y": "dot"}
    named = [one.name for one in figure.data if one.showlegend is not False]
    assert sorted(named) == ["evit", "measured", "not comparable", "plain model", "published", "tome"]


def test_no_chart_without_claims():
    assert charts.published_and_measured(table(row("tome", 0.7), row("my_method", 0.7))) is None


def test_a_series_looks_the_same_in_all_charts():
    rows = comparison()
    looks = [
        {one.name: (one.line.color, one.marker.symbol, one.line.dash) for one in draw(rows).data if one.name in order}
        for order in [("tome", "evit", "random_selection", "plain model")]
        for draw in (charts.accuracy_by_compute, charts.accuracy_by_latency, charts.tokens_per_block)
    ]
    assert looks[0] == looks[1] == looks[2]
    assert len(set(looks[0].values())) == 4


def test_the_style_of_a_series_does_not_depend_on_what_is_measured():
    done = charts.accuracy_by_compute(table(row(), row("evit", 0.7), row("tome", 0.7)))
    begun = charts.accuracy_by_compute(table(row(), failed("evit"), row("tome", 0.7)))
    assert trace(done, "tome").marker == trace(begun, "tome").marker


def test_forty_series_look_different():
    count = len(SERIES_COLOURS) * len(SYMBOLS)
    looks = series_styles(map(str, range(count))).values()
    assert len({(one.colour, one.symbol) for one in looks}) == count
    few = list(series_styles(map(str, range(len(SERIES_COLOURS) * len(DASHES)))).values())
    assert len({(one.colour, one.dash) for one in few}) == len(few)


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
    assert any("alert(1)" in text for text in found) or draw is charts.published_and_measured
    for text in found:
        assert "<" not in OWN.sub("", text)
        assert not re.search(r"[\x00-\x1f\u202e]", text)
        assert max(len(html.unescape(line)) for line in OWN.sub("\n", text).split("\n")) <= 100
        assert text.count("<br>") < 30


def test_names_that_are_equal_when_cut_stay_separate():
    rows = [row(), *(row("n" * 50 + letter + "n" * 50, 0.7, gmacs=gmacs) for letter, gmacs in (("a", 1.0), ("b", 2.0)))]
    split = charts.macs_split(table(*rows))
    assert len(set(split.layout.yaxis.ticktext)) == 2
    assert split.data[0].y == (0, 1, 2)
    assert len([one for one in charts.accuracy_by_compute(table(*rows)).data if one.x in ((1.0,), (2.0,))]) == 2
    assert len(charts.crossover_map(table(*rows)).data[0].z) == 2


def test_bar_labels_put_parameters_on_their_own_line():
    rows = [row(), *(row("tp", 0.7, params=f"algorithm={name}") for name in ("kmeans", "kmedoids"))]
    tall = charts.macs_split(table(*rows))
    assert tall.layout.yaxis.ticktext == ("plain model", "tp<br>(algorithm=kmeans)", "tp<br>(algorithm=kmedoids)")
    low = charts.macs_split(table(row(), row("tp", 0.7), row("tome", 0.7)))
    assert low.layout.height < tall.layout.height


def test_a_label_keeps_both_ends():
    assert label("tome") == "tome"
    long = label("token_pooling(algorithm=kmedoids,init=scores,w=true)")
    assert len(long) == MAX_LABEL
    assert long.startswith("token_pooling(")
    assert long.endswith("w=true)")
    assert label("<b>&") == "&lt;b&gt;&amp;"
