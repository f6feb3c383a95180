"""Figures and tables for papers, from made-up rows and from the committed reference; their output is parsed."""

import itertools
import json
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt

from tokbench.cli.plot import Axis, plot
from tokbench.errors import UserError
from tokbench.report.paper import table as paper_table
from tokbench.report.paper.figure import ENDINGS, MARKERS, figure, save
from tokbench.report.paper.rows import figure_points, select_rows
from tokbench.results.table import COLUMNS

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "embedded"
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    r"$\frac{$",
    "%_&#",
    "a|b",
    "<script>alert(1)</script>",
    r"\input{x}~^",
    "*bold*",
    "[1ex]",
    "`code` @me !",
    "名",
]
LONG = "endless" * 1400


def row(method="none", keep=1.0, **given):
    """A plausible row for DeiT-Ti."""
    plain = method == "none"
    gmacs = 1.2537 * (0.3 + 0.7 * keep)
    drop = 18 * (1 - keep) ** 1.5
    values = {
        **{"model": "deit_tiny_patch16_224", "method": method, "params": "", "regime": "off-the-shelf"},
        **{"site": "" if plain else "after_attention", "schedule": "" if plain else "stages(at=3-6-9)"},
        **{"keep": keep, "device": "cpu", "dtype": "fp32", "batch_size": 32, "compiled": False, "mode": "eager"},
        **{"attention_kernel": "fused", "status": "ok", "reason": "", "gmacs": gmacs, "gmacs_method": 0.013},
        **{"gmacs_saved": 100 * (1 - gmacs / 1.2537), "latency_ms": 10 * gmacs, "latency_ms_lo": 9.8 * gmacs},
        **{"latency_ms_hi": 10.1 * gmacs, "speedup": 1.25 / gmacs, "speedup_lo": 1.2 / gmacs, "pareto": plain},
        **{"speedup_hi": 1.3 / gmacs, "verdict": "SAME" if plain else "FASTER", "top1": 72.4 - drop, "images": 500},
        **{"top1_lo": 68.5 - drop, "top1_hi": 76.1 - drop, "delta_top1": -drop, "delta_lo": -drop - 0.8},
        "delta_hi": -drop + 0.7,
    }
    return values | given


def lost(method, **given):
    return row(method, 0.7, **{"status": "failed", "reason": "RuntimeError: out of memory", "top1": 99.9} | given)


def table(*rows):
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS)).astype(COLUMNS)


def comparison():
    """Two methods at two keeps, one of them with two seeds, and one that failed; one row is on the Pareto front."""
    return table(
        row(),
        *(row("tome", keep, pareto=keep == 0.5) for keep in (0.5, 0.7)),
        *(
            row("random_selection", keep, seed=seed, top1=50 + seed, top1_lo=45, top1_hi=55)
            for keep in (0.9, 0.7)
            for seed in (0, 2)
        ),
        lost("dpc_knn"),
    )


def drawn(rows, x="gmacs", width=3.3, **asked):
    """The figure and its panels."""
    picture = figure(figure_points(select_rows(rows, **asked), x), x, width)
    return picture, picture.axes


def laid_out(rows, **settings):
    """The figure and its panels after layout."""
    picture, panels = drawn(rows, **settings)
    picture.draw_without_rendering()
    return picture, panels


def texts(svg):
    return ["".join(element.itertext()) for element in ElementTree.parse(svg).iter(f"{SVG}text")]


def marks(svg):
    """The number of markers inside panels, which are clipped, unlike ticks and those in the legend."""
    groups = ElementTree.parse(svg).iter(f"{SVG}g")
    return sum(len(group.findall(f"{SVG}use")) for group in groups if "clip-path" in group.attrib)


def curves(panel):
    """The points of each method's line, without the plain model and the rings."""
    lines = [line for line in panel.lines if line.get_marker() in MARKERS.values()]
    return [np.column_stack(line.get_data()) for line in lines if line.get_markerfacecolor() != "none"]


def test_an_svg_shows_the_content_of_the_table(tmp_path):
    save(drawn(comparison())[0], tmp_path / "fig.svg")
    told = texts(tmp_path / "fig.svg")
    for name in ("tome", "random_selection", "plain model", "Pareto", "95 % interval", "deit_tiny_patch16_224"):
        assert told.count(name) == 1, name
    assert {"GMACs per image", "top-1 (%)"} <= set(told)
    assert "dpc_knn" not in told
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


def timed():
    modes = itertools.product((8, 256), ("eager", "compile"))
    return table(*(row(*what, batch_size=size, mode=mode) for size, mode in modes for what in ((), ("tome", 0.7))))


