"""The live view during a run, replayed record by record: numbers, records of earlier runs, and the time left."""

import shutil
from collections import Counter
from pathlib import Path

import pytest
from live_views import begin, macs_record, picture, replay, rows_of, view_of
from rich.console import Console
from stored_results import REFERENCE, Json, read_records

from tokbench.report.terminal.live import time_left
from tokbench.results import load
from tokbench.results.store import Records, Store

SHOWN = ("gmacs", "latency_ms", "speedup", "top1")


def test_the_live_table_becomes_the_final_table(planned: Path, terminal: Console) -> None:
    rows = rows_of(planned)
    store = Store(planned)
    with view_of(planned, store, terminal) as view:

        def cells(shown: list[str]) -> list[list[str]]:
            return [line.split()[-len(SHOWN) :] for line in shown[1 : len(rows) + 1]]

        shown = picture(view, height=100)
        assert cells(shown) == [["…"] * len(SHOWN)] * len(rows)
        assert "time left: unknown" in shown
        for record in replay(store, view):
            before, shown = shown, picture(view, height=100)
            kind, key = record["kind"], record["key"].partition("/")[0]
            assert [line.startswith("▶") for line in shown[1 : len(rows) + 1]] == [
                row.keys.get(kind) == key for row in rows
            ]
            assert f"now: {kind}" in "\n".join(shown)
            assert len({len(line) for line in shown[: len(rows) + 1]}) == 1  # numbers are aligned with their headings
            for old_cells, new_cells in zip(cells(before), cells(shown), strict=True):
                for old, new in zip(old_cells, new_cells, strict=True):
                    assert new == old or old.endswith("…")  # known numbers stay
                    assert new != "…" or old == "…"
        end = picture(view, height=100)
        assert f"{len(rows)} done" in end
    table = load(planned).table
    for line, row in zip(cells(end), table.to_dict("records"), strict=True):
        # Three digits, and three decimals at most.
        assert [float(text) for text in line] == [pytest.approx(row[name], rel=0.005, abs=0.0005) for name in SHOWN]


def test_a_record_is_read_once(planned: Path, terminal: Console) -> None:
    found: Counter[tuple[str, str]] = Counter()

    class Counting(Records):
        def get(self, kind: str, key: str) -> Json | None:
            record = super().get(kind, key)
            found[kind, key] += record is not None
            return record

    shutil.copy(REFERENCE / "records.jsonl", planned)
    view = view_of(planned, Counting(planned), terminal)
    for _ in range(3):
        picture(view)
    assert {place for place, times in found.items() if times} == {
        (record["kind"], record["key"]) for record in read_records(REFERENCE) if record["kind"] != "noise"
    }
    assert max(found.values()) == 1


def test_a_resumed_run_starts_with_the_stored_records(planned: Path, terminal: Console) -> None:
    rows = rows_of(planned)
    store = Store(planned)
    key = rows[1].keys["macs"]
    store.add("failed", f"macs/{key}", {"reason": "an old reason"})
    store.add("macs", rows[0].keys["macs"], macs_record(4.6e9))
    view = view_of(planned, store, terminal)
    shown = picture(view, height=100)
    assert shown[1].split()[-4:] == ["4.60", "…", "…", "…"]
    # It will be retried.
    assert "✗" not in "".join(shown)
    assert f"{len(rows)} waiting" in shown
    assert "time left: unknown" in shown
    begin(view, "macs", key)
    store.add("failed", f"macs/{key}", {"reason": "a new reason"})
    begin(view, "latency", rows[0].keys["latency"])
    shown = picture(view, height=100)
    assert shown[2].startswith("✗ token_pooling")
    assert shown[2].split()[-4:] == ["✗", "…", "…", "…"]
    assert f"✗ {shown[2].split()[1]}: a new reason" in shown
    assert f"1 running · 1 failed · {len(rows) - 2} waiting" in shown


def test_the_time_left_is_extrapolated_from_this_run() -> None:
    assert time_left({"macs": 3, "latency": 4}, {}) == "unknown"
    assert time_left({"macs": 0, "latency": 4}, {"macs": 2.0}) == "unknown"
    assert time_left({"macs": 3, "latency": 4}, {"macs": 20.0}) == "about 0:01:00, not counting latency"
    assert time_left({"macs": 0, "latency": 4}, {"macs": 20.0, "latency": 30.0}) == "about 0:02:00"
    assert time_left({"macs": 0, "latency": 0}, {"macs": 20.0, "latency": 30.0}) == "about 0:00:00"


def test_the_pace_only_counts_this_run(planned: Path, terminal: Console) -> None:
    rows = rows_of(planned)
    keys = list(dict.fromkeys(row.keys["macs"] for row in rows))
    store = Store(planned)
    store.add("macs", keys[0], macs_record(1e9))  # by an earlier run
    view = view_of(planned, store, terminal)
    clock = [0.0]
    view.get_time = lambda: clock[0]
    view.planned("macs", len(keys) - 1)
    for key in keys[1:3]:
        clock[0] += 30
        store.add("macs", key, macs_record(1e9))
        view.measured("macs")
    minutes, half = divmod(len(keys) - 3, 2)
    expected = f"time left: about 0:{minutes:02}:{30 * half:02}, not counting "
    assert any(line.startswith(expected) for line in picture(view))
