"""The report's page, read with an HTML parser."""

import json
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from tokbench.run.accuracy import shard_key, shards

from tokbench.cli.report import report
from tokbench.config import Suite, load_config
from tokbench.errors import UserError
from tokbench.notation import printable, split_list
from tokbench.report.html.page import render_page
from tokbench.report.html.rerun import rerun_commands
from tokbench.report.html.sections import for_script
from tokbench.results.table import read_table

Run = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "results/reference/embedded"
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8cfc00000030101"
    "00c9fe92ef0000000049454e44ae426082"
)
VOID = {"meta", "link", "img", "br"}

# Markup, quotes, the end of a script, entities, syntax of templates and Plotly, then 10,000 letters.
HOSTILE = (
    "<script>window.__x = 1</script><img src=x onerror='window.__x = 1'>\"'></td></style><!-- &lt;b&gt; {{ 7 * 7 }} "
    '<b>bold</b> <a href="javascript:window.__x = 1">a</a> $x$ %{x} http://example.org/x '
) + "n" * 10_000
HOSTILE_FILE = "<script>window.__x = 1;\"'><img src=x onerror=window.__x=1>{{ 7 }}.png"


class Element:
    def __init__(self, name: str, attributes: dict[str, str | None], path: tuple[str, ...]) -> None:
        self.name, self.attributes, self.path = name, attributes, path
        self.text = ""


class Reader(HTMLParser):
    """All elements of a page with the text directly in them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs), tuple(one.name for one in self._open))
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop().name == tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self._open[-1].text += data

    def of(self, name: str) -> list[Element]:
        return [element for element in self.elements if element.name == name]

    @property
    def text(self) -> str:
        """The visible text, without scripts and styles."""
        return "\n".join(element.text for element in self.elements if element.name not in ("script", "style"))

    @property
    def skeleton(self) -> list[tuple[str, tuple[str, ...], tuple[str, ...]]]:
        """The structure of the page: elements with their paths and attribute names."""
        return [(element.name, element.path, tuple(sorted(element.attributes))) for element in self.elements]


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A copy of a real comparison."""
    return shutil.copytree(REFERENCE, tmp_path / "embedded")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    """The page of that comparison with an additional picture."""
    results = shutil.copytree(REFERENCE, tmp_path_factory.mktemp("real") / "embedded")
    (results / "tokens.png").write_bytes(PIXEL)
    return Reader(render_page(results))


