"""The maps of speedups, the tokens per block, and the MACs by component."""

import numpy as np
import pytest
from chart_rows import comparison, entries, row, table, trace

from tokbench.report.charts.cost import crossover_map, macs_split, tokens_per_block


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
    figure = crossover_map(rows[rows["mode"] == "eager"])
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
    figure = crossover_map(table(row(), row("tome", 0.9, gmacs_saved=-1.0, verdict="SLOWER", speedup=0.9)))
    assert cells(figure) == {("tome", 0): (pytest.approx(np.log2(0.9)), False)}
    assert figure.layout.xaxis.ticktext == ("0.9",)
    assert figure.layout.xaxis.title.text == "keep, batch 32"


def test_the_map_has_a_view_for_each_mode():
    found = entries(crossover_map(comparison()))
    assert list(found) == ["eager", "compile"]
    assert found["eager"][0]["z"][0] != found["compile"][0]["z"][0]
    assert len(found["eager"][0]["z"][0]) == len(found["compile"][0]["z"][0]) == 3


def test_tokens_per_block_match_the_table(embedded):
    figure = tokens_per_block(embedded)
    found = entries(figure)
    order = [one.name for one in figure.data]
    assert list(found) == ["keep 0.7", "keep 0.5", "keep 0.3"]
    for keep, (data, _) in zip((0.7, 0.5, 0.3), found.values(), strict=True):
        own = embedded[(embedded["method"] == "grid_pooling") & (embedded["keep"] == keep)].iloc[0]
        assert list(data["y"][order.index("grid_pooling")]) == [float(n) for n in own["tokens_per_block"].split()]
        assert list(data["y"][order.index("plain model")]) == [64.0] * 12


def test_hover_texts_name_all_coinciding_lines():
    figure = tokens_per_block(
        table(row(), row("tome", 0.7), row("evit", 0.7), row("dct", 0.7, tokens_per_block="196 9"))
    )
    text = trace(figure, "tome").hovertext
    assert text[0] == "<b>196 tokens after block 0</b><br>plain model<br>tome<br>evit<br>dct"
    assert text[5] == "<b>137 tokens after block 5</b><br>tome<br>evit"
    assert trace(figure, "dct").hovertext[1] == "<b>9 tokens after block 1</b><br>dct"


def test_bars_add_up_to_the_total():
    rows = table(row(), row("tome", 0.7, gmacs_method=0.4), row("evit", 0.7, gmacs_saved=-2.0))
    backbone, own, saved = macs_split(rows).data
    assert [a + b for a, b in zip(backbone.x, own.x, strict=True)] == pytest.approx(saved.x)
    assert own.x == (0.0, 0.4, pytest.approx(0.003))
    assert own.y == (0, 1, 2)
    assert [text.strip() for text in saved.text] == ["", "-21.0 %", "+2.0 %"]
    figure = macs_split(rows)
    assert list(figure.layout.yaxis.ticktext) == ["plain model", "tome", "evit"]
    (line,) = figure.layout.shapes
    assert line.x0 == line.x1 == rows["gmacs"].iloc[0]


def test_bar_labels_put_parameters_on_their_own_line():
    rows = [row(), *(row("tp", 0.7, params=f"algorithm={name}") for name in ("kmeans", "kmedoids"))]
    tall = macs_split(table(*rows))
    assert tall.layout.yaxis.ticktext == ("plain model", "tp<br>(algorithm=kmeans)", "tp<br>(algorithm=kmedoids)")
    low = macs_split(table(row(), row("tp", 0.7), row("tome", 0.7)))
    assert low.layout.height < tall.layout.height