def test_latency_is_of_one_batch_size_and_mode():
    for asked, told in (
        ({}, "latency (ms), batch 256"),
        ({"batch_size": 8}, "latency (ms), batch 8"),
        ({"mode": "compile"}, "latency (ms), batch 256, compile"),
    ):
        _, (panel,) = drawn(timed(), "latency_ms", **asked)
        assert panel.get_xlabel() == told
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


def test_nothing_to_draw_says_what_to_run():
    unanswered = row("tome", 0.7, top1=np.nan)
    with pytest.raises(UserError, match=r"no accuracy was measured: .*--only macs,accuracy"):
        figure_points(select_rows(table(row(top1=np.nan), unanswered)), "gmacs")
    with pytest.raises(UserError, match=r"no latency was measured: .*--only macs,latency,accuracy"):
        figure_points(select_rows(table(row(latency_ms=np.nan), row("tome", 0.7, latency_ms=np.nan))), "latency_ms")
    with pytest.raises(UserError, match=r"no row has a result \(RuntimeError: out of memory\)"):
        select_rows(table(lost("none"), lost("tome")))


def of_all_kinds():
    names = [row(name, 0.7, pareto=name == "a|b") for name in HOSTILE]
    return table(row(), *names, row(LONG, 0.5), *comparison().iloc[1:].to_dict("records"))


def untex(text):
    """The text that TeX would print for a cell."""
    signs = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<"}
    signs |= {"textgreater": ">", "textbar": "|", "ldots": "…"}
    text = re.sub(r"\\phantom\{[^}]*\}|\$", lambda found: found[0] if found[0] == "$" else "", text)
    text = re.sub(r"\\(\w+)\{\}", lambda found: f"\0{ord(signs[found[1]])}\0", text)
    text = re.sub(r"\\([&%$#_{}])", lambda found: f"\0{ord(found[1])}\0", text)
    text = re.sub(r"\\textbf\{(.*)\}$", r"\1", text)
    assert not re.search(r"[&%#_~^\\<>|]", text.replace(r"\bigstar", "").replace(r"\blacktriangle", "")), text
    return re.sub("\0(\\d+)\0", lambda found: chr(int(found[1])), text.replace("{}", ""))


def tex_table(text):
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")].replace("\\toprule\n", "")
    head, rows = body.split("\\midrule\n")
    cells = [re.split(r"(?<!\\)&", line) for line in (head + rows).split("\\\\\n")[:-1]]
    return [[cell.strip() for cell in line] for line in cells]


def test_latex_is_a_table_whose_cells_are_text():
    text = paper_table.latex(select_rows(of_all_kinds()))
    for line in (r"\begin{table*}", r"\toprule", r"\midrule", r"\bottomrule", r"\end{table*}"):
        assert text.count(f"{line}\n") == 1
    assert r"\label{tab:deit-tiny-patch16-224}" in text
    bare = re.sub(r"\\[{}\\]", "", text)
    assert bare.count("{") == bare.count("}")
    head, *lines = tex_table(text)
    assert len({len(line) for line in (head, *lines)}) == 1
    (columns,) = re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert len(columns) == len(head)
    names = [untex(line[head.index("method")]) for line in lines]
    assert names == ["none", *HOSTILE, f"{LONG[:79]}…", "tome", "", "random_selection", ""]


def test_no_row_starts_with_an_argument_of_the_line_break():
    rows = table(row(pareto=False), row("[1ex]", 0.7), row("*", 0.7))
    _, *lines = tex_table(paper_table.latex(select_rows(rows)))
    assert [line[0] for line in lines] == ["none", "{}[1ex]", "{}*"]


def test_bold_is_the_pareto_front():
    head, *lines = tex_table(paper_table.latex(select_rows(comparison())))
    for line in lines:
        bold = {name for name, cell in zip(head, line, strict=True) if cell.startswith(r"\textbf{")}
        assert bold == ({"GMACs", r"top-1 (\%)"} if line[0] == r"$\bigstar$" else set())
    assert [line[0] != "" for line in lines] == [True, False, True, False, False]


def test_numbers_have_the_digits_of_the_terminal():
    head, *lines = tex_table(paper_table.latex(select_rows(comparison())))
    plain, tome = (dict(zip(head, lines[place], strict=True)) for place in (0, 1))
    assert untex(plain["GMACs"]) == "1.25"
    assert tome["GMACs"] == "0.99"
    assert re.sub(r"\\phantom\{.*?\}", "", tome[r"speedup ($\times$)"]) == "1.26 [1.21, 1.31]"
    assert tome[r"$\Delta$ top-1 (points)"].startswith("$-$3.0 [$-$3.8, $-$2.3]")


