"""The report's page, read with an HTML parser."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from page_reader import PIXEL, Reader, heads_of, table_cells
from stored_results import keep_records, read_records, write_plan, write_records

from tokbench.cli.report import report
from tokbench.errors import UserError, printable
from tokbench.report.html.page import render_page
from tokbench.report.html.sections import for_script
from tokbench.results import MethodInfo, PlannedRow, Results, load
from tokbench.results.plan import read_plan

Run = Callable[..., tuple[int, str, str]]


# Markup, quotes, the end of a script, entities, syntax of templates and Plotly, then 10,000 letters.
HOSTILE = (
    "<script>window.__x = 1</script><img src=x onerror='window.__x = 1'>\"'></td></style><!-- &lt;b&gt; {{ 7 * 7 }} "
    '<b>bold</b> <a href="javascript:window.__x = 1">a</a> $x$ %{x} http://example.org/x '
) + "n" * 10_000
HOSTILE_FILE = "<script>window.__x = 1;\"'><img src=x onerror=window.__x=1>{{ 7 }}.png"


def test_the_page_of_a_real_comparison_is_complete(real: Reader) -> None:
    titles = [element.text for element in real.of("h2")]
    for title in ("compute", "measured time", "equal accuracy", "fewer MACs", "each block", "All rows", "repeat"):
        assert any(title in one for one in titles), title
    links = [element.attributes["href"] for element in real.of("a")]
    assert links == [f"#{element.attributes['id']}" for element in real.of("section")]
    assert len(links) == len(titles)
    for text in ("embedded", "2026-11-21", "Intel(R) Xeon(R) Processor (cpu)", "34: 34 measured", "digits, 1,000"):
        assert text in real.text
    assert "Unfinished" not in real.text
    assert "Failed" not in titles
    charts = [element for element in real.elements if element.attributes.get("class") == "chart"]
    figures = [
        e for e in real.of("script") if e.attributes.get("type") == "application/json" and "id" not in e.attributes
    ]
    assert len(charts) == len(figures) >= 5
    for figure in figures:
        assert set(json.loads(figure.text)) >= {"data", "layout"}


def test_the_table_has_every_row_and_sorts_by_the_measured_values(real: Reader, reference: Results) -> None:
    table = reference.table
    rows = table_cells(real, "rows-table")
    assert len(rows) == len(table)
    columns = heads_of(real, "rows-table")
    for name in ("gmacs", "latency_ms", "speedup", "top1", "delta_top1", "peak_mib", "keep"):
        ordered = [row[columns.index(name)].attributes["data-order"] for row in rows]
        assert [float(text) for text in ordered if text] == pytest.approx(table[name].dropna().tolist())
    assert {row[columns.index("params")].text for row in rows} <= set(map(str, table["params"])) | {""}


def insert_text(directory: Path, text: str) -> None:
    """Put a text into every field that the page shows."""
    plan = read_plan(directory)
    assert plan.images is not None
    first = next(row for row in plan.rows if row.id.method == "grid_pooling")

    def changed(row: PlannedRow) -> PlannedRow:
        if row is first:
            return replace(row, failed=text)
        if row.id.method == "grid_pooling":
            return replace(row, id=replace(row.id, method=text))
        if row.id.method == "score_pruning":
            return replace(row, id=replace(row.id, params=f"score={text}"))
        return replace(row, skipped=text) if row.id.method == "importance_sampling" else row

    write_plan(
        directory,
        replace(
            plan,
            suite=plan.suite.model_copy(update={"description": text, "data": text}),
            images=replace(plan.images, name=text),
            rows=tuple(map(changed, plan.rows)),
            methods={**plan.methods, text: MethodInfo(own=True)},
        ),
    )
    environment = json.loads((directory / "environment.json").read_text())
    environment |= {"device_name": text, "platform": text}
    (directory / "environment.json").write_text(json.dumps(environment))
    records = read_records(directory)
    for record in records:
        if record["kind"] == "latency":
            condition = {"sm_mhz": 1, "memory_mhz": 1, "temperature_c": 1, "throttled": [text]}
            record["value"]["gpu"] = [condition]
    write_records(directory, records)


def test_hostile_texts_are_escaped(results: Path) -> None:
    harmless = shutil.copytree(results, results.with_name("harmless"))
    insert_text(results, HOSTILE)
    # The same length and letters, without special characters; neither text can be parsed as a method call.
    insert_text(harmless, re.sub(r"[^\w ]", ".", HOSTILE))
    (results / HOSTILE_FILE).write_bytes(PIXEL)
    (harmless / re.sub(r"[^\w .]", "-", HOSTILE_FILE)).write_bytes(PIXEL)
    read, plain = Reader(render_page(load(results))), Reader(render_page(load(harmless)))
    assert read.skeleton == plain.skeleton
    shown = printable(HOSTILE)
    assert len(shown) > 10_000
    # Description, images, device, platform, method name, parameters, reasons of a failure and a skip, and a remark.
    assert read.text.count(shown) >= 9
    assert f"measure, with --plugins and the files that define {shown}" in read.text
    assert printable(HOSTILE_FILE) in [element.text for element in read.of("figcaption")]
    for element in read.of("script"):
        if element.attributes.get("type") == "application/json":
            assert "<" not in element.text
            json.loads(element.text)
    ours = [
        e for e in read.elements if any(str(value or "").startswith("javascript:") for value in e.attributes.values())
    ]
    assert ours == []
    assert not any(name.startswith("on") for element in read.elements for name in element.attributes)


def test_json_cannot_end_a_script_element() -> None:
    found = {"name": "</script><!-- <script>"}
    assert "<" not in for_script(json.dumps(found))
    assert json.loads(for_script(json.dumps(found))) == found


def test_nothing_is_fetched(real: Reader) -> None:
    fetching = ("src", "href", "srcset", "poster", "action", "data", "formaction", "background", "style")
    for element in real.elements:
        for name in fetching:
            value = element.attributes.get(name) or ""
            assert not re.search(r"(https?:)?//", value.partition(",")[0]), (element.name, name)
            if name in ("src", "href") and value:
                assert value.startswith(("#", "data:"))
    for style in real.of("style"):
        assert "@import" not in style.text
        assert all(url.startswith("data:") for url in re.findall(r"url\(\s*[\"']?([^)]*)", style.text))
    (picture,) = real.of("img")
    assert str(picture.attributes["src"]).startswith("data:image/png;base64,")


def test_several_models_have_a_chart_each(results: Path) -> None:
    plan = read_plan(results)
    rows = [row for row in plan.rows if row.id.method in ("none", "grid_pooling")]
    others = [replace(row, id=replace(row.id, model="another_vit")) for row in rows]
    write_plan(results, replace(plan, rows=(*rows, *others)))
    read = Reader(render_page(load(results)))
    assert len(table_cells(read, "rows-table")) == 8
    captions = [element.text for element in read.of("span") if "figcaption" in element.path]
    assert len(captions) >= 10
    assert captions == ["digits_deit", "another_vit"] * (len(captions) // 2)


def test_the_page_goes_into_the_results_directory_or_to_out(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep_records(results, lambda record: record["kind"] == "macs")
    report([results])
    written = results / "report.html"
    assert capsys.readouterr().out == f"{written}: {written.stat().st_size / 2**20:.1f} MiB\n"
    elsewhere = results.parent / "other.html"
    report([results], elsewhere)
    assert elsewhere.read_text() == written.read_text()
    assert sorted(path.name for path in results.parent.iterdir()) == ["embedded", "other.html"]


def test_user_errors(results: Path) -> None:
    with pytest.raises(UserError, match="no results in nowhere"):
        report([Path("nowhere")])
    keep_records(results, lambda record: False)
    with pytest.raises(UserError, match=r"cannot write .*missing/x\.html .*--out FILE\.html"):
        report([results], results / "missing" / "x.html")
    assert not [path for path in results.parent.iterdir() if path.name.startswith(".")]
