"""Figures for papers: panels, points, intervals, legends and files."""

import re

import matplotlib
import numpy as np
import pytest
from paper_rows import HOSTILE, LONG, comparison, curves, drawn, laid_out, lost, marks, row, table, texts

from tokbench.report.paper.figure import ENDINGS, save


def test_an_svg_shows_the_content_of_the_table(tmp_path):
    save(drawn(comparison())[0], tmp_path / "fig.svg")
    found = texts(tmp_path / "fig.svg")
    for name in ("tome", "random_selection", "plain model", "Pareto", "95 % interval", "deit_tiny_patch16_224"):
        assert found.count(name) == 1, name
    assert {"GMACs per image", "top-1 (%)"} <= set(found)
    assert "dpc_knn" not in found
    # Two keeps of each method, the plain model, and the rings around it and around a row.
    assert marks(tmp_path / "fig.svg") == 4 + 1 + 2


def test_seeds_are_averaged_and_keeps_connected_in_order():
    ours, random = curves(drawn(comparison())[1][0])
    expected = [1.2537 * (0.3 + 0.7 * keep) for keep in (0.5, 0.7)]
    np.testing.assert_allclose(ours[:, 0], expected)
    np.testing.assert_allclose(ours[:, 1], [72.4 - 18 * (1 - keep) ** 1.5 for keep in (0.5, 0.7)])
    np.testing.assert_allclose(random[:, 1], [51, 51])
    assert (np.diff(random[:, 0]) > 0).all()


def test_bars_are_the_intervals():
    _, (panel,) = drawn(table(row(), row("tome", 0.7), row("tome", 0.5, top1_lo=np.nan, top1_hi=np.nan)), "latency_ms")
    across, up = (collection.get_segments() for collection in panel.collections)
    gmacs, drop = 1.2537 * (0.3 + 0.7 * 0.7), 18 * 0.3**1.5
    np.testing.assert_allclose(across[1][:, 0], [9.8 * gmacs, 10.1 * gmacs])
    (whole,) = [bar for bar in up if len(bar) and np.isfinite(bar).all()]
    np.testing.assert_allclose(whole[:, 1], [68.5 - drop, 76.1 - drop])


def test_failed_rows_are_not_drawn():
    rows = table(row(), row("tome", 0.7), lost("tome"), lost("evit", status="skipped"))
    points = np.concatenate(curves(drawn(rows)[1][0]))
    assert points.shape == (1, 2)
    assert points[0, 1] < 99


def test_each_model_has_a_panel():
    rows = table(*(row(*setting, model=model) for model in ("a", "b", "c") for setting in ((), ("tome", 0.7))))
    for width, side_by_side in ((3.3, 1), (6.8, 3)):
        picture, panels = laid_out(rows, width=width)
        assert [panel.get_title() for panel in panels] == ["a", "b", "c"]
        assert len({round(panel.get_position().x0, 2) for panel in panels}) == side_by_side
        assert [text.get_text() for text in picture.legends[0].get_texts()].count("tome") == 1


def test_methods_that_cost_the_same_are_ranked():
    accuracies = {"tome": 85.0, "evit": 81.8, "dct": 79.0}
    same = {"schedule": "budget(0.7)", "top1_lo": 75, "top1_hi": 90}
    rows = [row(name, 0.7, top1=top1, gmacs=0.88 + top1 / 1e5, **same) for name, top1 in accuracies.items()]
    _, (panel,) = drawn(table(row(), *rows))
    names = [label.get_text() for label in panel.get_yticklabels()]
    assert names == ["dct", "evit", "tome"]
    (points,) = curves(panel)
    assert dict(zip(names, points[:, 0], strict=True)) == accuracies
    assert panel.get_xlabel() == "top-1 (%) at 0.881 GMACs per image"
    assert drawn(table(row(), *rows, row("ats", 0.9)))[1][0].get_ylabel() == "top-1 (%)"


@pytest.mark.parametrize("count", [3, 42])
def test_all_lines_differ_and_the_legend_covers_nothing(count):
    rows = table(row(), *(row(f"method_{n}", keep) for n in range(count) for keep in (0.9, 0.5)))
    picture, (panel,) = laid_out(rows)
    (legend,) = picture.legends
    assert len({(str(line.get_color()), line.get_marker()) for line in legend.get_lines()[:count]}) == count
    below, above = legend.get_window_extent(), panel.get_tightbbox()
    assert 0 <= below.x0 < below.x1 <= picture.bbox.width
    assert 0 <= below.y0 < below.y1 <= above.y0
    assert picture.get_figwidth() == 3.3
    assert panel.get_window_extent().height / picture.dpi > 1.5


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_same_points_give_the_same_bytes_whatever_the_settings(tmp_path, ending):
    files = [tmp_path / f"{place}{ending}" for place in range(2)]
    save(drawn(comparison())[0], files[0])
    with matplotlib.rc_context({"font.size": 30, "pdf.fonttype": 3, "axes.facecolor": "red", "savefig.bbox": "tight"}):
        save(drawn(comparison())[0], files[1])
        assert matplotlib.rcParams["font.size"] == 30
    assert files[0].read_bytes() == files[1].read_bytes()
    assert not re.search(rb"CreationDate|<dc:date>", files[0].read_bytes())


def test_a_pdf_has_the_columns_width_and_truetype_fonts(tmp_path):
    save(drawn(comparison())[0], tmp_path / "fig.pdf")
    content = (tmp_path / "fig.pdf").read_bytes()
    (box,) = re.findall(rb"/MediaBox \[ ?0 0 ([\d.]+) ", content)
    assert float(box) == pytest.approx(3.3 * 72, abs=0.01)
    assert b"/FontFile2" in content
    assert b"/Type3" not in content


def test_hostile_names_are_text(tmp_path):
    rows = table(row(model="$x_1^{"), *(row(name, keep, model="$x_1^{") for name in HOSTILE for keep in (0.9, 0.5)))
    picture, _ = drawn(rows)
    for ending in ENDINGS:
        save(picture, tmp_path / f"fig{ending}")
    assert {*HOSTILE, "$x_1^{"} <= set(texts(tmp_path / "fig.svg"))


def test_a_name_without_end_leaves_the_figure_its_size():
    long = table(row(model=LONG), *(row(name, keep, model=LONG) for name in (LONG, "W" * 300) for keep in (0.9, 0.5)))
    short = table(row(), *(row(name, keep) for name in ("tome", "evit") for keep in (0.9, 0.5)))
    (picture, (panel,)), (usual, _) = laid_out(long), laid_out(short)
    assert picture.get_figwidth() == 3.3
    assert picture.get_figheight() < usual.get_figheight() + 1.5
    for place in (picture.legends[0].get_window_extent(), panel.title.get_window_extent()):
        assert 0 <= place.x0 < place.x1 <= picture.bbox.width
    same = {"gmacs": 0.88, "schedule": "budget(0.7)"}
    picture, (panel,) = laid_out(table(row(), *(row(name, 0.7, **same) for name in (LONG, "tome"))))
    assert panel.get_window_extent().width > picture.bbox.width / 3