def change_plan(directory: Path, change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads((directory / "plan.json").read_text())
    change(plan)
    (directory / "plan.json").write_text(json.dumps(plan))
    return plan


def keep_records(directory: Path, kept: Callable[[dict[str, Any]], bool]) -> None:
    lines = (directory / "records.jsonl").read_text().splitlines()
    (directory / "records.jsonl").write_text("".join(f"{line}\n" for line in lines if kept(json.loads(line))))


def insert_text(directory: Path, text: str) -> None:
    """Put a text into every field that the page shows."""

    def change(plan: dict[str, Any]) -> None:
        plan["suite"] |= {"description": text, "data": text}
        plan["images"]["name"] = text
        first, *rest = (row for row in plan["rows"] if row["method"] == "grid_pooling")
        first["failed"] = text
        for row in rest:
            row["method"] = text
        for row in plan["rows"]:
            if row["method"] == "score_pruning":
                row["params"] = f"score={text}"
            if row["method"] == "importance_sampling":
                row["skipped"] = text

    change_plan(directory, change)
    environment = json.loads((directory / "environment.json").read_text())
    environment |= {"device_name": text, "platform": text}
    (directory / "environment.json").write_text(json.dumps(environment))
    records = [json.loads(line) for line in (directory / "records.jsonl").read_text().splitlines()]
    for record in records:
        if record["kind"] == "latency":
            record["value"]["gpu"] = [{"throttled": [text]}]
    (directory / "records.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))


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


def test_the_table_has_every_row_and_sorts_by_the_measured_values(real: Reader) -> None:
    table = read_table(REFERENCE)
    rows = table_cells(real, "rows-table")
    assert len(rows) == len(table)
    columns = heads_of(real, "rows-table")
    for name in ("gmacs", "latency_ms", "speedup", "top1", "delta_top1", "peak_mib", "keep"):
        ordered = [row[columns.index(name)].attributes["data-order"] for row in rows]
        assert [float(text) for text in ordered if text] == pytest.approx(table[name].dropna().tolist())
    assert {row[columns.index("params")].text for row in rows} <= set(map(str, table["params"])) | {""}


def heads_of(read: Reader, name: str) -> list[str]:
    return [str(e.attributes["title"]) for e in inside(read, name) if e.name == "th"]


def table_cells(read: Reader, name: str) -> list[list[Element]]:
    """The cells of a table's body, row by row."""
    rows: list[list[Element]] = []
    for element in inside(read, name):
        if element.name == "tr":
            rows.append([])
        elif element.name == "td":
            rows[-1].append(element)
    return [row for row in rows if row]


def inside(read: Reader, name: str) -> list[Element]:
    """The elements inside the table with this id."""
    start = next(place for place, e in enumerate(read.elements) if e.attributes.get("id") == name)
    rest = read.elements[start + 1 :]
    end = next((place for place, e in enumerate(rest) if "table" not in e.path), len(rest))
    return rest[:end]


def test_hostile_texts_are_escaped(results: Path) -> None:
    harmless = shutil.copytree(results, results.with_name("harmless"))
    insert_text(results, HOSTILE)
    # The same length and letters, without special characters; neither text can be parsed as a method call.
    insert_text(harmless, re.sub(r"[^\w ]", ".", HOSTILE))
    (results / HOSTILE_FILE).write_bytes(PIXEL)
    (harmless / re.sub(r"[^\w .]", "-", HOSTILE_FILE)).write_bytes(PIXEL)
    read, plain = Reader(render_page(results)), Reader(render_page(harmless))
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
    told = {"name": "</script><!-- <script>"}
    assert "<" not in for_script(json.dumps(told))
    assert json.loads(for_script(json.dumps(told))) == told


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


def test_an_unfinished_page_says_what_is_missing_and_how_to_resume(results: Path) -> None:
    plan = json.loads((results / "plan.json").read_text())
    late = next(row["keys"]["latency"] for row in plan["rows"] if row["method"] == "random_selection")
    keep_records(results, lambda record: record["kind"] != "accuracy" and record["key"] != late)
    waiting = sum("accuracy" in row["keys"] for row in plan["rows"])
    untimed = sum(row["keys"].get("latency") == late for row in plan["rows"])
    read = Reader(render_page(results))
    assert f"{waiting} of {len(plan['rows'])} rows are not measured yet" in read.text
    counts = Counter(dict(re.findall(r"(macs|latency|memory|accuracy): (\d+)", read.text)))
    assert counts == {"accuracy": str(waiting), "latency": str(untimed)}
    titles = [element.text for element in read.of("h2")]
    assert "Not measured yet" in titles
    assert "Failed" not in titles
    commands = [element.text for element in read.of("code")]
    assert commands[0] == f"tokbench compare embedded --device cpu --out {results}"
    assert commands[0] in commands[1:]
    # The numbers measured so far are shown.
    assert "MACs by component" in titles
    column = heads_of(read, "rows-table").index("status")
    assert [row[column].text for row in table_cells(read, "rows-table")].count("not measured yet") == waiting


@pytest.mark.parametrize("lines", [0, 1, 30, 60, 120])
def test_the_page_can_be_written_at_any_time(results: Path, lines: int) -> None:
    records = (results / "records.jsonl").read_text().splitlines()
    (results / "records.jsonl").write_text("".join(f"{line}\n" for line in records[:lines]))
    assert "Unfinished" in Reader(render_page(results)).text


def test_a_missing_last_shard_of_images_counts_as_not_measured(results: Path) -> None:
    plan = json.loads((results / "plan.json").read_text())
    key = plan["rows"][0]["keys"]["accuracy"]
    last = shards(plan["images"]["count"], plan["suite"]["accuracy_batch"])[-1]
    keep_records(results, lambda record: record["key"] != shard_key(key, last.start))
    assert "1 of 34 rows are not measured yet (accuracy: 1)" in Reader(render_page(results)).text


def test_failed_rows_and_unmeasured_rows_have_separate_sections(results: Path) -> None:
    keep_records(results, lambda record: False)
    change_plan(results, lambda plan: [row.update(failed="no such weights") for row in plan["rows"][:10]])
    read = Reader(render_page(results))
    titles = [element.text for element in read.of("h2")]
    assert {"Failed", "Not measured yet"} <= set(titles)
    assert "no such weights" in read.text
    assert "24 of 34 rows are not measured yet" in read.text


def test_a_directory_with_everything_failed(results: Path) -> None:
    keep_records(results, lambda record: False)
    change_plan(results, lambda plan: [row.update(failed="out of memory") for row in plan["rows"]])
    read = Reader(render_page(results))
    titles = [element.text for element in read.of("h2")]
    assert "Failed" in titles
    assert "Accuracy against compute" not in titles
    assert "Unfinished" not in read.text
    assert "34: 34 failed" in read.text
    assert len(table_cells(read, "rows-table")) == 34


def test_several_models_have_a_chart_each(results: Path) -> None:
    def twice(plan: dict[str, Any]) -> None:
        rows = [row for row in plan["rows"] if row["method"] in ("none", "grid_pooling")]
        plan["rows"] = [*rows, *({**row, "model": "another_vit"} for row in rows)]

    change_plan(results, twice)
    read = Reader(render_page(results))
    assert len(table_cells(read, "rows-table")) == 8
    captions = [element.text for element in read.of("span") if "figcaption" in element.path]
    assert len(captions) >= 10
    assert captions == ["digits_deit", "another_vit"] * (len(captions) // 2)


def test_the_command_plans_the_same_cells(run: Run, results: Path) -> None:
    plan = json.loads((results / "plan.json").read_text())
    rerun = rerun_commands(plan, results)
    assert rerun.compare == f"tokbench compare embedded --device cpu --out {results}"
    # The keys depend on the versions that measured.
    assert [without_keys(row) for row in cells(run, shlex.split(rerun.compare))] == list(
        map(without_keys, plan["rows"])
    )


def test_the_command_sets_everything_that_differs(run: Run) -> None:
    asked = {
        **{"methods": "tome,token_pooling(algorithm=kmeans,weighted=false),none(attention=eager)", "keep": "0.9,0.25"},
        **{"schedule": "every_block", "batch_size": "2,3", "seeds": "4", "limit": "7", "only": "macs,accuracy"},
        **{"device": "cpu", "site": "after_attention", "seconds": "0.5", "threads": "1", "workers": "1"},
    }
    flags = [word for name, value in asked.items() for word in (f"--{name.replace('_', '-')}", value)]
    rows = cells(run, ["tokbench", "compare", "embedded", *flags])
    lists = {name: split_list(asked[name]) for name in ("methods", "keep", "batch_size", "seeds", "only")}
    suite = load_config(ROOT / "tokbench.toml").suite("embedded", {**asked, **lists})
    plan = {"suite": suite.model_dump(mode="json"), "device": "cpu", "rows": rows}
    rerun = rerun_commands(plan, Path("second"))
    assert rerun.suite == ""
    # A cell's keys cover everything that its measurements depend on: the limit, the data, the time limit.
    assert cells(run, shlex.split(rerun.compare)) == rows
    told = shlex.split(rerun.compare)
    assert {flag for flag in told if flag.startswith("--")} == {f for f in flags if f.startswith("--")} | {"--out"}


def test_settings_without_an_option_go_into_a_file(tmp_path: Path) -> None:
    plan = json.loads((REFERENCE / "plan.json").read_text())
    plan["suite"] |= {"accuracy_batch": 7, "precision": 0.2, "data": 'a "folder" of\nmine', "site": "before_block"}
    rerun = rerun_commands(plan, tmp_path / "out")
    assert rerun.compare == f"tokbench compare again --config again.toml --out {tmp_path}/out"
    (tmp_path / "again.toml").write_text(rerun.suite)
    read = load_config(tmp_path / "again.toml").suite("again", {})
    wanted = Suite(
        **{**plan["suite"], "device": "cpu", "data": f"{tmp_path}/{plan['suite']['data']}", "description": ""}
    )
    assert read == wanted


def test_unknown_methods_are_listed(results: Path) -> None:
    plan = change_plan(results, lambda plan: [row.update(method="strange") for row in plan["rows"][1:]])
    assert rerun_commands(plan, results).unknown_methods == ("strange",)


def test_the_page_goes_into_the_results_directory_or_to_out(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(results)
    written = results / "report.html"
    assert capsys.readouterr().out == f"{written}: {written.stat().st_size / 2**20:.1f} MiB\n"
    elsewhere = results.parent / "other.html"
    report(results, elsewhere)
    assert elsewhere.read_text() == written.read_text()
    assert sorted(path.name for path in results.parent.iterdir()) == ["embedded", "other.html"]


def test_user_errors(results: Path) -> None:
    with pytest.raises(UserError, match="no results in nowhere"):
        report(Path("nowhere"))
    with pytest.raises(UserError, match=r"cannot write .*missing/x\.html .*--out FILE\.html"):
        report(results, results / "missing" / "x.html")
    assert not [path for path in results.parent.iterdir() if path.name.startswith(".")]


def cells(run: Run, command: list[str]) -> list[dict[str, Any]]:
    """The cells that a command would measure."""
    assert command[0] == "tokbench"
    code, out, err = run(*command[1:], "--plan", "--json")
    assert code == 0, err
    planned: list[dict[str, Any]] = json.loads(out)["cells"]
    return planned


def without_keys(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "keys"}
