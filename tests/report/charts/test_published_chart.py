"""Published numbers beside measured ones."""

from chart_rows import TOME, drawn, published_and_measured, row, table


def ends(figure):
    """The two ends of each connection, by axis."""
    ties = [one for one in figure.data if one.mode == "lines"]
    return {
        one.yaxis: ((one.x[i], one.y[i]), (one.x[i + 1], one.y[i + 1]), one.line.dash)
        for one in ties
        for i in range(0, len(one.x), 3)
    }


def test_published_and_measured_points_are_connected():
    figure = published_and_measured(table(row(**TOME, gmacs=2.703, top1=78.9, images=50_000)))
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
    figure = published_and_measured(table(row(), *both))
    titles = {axis: figure.layout[axis].title.text for axis in ("yaxis", "yaxis2")}
    assert titles == {"yaxis": "top-1 (%) · off-the-shelf", "yaxis2": "top-1 (%) · fine-tuned"}
    assert figure.layout.yaxis.domain[0] > figure.layout.yaxis2.domain[1]
    ties = {one.yaxis: one.line.dash for one in figure.data if one.mode == "lines" and 79.5 in one.y}
    assert ties == {"y2": "solid"}
    ties = {one.yaxis: one.line.dash for one in figure.data if one.mode == "lines" and 78.826 in one.y}
    assert ties == {"y": "dot"}
    named = [one.name for one in figure.data if one.showlegend is not False]
    assert sorted(named) == ["evit fine-tuned", "measured", "not comparable", "plain model", "published", "tome"]


def test_no_chart_without_claims():
    assert published_and_measured(table(row("tome", 0.7), row("my_method", 0.7))) is None
