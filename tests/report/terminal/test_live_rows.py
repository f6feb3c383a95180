"""The rows of the live view: numbers, running rows, failures, and names that are too long."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from live_views import begin, many, picture, rows_of, set_rows, view_of
from rich.cells import cell_len
from rich.console import Console
from stored_results import REFERENCE, read_records

from tokbench.report.terminal.live import visible_rows
from tokbench.results.store import Store

HOSTILE = "odd [/] [bold]shape[/bold] <script>alert(1)</script> :smile: \x1b[31m\x1b[2J\nand " + "so on " * 2000


def test_top1_is_updated_while_images_are_classified(planned: Path, terminal: Console) -> None:
    row = rows_of(planned)[0]
    store = Store(planned)
    view = view_of(planned, store, terminal)
    parts = [record for record in read_records(REFERENCE) if record["key"].startswith(row.keys["accuracy"])]
    answers = ""
    for number, record in enumerate(parts, 1):
        outcomes = "??" + record["value"]["outcomes"][2:]  # two that could not be read
        store.add("accuracy", record["key"], {"outcomes": outcomes})
        answers += outcomes[2:]
        cell = picture(view)[1].split()[-1]
        assert cell.endswith("…") == (number < len(parts))
        assert float(cell.rstrip("…")) == pytest.approx(100 * answers.count("0") / len(answers), abs=0.05)


def test_a_shared_measurement_is_named_once_and_marked_on_each_row(planned: Path, terminal: Console) -> None:
    rows = rows_of(planned)
    seeds = [row for row in rows if row.id.method == "random_selection" and row.id.keep == 0.5]
    assert len(seeds) == 3
    view = view_of(planned, Store(planned), terminal)
    begin(view, "latency", seeds[0].keys["latency"])
    shown = "\n".join(picture(view, height=100))
    assert shown.count("▶ random_selection") == shown.count("▶") == 3
    assert "now: latency, random_selection, keep 0.5\n" in shown
    assert "3 running" in shown
    begin(view, "accuracy", seeds[1].keys["accuracy"])
    shown = "\n".join(picture(view, height=100))
    assert shown.count("▶") == 1
    assert "now: accuracy, random_selection, keep 0.5, seed 1\n" in shown
    view.announce("noise floor")
    shown = "\n".join(picture(view, height=100))
    assert "▶" not in shown
    assert "now: noise floor\n" in shown


def test_the_running_model_is_named_if_there_are_several(planned: Path, terminal: Console) -> None:
    rows = rows_of(planned)[:3]
    others = [
        replace(row, id=replace(row.id, model="other"), keys=dict.fromkeys(row.keys, f"other {number}"))
        for number, row in enumerate(rows)
    ]
    set_rows(planned, [*rows, *others])
    view = view_of(planned, Store(planned), terminal)
    begin(view, "macs", "other 2")
    shown = picture(view)
    assert [line.split()[-6] for line in shown[1:7]][::3] == ["digits_deit", "other"]
    assert shown[6].startswith("▶ token_pooling")
    assert any(re.fullmatch(r"now: macs, token_pooling\S*, keep 0.5, in other", line) for line in shown)
    begin(view, "macs", "other 0")
    assert "now: macs, other, keep 1" in picture(view)


def test_the_latest_failures_are_shown_below_fewer_rows(planned: Path, terminal: Console) -> None:
    rows = many(planned, 100)
    store = Store(planned)
    view = view_of(planned, store, terminal)
    for number in range(5):
        begin(view, "macs", rows[number + 10].keys["macs"])
        store.add("failed", f"macs/{rows[number + 10].keys['macs']}", {"reason": f"reason {number}"})
    shown = picture(view)
    assert len(shown) < 24
    assert [line[-8:] for line in shown if "reason" in line] == ["reason 2", "reason 3", "reason 4"]
    assert any(line.startswith("▶") for line in shown)


def test_a_skipped_measurement_is_no_failure(planned: Path, terminal: Console) -> None:
    row = next(row for row in rows_of(planned) if row.id.method == "token_pooling")
    set_rows(planned, [rows_of(planned)[0], replace(row, keys={name: row.keys[name] for name in ("macs", "latency")})])
    store = Store(planned)
    view = view_of(planned, store, terminal)
    store.add("failed", f"latency/{row.keys['latency']}", {"reason": "no such operator", "skipped": True})
    shown = picture(view)
    assert shown[2].startswith("  token_pooling")  # its MACs are still waited for
    assert "no such operator" not in "\n".join(shown)
    store.add("failed", f"macs/{row.keys['macs']}", {"reason": "no such operator", "skipped": True})
    shown = picture(view)
    assert shown[2].startswith("- token_pooling")
    assert "no such operator" not in "\n".join(shown)
    assert "1 skipped" in "\n".join(shown)


@pytest.mark.parametrize("height", [24, 50, 9, 3])
def test_the_running_row_is_visible_on_a_small_terminal(planned: Path, terminal: Console, height: int) -> None:
    rows = many(planned, 500)
    view = view_of(planned, Store(planned), terminal)
    for at in (0, 1, 7, 250, 487, 499):
        begin(view, "macs", rows[at].keys["macs"])
        shown = picture(view, height=height)
        assert len(shown) < max(height, 8)  # one line is left for the cursor
        (row,) = [line.split() for line in shown if line.startswith("▶")]
        assert str(at) in row
        first, last = next(
            map(int, match.groups()) for line in shown if (match := re.match(r"rows (\d+) to (\d+)", line))
        )
        assert first - 1 <= at < last
        assert last - first + 1 == max(1, height - 7)
        assert "1 running · 499 waiting" in shown


@given(st.integers(1, 600), st.integers(1, 80), st.data())
def test_pages_are_fixed_and_contain_the_row(count: int, room: int, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, count - 1))
    shown = visible_rows(count, at, room)
    assert at in shown
    assert len(shown) == min(count, room)
    assert 0 <= shown.start <= shown.stop <= count
    assert len({visible_rows(count, row, room) for row in range(count)}) == -(-count // room)


def test_rows_that_are_not_measured_show_the_reason(planned: Path, terminal: Console) -> None:
    rows = rows_of(planned)
    rows[1] = replace(rows[1], skipped="needs fine-tuned weights", keys={})
    rows[2] = replace(rows[2], failed="KeyError: 'layer 7'")
    set_rows(planned, rows)
    shown = picture(view_of(planned, Store(planned), terminal), height=100)
    assert re.fullmatch(r"- token_pooling\S* +0\.7", shown[2])
    assert re.fullmatch(r"✗ token_pooling\S* +0\.5", shown[3])
    assert f"✗ {shown[3].split()[1]}: KeyError: 'layer 7'" in shown
    assert f"1 failed · 1 skipped · {len(rows) - 2} waiting" in shown


@pytest.mark.parametrize("width", [200, 80, 40, 12])
def test_names_and_reasons_are_shown_literally_on_one_line(planned: Path, terminal: Console, width: int) -> None:
    rows = [replace(row, id=replace(row.id, model=f"model {HOSTILE}")) for row in rows_of(planned)]
    rows[1] = replace(rows[1], id=replace(rows[1].id, method=HOSTILE, params=f"a={HOSTILE}"))
    rows[2] = replace(rows[2], failed=HOSTILE)
    set_rows(planned, rows)
    store = Store(planned)
    view = view_of(planned, store, terminal)
    begin(view, "macs", rows[1].keys["macs"])
    store.add("failed", f"latency/{rows[1].keys['latency']}", {"reason": HOSTILE})
    shown = picture(view, width=width, height=100)
    assert len(shown) == len(rows) + 8
    assert max(map(cell_len, shown)) <= width
    assert all(line.isprintable() for line in shown)
    if width == 200:
        assert shown[1].startswith("  model odd [/] [bold]shape[/bold] <script>")
        assert shown[2].startswith("▶ odd [/] [bold]shape[/bold] <script>")
        assert re.search(r"\n✗ token_pooling\S*: odd \[/\] \[bold\]shape\[/bold\] <script>", "\n".join(shown))
        assert "now: macs, odd [/] [bold]shape[/bold] <script>alert(1)</script> :smile:" in "\n".join(shown)