def test_markdown_is_a_table_whose_cells_are_text():
    parser = MarkdownIt("commonmark").enable("table")
    tokens = parser.parse(paper_table.markdown(select_rows(of_all_kinds())))
    assert [token.type for token in tokens].count("table_open") == 1
    cells = [after.children for token, after in itertools.pairwise(tokens) if token.type in ("th_open", "td_open")]
    width = [token.type for token in tokens].count("th_open")
    lines = [cells[start : start + width] for start in range(0, len(cells), width)]
    assert {child.type for cell in cells for child in cell} <= {"text", "strong_open", "strong_close"}
    told = [["".join(child.content for child in cell) for cell in line] for line in lines]
    place = told[0].index("method")
    expected = ["none", *HOSTILE, f"{LONG[:79]}…", "tome", "", "random_selection", ""]
    assert [line[place] for line in told[1:]] == expected
    bold = [any(child.type == "strong_open" for child in line[told[0].index("top-1 (%)")]) for line in lines[1:]]
    assert [name for name, strong in zip(expected, bold, strict=True) if strong] == ["none", "a|b", ""]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("x", list(Axis))
def test_the_command_draws_the_reference(here, capsys, x):
    results = shutil.copytree(REFERENCE, here / "results")
    plot(results, x=x, out=Path("fig.svg"))
    rows = pd.read_csv(REFERENCE / "table.csv").query("status == 'ok'")
    settings = rows.groupby(["method", "params", "keep"], dropna=False)[["latency_ms", "top1", "pareto"]].mean()
    assert f"fig.svg: {len(settings)} points" in capsys.readouterr().err
    assert set(rows["method"]) - {"none"} <= {re.sub(r"\(.*", "", text) for text in texts("fig.svg")}
    time, top1 = (settings[name].to_numpy() for name in ("latency_ms", "top1"))
    as_good = (time[:, None] <= time) & (top1[:, None] >= top1)  # including itself
    ringed = settings["pareto"].sum() if x == "gmacs" else (as_good.sum(axis=0) == 1).sum()
    assert marks("fig.svg") == len(settings) + ringed
    plot(results, x=x)
    assert (results / f"{x}.pdf").read_bytes().startswith(b"%PDF")


def test_the_command_writes_tables(here, capsys):
    plot(REFERENCE, latex=True, methods="grid_pooling,random_selection")
    printed = capsys.readouterr().out
    plot(REFERENCE, latex=True, methods="grid_pooling,random_selection", out=Path("table.tex"))
    assert Path("table.tex").read_text() == printed
    assert {line[1] for line in tex_table(printed)} == {"method", "none", r"grid\_pooling", r"random\_selection", ""}
    plot(REFERENCE, markdown=True, out=Path("table.md"))
    assert "| method |" in Path("table.md").read_text()


def test_an_unfinished_directory_works(here):
    (here / "half").mkdir()
    for name in ("plan.json", "environment.json"):
        shutil.copy(REFERENCE / name, here / "half")
    records = [json.loads(line) for line in (REFERENCE / "records.jsonl").read_text().splitlines()]
    plan = json.loads((REFERENCE / "plan.json").read_text())
    kept = {key for planned in plan["rows"][:4] for key in planned["keys"].values()}
    some = [one for one in records if one["kind"] == "noise" or one["key"].split("/")[0] in kept]
    (here / "half" / "records.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in some))
    plot(here / "half", out=Path("fig.svg"))
    assert 4 <= marks("fig.svg") <= 8
    (here / "half" / "records.jsonl").write_text("")
    with pytest.raises(UserError, match=r"no row has a result .*not measured yet"):
        plot(here / "half")


def test_user_errors(here):
    for out in ("fig.jpg", "fig"):
        with pytest.raises(UserError, match=r"must end in \.pdf or \.svg or \.png"):
            plot(REFERENCE, out=Path(out))
    with pytest.raises(UserError, match=r"must end in \.tex"):
        plot(REFERENCE, latex=True, out=Path("table.md"))
    with pytest.raises(UserError, match="one at a time"):
        plot(REFERENCE, latex=True, markdown=True)
    with pytest.raises(UserError, match="no results in nowhere"):
        plot(Path("nowhere"))
    for out in ("missing/fig.pdf", "missing/table.tex"):
        with pytest.raises(UserError, match=f"cannot write {out}"):
            plot(REFERENCE, out=Path(out), latex=out.endswith(".tex"))
    assert not list(here.iterdir())
