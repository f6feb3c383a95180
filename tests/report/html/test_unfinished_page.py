"""The page of a comparison that is not finished, or in which rows failed."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from page_reader import Reader, heads_of, table_cells
from stored_results import keep_records, read_records, write_plan, write_records

from tokbench.outcomes import shard_key
from tokbench.report.html.page import render_page
from tokbench.report.html.rerun import rerun_commands
from tokbench.results import load
from tokbench.results.plan import read_plan

Run = Callable[..., tuple[int, str, str]]


def test_an_unfinished_page_says_what_is_missing_and_how_to_resume(results: Path) -> None:
    plan = read_plan(results)
    late = next(row.keys["latency"] for row in plan.rows if row.id.method == "random_selection")
    keep_records(results, lambda record: record["kind"] != "accuracy" and record["key"] != late)
    waiting = sum("accuracy" in row.keys for row in plan.rows)
    untimed = sum(row.keys.get("latency") == late for row in plan.rows)
    read = Reader(render_page(load(results)))
    assert f"{waiting} of {len(plan.rows)} rows are not measured yet" in read.text
    counts = Counter(dict(re.findall(r"(macs|latency|memory|accuracy): (\d+)", read.text)))
    assert counts == {"accuracy": str(waiting), "latency": str(untimed)}
    titles = [element.text for element in read.of("h2")]
    assert "Not measured yet" in titles
    assert "Failed" not in titles
    commands = [element.text for element in read.of("code")]
    assert commands[0] == rerun_commands(plan, results).compare
    assert commands[0] in commands[1:]
    # The numbers measured so far are shown.
    assert "MACs by component" in titles
    column = heads_of(read, "rows-table").index("status")
    assert [row[column].text for row in table_cells(read, "rows-table")].count("not measured yet") == waiting


@pytest.mark.parametrize("lines", [0, 1, 60, 120])
def test_the_page_can_be_written_at_any_time(results: Path, lines: int) -> None:
    write_records(results, read_records(results)[:lines])
    assert "Unfinished" in Reader(render_page(load(results))).text


def test_a_missing_last_shard_of_images_counts_as_not_measured(results: Path) -> None:
    plan = read_plan(results)
    key = shard_key(plan.rows[0].keys["accuracy"], plan.shards[-1])
    keep_records(results, lambda record: record["key"] != key)
    assert "1 of 34 rows are not measured yet (accuracy: 1)" in Reader(render_page(load(results))).text


def test_failed_rows_and_unmeasured_rows_have_separate_sections(results: Path) -> None:
    keep_records(results, lambda record: False)
    plan = read_plan(results)
    failed = (replace(row, failed="no such weights") for row in plan.rows[:10])
    write_plan(results, replace(plan, rows=(*failed, *plan.rows[10:])))
    read = Reader(render_page(load(results)))
    titles = [element.text for element in read.of("h2")]
    assert {"Failed", "Not measured yet"} <= set(titles)
    assert "no such weights" in read.text
    assert "24 of 34 rows are not measured yet" in read.text


def test_a_directory_with_everything_failed(results: Path) -> None:
    keep_records(results, lambda record: False)
    plan = read_plan(results)
    write_plan(results, replace(plan, rows=tuple(replace(row, failed="out of memory") for row in plan.rows)))
    read = Reader(render_page(load(results)))
    titles = [element.text for element in read.of("h2")]
    assert "Failed" in titles
    assert "Accuracy against compute" not in titles
    assert "Unfinished" not in read.text
    assert "34: 34 failed" in read.text
    assert len(table_cells(read, "rows-table")) == 34
