"""The live view of a run on the terminal: of a real run, and of a stored one replayed record by record."""

import io
import json
import re
import shutil
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress, TaskID

from tokbench.config import load_config
from tokbench.registry import discover, method_class
from tokbench.report.terminal.live import Watch, time_left, visible_rows
from tokbench.results.store import Records, Store
from tokbench.results.table import read_table, write_plan
from tokbench.run.measure import run as measure
from tokbench.run.plan import plan
from tokbench.run.prepare import prepare

REFERENCE = Path(__file__).parents[2] / "results/reference/embedded"
HOSTILE = "odd [/] [bold]shape[/bold] <script>alert(1)</script> :smile: \x1b[31m\x1b[2J\nand " + "so on " * 2000
SHOWN = ("gmacs", "latency_ms", "speedup", "top1")

Record = dict[str, Any]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Console:
    monkeypatch.setenv("TERM", "xterm-256color")
    return Console(file=io.StringIO(), force_terminal=True, color_system=None, width=80, height=24)


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    """A directory with the plan of the reference, without records."""
    shutil.copy(REFERENCE / "plan.json", tmp_path)
    return tmp_path


def written(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def screen(text: str) -> list[str]:
    """The lines on a terminal after this text; it supports the control sequences that the live view uses."""
    lines, row, column = [""], 0, 0
    for token in re.findall(r"\x1b\[\??[\d;]*[A-Za-z]|[\r\n]|[^\x1b\r\n]+", text):
        if token == "\r":
            column = 0
        elif token == "\n":
            row, column = row + 1, 0
            lines += [""] * (row == len(lines))
        elif token.startswith("\x1b"):
            row -= int(token[2:-1]) if token.endswith("A") else 0
            assert row >= 0
            lines[row] = "" if token.endswith("K") else lines[row]
        else:
            before, after = lines[row][:column].ljust(column), lines[row][column + len(token) :]
            lines[row], column = before + token + after, column + len(token)
    return [line.rstrip() for line in lines]


def picture(progress: Progress, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height)
    console.print(progress)
    return [line.rstrip() for line in written(console).splitlines()]


def edit(directory: Path, rows: list[Record]) -> None:
    path = directory / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"rows": rows}))


def rows_of(directory: Path) -> list[Record]:
    rows: list[Record] = json.loads((directory / "plan.json").read_text())["rows"]
    return rows


def records() -> list[Record]:
    """The records of the reference run, in order."""
    return [json.loads(line) for line in (REFERENCE / "records.jsonl").read_text().splitlines()]


def replay(store: Store, progress: Progress) -> Iterator[Record]:
    """Replay the reference run, yielding each record while its measurement is running."""
    for kind, group in groupby(records(), key=lambda record: str(record["kind"])):
        task = progress.add_task(kind, total=None, kind=kind)
        for record in group:
            progress.update(task, key=record["key"].partition("/")[0], refresh=True)
            yield record
            store.add(kind, record["key"], record["value"])
            progress.advance(task)
        progress.update(task, key=None, refresh=True)


def begin(progress: Progress, kind: str, key: str) -> TaskID:
    task = progress.add_task(kind, total=1, kind=kind)
    progress.update(task, key=key, refresh=True)
    return task


def test_the_live_table_becomes_the_final_table(planned: Path, terminal: Console) -> None:
    rows = rows_of(planned)
    store = Store(planned)
    with Watch(store, terminal) as progress:

        def cells(shown: list[str]) -> list[list[str]]:
            return [line.split()[-len(SHOWN) :] for line in shown[1 : len(rows) + 1]]

        shown = picture(progress, height=100)
        assert cells(shown) == [["…"] * len(SHOWN)] * len(rows)
        assert "time left: unknown" in shown
        for record in replay(store, progress):
            before, shown = shown, picture(progress, height=100)
            kind, key = record["kind"], record["key"].partition("/")[0]
            assert [line.startswith("▶") for line in shown[1 : len(rows) + 1]] == [
                row["keys"].get(kind) == key for row in rows
            ]
            assert f"now: {kind}" in "\n".join(shown)
            assert len({len(line) for line in shown[: len(rows) + 1]}) == 1  # numbers are aligned with their headings
            for old_cells, new_cells in zip(cells(before), cells(shown), strict=True):
                for old, new in zip(old_cells, new_cells, strict=True):
                    assert new == old or old.endswith("…")  # known numbers stay
                    assert new != "…" or old == "…"
        end = picture(progress, height=100)
        assert f"{len(rows)} done" in end
    table = read_table(planned)
    for line, row in zip(cells(end), table.to_dict("records"), strict=True):
        # Three digits, and three decimals at most.
        assert [float(text) for text in line] == [pytest.approx(row[name], rel=0.005, abs=0.0005) for name in SHOWN]


