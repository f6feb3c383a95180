"""Runs side by side: what must agree is compared, and one altered answer is found by name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from measured_parts import edit

import tokbench
from tokbench.errors import UserError
from tokbench.report.html.page import render_combined
from tokbench.results import COLUMNS, Combined, combine, load, runs_under
from tokbench.results.several import TIMES, without_times
from tokbench.results.store import RECORDS, Store

Run = Callable[..., tuple[int, str, str]]
Copy = Callable[..., list[Path]]


def alter(directory: Path, kind: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
    """Change the first record of grid_pooling at keep 0.5, with a fitting checksum; gives its key."""
    rows = json.loads((directory / "plan.json").read_text())["rows"]
    key = next(row["keys"][kind] for row in rows if (row["method"], row["keep"]) == ("grid_pooling", 0.5))
    store = Store(directory)
    place = key if kind == "macs" else f"{key}/0"
    store.add(kind, place, change(store.get(kind, place) or {}))
    return str(place)


def flip_one(image: int) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def change(record: dict[str, Any]) -> dict[str, Any]:
        marks = list(record["outcomes"])
        marks[image] = "1" if marks[image] == "0" else "0"
        return {"outcomes": "".join(marks)}

    return change


@pytest.fixture
def altered(copied: Copy) -> Path:
    """A copy with another answer to the eighth image."""
    (directory,) = copied("keep-5")
    alter(directory, "accuracy", flip_one(7))
    return directory


def test_runs_measured_under_other_settings_agree(made: Path) -> None:
    combined = load(made / "grid", made / "keep-5", made / "random")
    assert list(combined.runs) == ["grid", "keep-5", "random"]
    assert combined.table.columns[0] == "run"
    assert len(combined.table) == sum(len(results.table) for results in combined.runs.values())
    assert combined.disagreements.empty
    assert combined.differences.empty


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_the_altered_answer_is_reported_by_run_row_and_image(made: Path, altered: Path, order: tuple[int, ...]) -> None:
    places = (made / "grid", made / "whole", altered)
    combined = combine([load(places[number]) for number in order])
    (line,) = combined.disagreements.to_dict("records")
    image = list(load(altered).images or {})[7]
    assert (line["run"], line["method"], line["keep"], line["column"]) == (altered.name, "grid_pooling", 0.5, "top1")
    assert (line["images"], line["which"]) == (1, image)
    assert abs(line["value"] - line["other_value"]) == pytest.approx(100 / 150)


def test_the_command_line_names_it_and_fails(run: Run, made: Path, altered: Path, tmp_path: Path) -> None:
    image = list(load(altered).images or {})[7]
    code, out, _ = run("check", str(made / "grid"), str(made / "whole"), str(altered), "--json")
    (finding,) = json.loads(out)["findings"]
    assert (code, finding["outcome"], finding["row"]["method"]) == (1, "disagrees", "grid_pooling")
    assert altered.name in finding["note"]
    assert image in finding["note"]
    page = tmp_path / "page.html"
    code, _, err = run("report", str(made / "grid"), str(altered), "--out", str(page))
    assert code == 0
    for text in (err, page.read_text()):
        assert "runs disagree: grid_pooling at keep 0.5" in text
        assert f"1 other answer ({image})" in text


def test_other_macs_disagree_too(made: Path, copied: Copy) -> None:
    (directory,) = copied("grid")
    alter(directory, "macs", lambda record: {**record, "total": record["total"] + 10**6})
    (line,) = load(made / "whole", made / "keep-5", directory).disagreements.to_dict("records")
    assert (line["run"], line["column"]) == (directory.name, "gmacs")
    assert line["value"] - line["other_value"] == pytest.approx(0.001)


def test_on_another_device_answers_may_differ_and_are_compared_in_pairs(made: Path, altered: Path) -> None:
    edit(altered / "environment.json", lambda content: content.update(device_name="another"))
    combined = load(made / "grid", altered)
    assert combined.disagreements.empty
    (line,) = combined.differences.to_dict("records")
    assert (line["run"], line["images"], line["gained"] + line["lost"]) == (altered.name, 1, 1)
    assert line["delta_lo"] < line["delta"] < line["delta_hi"]
    assert "device_name another and" in line["why"]


def test_a_line_changed_without_its_checksum_is_damage(run: Run, made: Path, copied: Copy) -> None:
    (directory,) = copied("grid")
    lines = (directory / RECORDS).read_text().splitlines(keepends=True)
    number = next(number for number, line in enumerate(lines) if '"accuracy"' in line)
    lines[number] = lines[number].replace('"outcomes": "', '"outcomes": "0', 1)
    (directory / RECORDS).write_text("".join(lines))
    code, out, _ = run("check", str(made / "whole"), str(directory), "--json")
    notes = [finding["note"] for finding in json.loads(out)["findings"]]
    assert code == 4
    assert any("damaged lines" in note and directory.name in note for note in notes)
    assert any("not measured yet" in note for note in notes)


def test_each_new_directory_is_compared_with_the_baseline(run: Run, made: Path, altered: Path) -> None:
    code, out, _ = run("check", str(made / "whole"), str(altered), "--baseline", str(made / "keep-5"), "--json")
    first, second = json.loads(out)
    row = "method == 'grid_pooling' and keep == 0.5"
    before, after = (load(place).table.query(row)["top1"].item() for place in (made / "keep-5", altered))
    outcome, expected_code = ("regressed", 1) if after < before else ("improved", 0)
    (finding,) = second["findings"]
    assert (finding["column"], finding["outcome"]) == ("top1", outcome)
    assert (first["exit_code"], second["exit_code"], code) == (0, expected_code, expected_code)


def test_without_a_common_row_nothing_can_be_checked(run: Run, made: Path, copied: Copy) -> None:
    (other,) = copied("random")
    edit(other / "plan.json", lambda plan: plan.update(rows=[row for row in plan["rows"] if row["method"] != "none"]))
    assert load(made / "grid", other).disagreements.empty
    code, out, _ = run("check", str(made / "grid"), str(other))
    assert code == 4
    assert "no row is in more than one of them" in " ".join(out.split())


def test_a_run_without_images_has_no_answers_to_compare(made: Path) -> None:
    combined = load(made / "macs", made / "whole")
    assert combined.disagreements.empty
    assert "disagree:" not in render_combined(combined)


def test_the_same_directory_twice_and_an_empty_one_are_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="more than once"):
        load(made / "grid", made / "random" / ".." / "grid")
    with pytest.raises(UserError, match="no results in"):
        load(made / "grid", tmp_path)


def test_names_are_unique_and_folders_are_searched(made: Path, tmp_path: Path) -> None:
    for place in ("a/run", "b/run", "b/other"):
        shutil.copytree(made / "grid", tmp_path / place)
    found = runs_under(tmp_path)
    assert found == [tmp_path / "a/run", tmp_path / "b/other", tmp_path / "b/run"]
    combined = tokbench.load(*found)
    assert isinstance(combined, Combined)
    assert list(combined.runs) == ["a/run", "other", "b/run"]


def test_a_page_holds_the_scripts_once_and_each_anchor_once(made: Path) -> None:
    page = render_combined(load(made / "grid", made / "keep-5"))
    assert page.count('id="plotly"') == 1
    anchors = [part.partition('"')[0] for part in page.split(' id="')[1:]]
    assert {"runs", "all-rows", "run-1", "run-2"} <= set(anchors)
    ours = [anchor for anchor in anchors if anchor.startswith("run-")]
    assert len(ours) == len(set(ours))


def test_no_time_is_left_where_runs_are_compared(made: Path) -> None:
    assert {name for name, column in COLUMNS.items() if column.unit in ("ms", "img/s")} <= set(TIMES)
    table = load(made / "grid").table.assign(latency_ms=1.0)
    assert without_times(table)[list(TIMES)].isna().all(axis=None)


def test_latency_of_several_runs_is_refused(run: Run, made: Path) -> None:
    code, _, err = run("plot", str(made / "grid"), str(made / "random"), "--x", "latency_ms")
    assert code == 2
    assert "--x speedup" in err
