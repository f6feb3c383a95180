"""Top-1 against compute and time, compared with the rows that the charts are made from."""

import pandas as pd
import pytest
from chart_rows import SMALL, comparison, drawn, entries, row, table, trace

from tokbench.report.charts.accuracy import accuracy_by_compute, accuracy_by_latency


def test_each_setting_is_one_point_against_compute(embedded):
    figure = accuracy_by_compute(embedded)
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
    assert trace(accuracy_by_latency(table(*rows)), "tome").x == (40.0, 50.0, 30.0)


def test_batch_sizes_modes_and_seeds_share_one_point_against_compute():
    one = trace(accuracy_by_compute(comparison()), "random_selection")
    assert one.y == (71.0,)
    assert "3 seeds" in one.hovertext[0]
    for setup in ("batch 1:", "batch 256:", "batch 256 compile:"):
        assert setup in one.hovertext[0]


def test_error_bars_match_the_intervals_of_the_table():
    rows = table(row(), row("tome", 0.7), row("evit", 0.7, top1_lo=None, latency_ms_hi=None))
    for figure, name in ((accuracy_by_compute(rows), "gmacs"), (accuracy_by_latency(rows), "latency_ms")):
        text = rows.set_index("method").loc["tome"]
        one = trace(figure, "tome")
        assert one.y[0] + one.error_y.array[0] == pytest.approx(text["top1_hi"])
        assert one.y[0] - one.error_y.arrayminus[0] == pytest.approx(text["top1_lo"])
        if name == "latency_ms":
            assert one.x[0] + one.error_x.array[0] == pytest.approx(text["latency_ms_hi"])
            assert one.x[0] - one.error_x.arrayminus[0] == pytest.approx(text["latency_ms_lo"])
            assert trace(figure, "evit").error_x.array == (None,)
        assert trace(figure, "evit").error_y.arrayminus == (None,)


def test_the_front_against_compute_is_that_of_the_table(photographs):
    figure = accuracy_by_compute(photographs)
    front = photographs[photographs["pareto"]].groupby(["method", "params", "keep"], dropna=False)
    assert drawn(trace(figure, "Pareto front")) == set(map(tuple, front[["gmacs", "top1"]].mean().round(6).to_numpy()))
    (steps,) = [one for one in figure.data if one.line.shape == "hv"]
    assert list(steps.y) == sorted(set(steps.y))
    assert list(steps.x) == sorted(set(steps.x))


def test_the_front_against_time_is_that_of_the_table():
    rows = comparison()
    rows["pareto_time"] = rows["keep"].lt(0.8)
    figure = accuracy_by_latency(rows)
    view = rows[(rows["batch_size"] == rows["batch_size"].iloc[0]) & (rows["mode"] == rows["mode"].iloc[0])]
    best = view[view["pareto_time"] & view["latency_ms"].notna() & view["top1"].notna() & view["status"].eq("ok")]
    assert len(best)
    averaged = best.groupby(["method", "params", "keep"], dropna=False)[["latency_ms", "top1"]].mean()
    assert drawn(trace(figure, "Pareto front")) == set(map(tuple, averaged.round(6).to_numpy()))


def test_hover_texts_show_the_row():
    rows = [row(), row("tp", 0.7, params="algorithm=kmeans,weighted=true"), row("tp", 0.7, params="algorithm=kmedoids")]
    text = trace(accuracy_by_compute(table(*rows)), "tp(algorithm=kmeans,weighted=true)").hovertext[0]
    for part in (
        *("<b>tp(algorithm=kmeans,weighted=true)</b>", "algorithm=kmeans, weighted=true", "keep 0.7"),
        *("stages(at=3-6-9)", "after_attention", "3.63 GMACs, 21.0 % saved", "77.2 % top-1 [75.2, 78.2]"),
        *("-2.0 points [-3.0, -1.0] against the plain model", "batch 32: 40 ms [39, 41]"),
        "1.27× [1.24, 1.30], faster",  # noqa: RUF001
    ):
        assert part in text, text


def test_each_batch_size_and_mode_has_a_view_against_time():
    rows = comparison()
    figure = accuracy_by_latency(rows)
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
    assert not accuracy_by_latency(rows[rows["batch_size"] == 1]).layout.updatemenus


TINY = "deit_tiny_patch16_224"
CHARTS = {accuracy_by_compute: "gmacs", accuracy_by_latency: "latency_ms"}


def family():
    """Two models with baselines; only the larger one has a second method."""
    rows = []
    for model, scale in ((SMALL, 1.0), (TINY, 0.25)):

        def one(method="none", keep=1.0, model=model, scale=scale, **given):
            made = row(method, keep, model=model, **given)
            return made | {name: scale * made[name] for name in ("gmacs", "latency_ms")}

        rows += [one(), *(one("tome", keep) for keep in (0.9, 0.5))]
        rows += [one(params=f"img_size={side}", gmacs=side / 50, latency_ms=side / 5) for side in (192, 160)]
    return table(*rows, row("evit", 0.7))


@pytest.mark.parametrize(("draw", "x"), CHARTS.items())
def test_models_of_one_family_share_the_axes(draw, x):
    rows = family()
    lines = [one for one in draw(rows).data if one.name == "tome"]
    for model, one in zip((TINY, SMALL), lines, strict=True):
        own = rows[(rows["model"] == model) & (rows["method"] == "tome")]
        assert drawn(one) == set(zip(own[x].round(6), own["top1"].round(6), strict=True))
        assert all(text.startswith(model) for text in one.hovertext)
    smaller, larger = lines
    assert smaller.marker.size < larger.marker.size
    assert smaller.line == larger.line
    assert smaller.legendgroup == larger.legendgroup
    assert [one.showlegend for one in lines] == [True, False]  # one entry in the legend


@pytest.mark.parametrize(("draw", "x"), CHARTS.items())
def test_the_plain_models_of_a_family_are_one_line_with_names(draw, x):
    rows = family()
    plain = rows[rows["method"].eq("none") & rows["params"].eq("")].sort_values(x)
    one = trace(draw(rows), "plain models")
    assert list(one.x) == pytest.approx(list(plain[x]))
    assert list(one.text) == list(plain["model"]) == [TINY, SMALL]


@pytest.mark.parametrize(("draw", "x"), CHARTS.items())
def test_fewer_pixels_are_one_line_for_each_model_that_ends_at_the_plain_model(draw, x):
    rows = family()
    lines = [one for one in draw(rows).data if one.name == "fewer pixels"]
    for model, one in zip((TINY, SMALL), lines, strict=True):
        own = rows[(rows["model"] == model) & (rows["method"] == "none")].sort_values(x)
        assert list(one.x) == pytest.approx(list(own[x]))
        assert "img_size=160" in one.hovertext[0]
    alone = draw(rows[rows["model"] == SMALL])
    assert drawn(trace(alone, "fewer pixels")) == drawn(lines[1])


def test_baselines_do_not_change_the_colours_of_methods():
    rows = family()
    without = rows[~rows["params"].str.contains("img_size")]
    for draw in CHARTS:
        for name in ("tome", "evit"):
            assert trace(draw(rows), name).line == trace(draw(without), name).line


def test_a_view_has_the_traces_of_all_models_and_series():
    """The larger model was timed at one batch size only."""
    rows = family()
    more = rows[rows["model"] == TINY].assign(batch_size=1)
    figure = accuracy_by_latency(pd.concat([rows, more]))
    for data, _ in entries(figure).values():
        assert all(len(values) == len(figure.data) for values in data.values())