def test_top1_is_updated_while_images_are_classified(planned: Path, terminal: Console) -> None:
    row = rows_of(planned)[0]
    store = Store(planned)
    progress = Watch(store, terminal)
    parts = [record for record in records() if record["key"].startswith(row["keys"]["accuracy"])]
    said = ""
    for number, record in enumerate(parts, 1):
        outcomes = "??" + record["value"]["outcomes"][2:]  # two that could not be read
        store.add("accuracy", record["key"], {"outcomes": outcomes})
        said += outcomes[2:]
        cell = picture(progress)[1].split()[-1]
        assert cell.endswith("…") == (number < len(parts))
        assert float(cell.rstrip("…")) == pytest.approx(100 * said.count("0") / len(said), abs=0.05)


def test_a_shared_measurement_is_named_once_and_marked_on_each_row(planned: Path, terminal: Console) -> None:
    rows = rows_of(planned)
    seeds = [row for row in rows if row["method"] == "random_selection" and row["keep"] == 0.5]
    assert len(seeds) == 3
    progress = Watch(Store(planned), terminal)
    begin(progress, "latency", seeds[0]["keys"]["latency"])
    shown = "\n".join(picture(progress, height=100))
    assert shown.count("▶ random_selection") == shown.count("▶") == 3
    assert "now: latency, random_selection, keep 0.5\n" in shown
    assert "3 running" in shown
    begin(progress, "accuracy", seeds[1]["keys"]["accuracy"])
    shown = "\n".join(picture(progress, height=100))
    assert shown.count("▶") == 1
    assert "now: accuracy, random_selection, keep 0.5, seed 1\n" in shown
    progress.add_task("noise floor", total=None)
    shown = "\n".join(picture(progress, height=100))
    assert "▶" not in shown
    assert "now: noise floor\n" in shown


def test_the_running_model_is_named_if_there_are_several(planned: Path, terminal: Console) -> None:
    rows = rows_of(planned)[:3]
    others = [{**row, "model": "other", "keys": dict.fromkeys(row["keys"], f"other {n}")} for n, row in enumerate(rows)]
    edit(planned, [*rows, *others])
    progress = Watch(Store(planned), terminal)
    begin(progress, "macs", "other 2")
    shown = picture(progress)
    assert [line.split()[-6] for line in shown[1:7]][::3] == ["digits_deit", "other"]
    assert shown[6].startswith("▶ token_pooling")
    assert any(re.fullmatch(r"now: macs, token_pooling\S*, keep 0.5, in other", line) for line in shown)
    begin(progress, "macs", "other 0")
    assert "now: macs, other, keep 1" in picture(progress)


def test_the_latest_failures_are_shown_below_fewer_rows(planned: Path, terminal: Console) -> None:
    rows = many(planned, 100)
    store = Store(planned)
    progress = Watch(store, terminal)
    for number in range(5):
        begin(progress, "macs", rows[number + 10]["keys"]["macs"])
        store.add("failed", f"macs/{rows[number + 10]['keys']['macs']}", {"reason": f"reason {number}"})
    shown = picture(progress)
    assert len(shown) < 24
    assert [line[-8:] for line in shown if "reason" in line] == ["reason 2", "reason 3", "reason 4"]
    assert any(line.startswith("▶") for line in shown)


def many(directory: Path, count: int) -> list[Record]:
    """A plan with this many rows, each with its own measurements."""
    plain, *others = rows_of(directory)
    rows = [
        {**row, "seed": number, "keys": {kind: f"{kind} {number}" for kind in row["keys"]}}
        for number, row in enumerate([plain, *others * count][:count])
    ]
    edit(directory, rows)
    return rows


@pytest.mark.parametrize("height", [24, 50, 9, 3])
def test_the_running_row_is_visible_on_a_small_terminal(planned: Path, terminal: Console, height: int) -> None:
    rows = many(planned, 500)
    progress = Watch(Store(planned), terminal)
    for at in (0, 1, 7, 250, 487, 499):
        begin(progress, "macs", rows[at]["keys"]["macs"])
        shown = picture(progress, height=height)
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


def test_a_record_is_read_once(planned: Path, terminal: Console) -> None:
    found: Counter[tuple[str, str]] = Counter()

    class Counting(Records):
        def get(self, kind: str, key: str) -> Record | None:
            record = super().get(kind, key)
            found[kind, key] += record is not None
            return record

    shutil.copy(REFERENCE / "records.jsonl", planned)
    progress = Watch(Counting(planned), terminal)
    for _ in range(3):
        picture(progress)
    assert {place for place, times in found.items() if times} == {
        (record["kind"], record["key"]) for record in records() if record["kind"] != "noise"
    }
    assert max(found.values()) == 1


def test_a_resumed_run_starts_with_the_stored_records(planned: Path, terminal: Console) -> None:
    rows = rows_of(planned)
    store = Store(planned)
    key = rows[1]["keys"]["macs"]
    store.add("failed", f"macs/{key}", {"reason": "an old story"})
    store.add("macs", rows[0]["keys"]["macs"], {"total": 4.6e9})
    progress = Watch(store, terminal)
    shown = picture(progress, height=100)
    assert shown[1].split()[-4:] == ["4.60", "…", "…", "…"]
    # It will be retried.
    assert "✗" not in "".join(shown)
    assert f"{len(rows)} waiting" in shown
    assert "time left: unknown" in shown
    begin(progress, "macs", key)
    store.add("failed", f"macs/{key}", {"reason": "a new story"})
    begin(progress, "latency", rows[0]["keys"]["latency"])
    shown = picture(progress, height=100)
    assert shown[2].startswith("✗ token_pooling")
    assert shown[2].split()[-4:] == ["✗", "…", "…", "…"]
    assert f"✗ {shown[2].split()[1]}: a new story" in shown
    assert f"1 running · 1 failed · {len(rows) - 2} waiting" in shown


def test_rows_that_are_not_measured_show_the_reason(planned: Path, terminal: Console) -> None:
    rows = rows_of(planned)
    rows[1] |= {"skipped": "needs fine-tuned weights", "keys": {}}
    rows[2] |= {"failed": "KeyError: 'layer 7'"}
    edit(planned, rows)
    shown = picture(Watch(Store(planned), terminal), height=100)
    assert re.fullmatch(r"- token_pooling\S* +0\.7", shown[2])
    assert re.fullmatch(r"✗ token_pooling\S* +0\.5", shown[3])
    assert f"✗ {shown[3].split()[1]}: KeyError: 'layer 7'" in shown
    assert f"1 failed · 1 skipped · {len(rows) - 2} waiting" in shown


@pytest.mark.parametrize("width", [200, 80, 40, 12])
def test_names_and_reasons_are_shown_literally_on_one_line(planned: Path, terminal: Console, width: int) -> None:
    rows = rows_of(planned)
    for row in rows:
        row["model"] = f"model {HOSTILE}"
    rows[1] |= {"method": HOSTILE, "params": f"a={HOSTILE}"}
    rows[2] |= {"failed": HOSTILE}
    edit(planned, rows)
    store = Store(planned)
    progress = Watch(store, terminal)
    begin(progress, "macs", rows[1]["keys"]["macs"])
    store.add("failed", f"latency/{rows[1]['keys']['latency']}", {"reason": HOSTILE})
    shown = picture(progress, width=width, height=100)
    assert len(shown) == len(rows) + 8
    assert max(map(cell_len, shown)) <= width
    assert all(line.isprintable() for line in shown)
    if width == 200:
        assert shown[1].startswith("  model odd [/] [bold]shape[/bold] <script>")
        assert shown[2].startswith("▶ odd [/] [bold]shape[/bold] <script>")
        assert re.search(r"\n✗ token_pooling\S*: odd \[/\] \[bold\]shape\[/bold\] <script>", "\n".join(shown))
        assert "now: macs, odd [/] [bold]shape[/bold] <script>alert(1)</script> :smile:" in "\n".join(shown)


def test_the_time_left_is_extrapolated_from_this_run() -> None:
    assert time_left({"macs": 3, "latency": 4}, {}) == "unknown"
    assert time_left({"macs": 0, "latency": 4}, {"macs": 2.0}) == "unknown"
    assert time_left({"macs": 3, "latency": 4}, {"macs": 20.0}) == "about 0:01:00, not counting latency"
    assert time_left({"macs": 0, "latency": 4}, {"macs": 20.0, "latency": 30.0}) == "about 0:02:00"
    assert time_left({"macs": 0, "latency": 0}, {"macs": 20.0, "latency": 30.0}) == "about 0:00:00"


def test_the_pace_only_counts_this_run(planned: Path, terminal: Console) -> None:
    rows = rows_of(planned)
    keys = list(dict.fromkeys(row["keys"]["macs"] for row in rows))
    store = Store(planned)
    store.add("macs", keys[0], {"total": 1e9})  # by an earlier run
    progress = Watch(store, terminal)
    clock = [0.0]
    progress.get_time = lambda: clock[0]
    task = progress.add_task("macs", total=len(keys) - 1, kind="macs")
    for key in keys[1:3]:
        clock[0] += 30
        store.add("macs", key, {"total": 1e9})
        progress.advance(task)
    minutes, half = divmod(len(keys) - 3, 2)
    expected = f"time left: about 0:{minutes:02}:{30 * half:02}, not counting "
    assert any(line.startswith(expected) for line in picture(progress))


def test_the_terminal_shows_the_view_and_is_clean_afterwards(planned: Path, terminal: Console) -> None:
    rows = many(planned, 100)
    store = Store(planned)
    streams = sys.stdout, sys.stderr
    with Watch(store, terminal) as progress:
        progress.get_time = lambda: 0.0
        for at in (0, 30, 31, 99):
            begin(progress, "macs", rows[at]["keys"]["macs"])
            assert screen(written(terminal)) == picture(progress)
            store.add("macs", rows[at]["keys"]["macs"], {"total": 1e9})
    assert "".join(screen(written(terminal))) == ""
    assert written(terminal).rindex("\x1b[?25h") > written(terminal).rindex("\x1b[?25l")
    assert (sys.stdout, sys.stderr) == streams


def test_ctrl_c_leaves_a_clean_terminal(planned: Path, terminal: Console) -> None:
    streams = sys.stdout, sys.stderr

    def stopped() -> None:
        with Watch(Store(planned), terminal) as progress:
            begin(progress, "macs", rows_of(planned)[3]["keys"]["macs"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert "".join(screen(written(terminal))) == ""
    assert written(terminal).rindex("\x1b[?25h") > written(terminal).rindex("\x1b[?25l")
    assert (sys.stdout, sys.stderr) == streams


def test_disabled_it_writes_nothing(planned: Path) -> None:
    pipe = Console(file=io.StringIO())
    store = Store(planned)
    with Watch(store, pipe, disable=not pipe.is_interactive) as progress:
        for _ in replay(store, progress):
            pass
    assert written(pipe) == ""


METHODS = '''
import threading
import torch
from tokbench import Context, Downsampler, Tokens, register

LOOK = []  # what to note at every call
SEEN = []


@register("noting")
class Noting(Downsampler):
    """Keeps the first ones."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        SEEN.extend(look() for look in LOOK)
        return tokens.select(torch.arange(keep).expand(len(tokens.x), keep))


@register("raising")
class Raising(Downsampler):
    """Raises."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        raise RuntimeError("out of [bold]ideas[/]")
'''


def test_nothing_is_drawn_and_no_thread_runs_during_timing(tmp_path: Path, terminal: Console) -> None:
    plugin = tmp_path / "noting_method.py"
    plugin.write_text(METHODS)
    settings = load_config()
    known, _ = discover([plugin])
    # With this precision the time limit is used up: several times the interval of 0.1 s at which rich draws by itself.
    chosen: Record = {"methods": ["noting", "raising"], "keep": [0.5], "limit": 50, "device": "cpu", "batch_size": [2]}
    suite = settings.suite("embedded", {**chosen, "seconds": 0.3, "precision": 1e-9})
    prepared = prepare(plan(suite, settings, list(known)), suite)
    # Memory is measured in other processes, which take long to start.
    lighter = [{kind: key for kind, key in row.keys.items() if kind != "memory"} for row in prepared.rows]
    rows = tuple(replace(row, keys=keys) for row, keys in zip(prepared.rows, lighter, strict=True))
    prepared = replace(prepared, rows=rows)
    store = Store(tmp_path / "results")
    write_plan(prepared, store)
    noted = sys.modules[method_class("noting").__module__]
    threads = set(threading.enumerate())
    noted.LOOK.append(lambda: (len(written(terminal)), set(threading.enumerate()) <= threads))
    with Watch(store, terminal) as progress:
        measure(prepared, store, progress)
    own = next(row for row in rows_of(store.directory) if row["method"] == "noting")
    timed = store.get("latency", own["keys"]["latency"])
    assert timed is not None
    # Nothing was drawn during warm-up and all rounds, at each of the three depths.
    longest = max(len(list(group)) for _, group in groupby(position for position, _ in noted.SEEN))
    assert longest > 3 * len(timed["other_s"])
    assert all(alone for _, alone in noted.SEEN)
    text = re.sub(r"\x1b\[\??[\d;]*[A-Za-z]", "", written(terminal))
    for kind in ("macs", "latency", "accuracy"):
        assert f"now: {kind}, noting, keep 0.5" in text
    assert "now: noise floor" in text
    assert "✗ raising: RuntimeError: out of [bold]ideas[/] (noting_method.py:" in text
