"""What the live view writes to a terminal, and that it writes nothing while times are measured."""

import io
import re
import sys
import threading
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest
from live_views import begin, macs_record, many, picture, replay, rows_of, screen, view_of, written
from rich.console import Console
from stored_results import Json

from tokbench.config import load_config
from tokbench.registry import discover, method_class
from tokbench.results.store import Store
from tokbench.run.cells import cells_of
from tokbench.run.measure import measure
from tokbench.run.plan import write_plan
from tokbench.run.prepare import prepare


def test_the_terminal_shows_the_view_and_is_clean_afterwards(planned: Path, terminal: Console) -> None:
    rows = many(planned, 100)
    store = Store(planned)
    streams = sys.stdout, sys.stderr
    with view_of(planned, store, terminal) as view:
        view.get_time = lambda: 0.0
        for at in (0, 30, 31, 99):
            begin(view, "macs", rows[at].keys["macs"])
            assert screen(written(terminal)) == picture(view)
            store.add("macs", rows[at].keys["macs"], macs_record(1e9))
    assert "".join(screen(written(terminal))) == ""
    assert written(terminal).rindex("\x1b[?25h") > written(terminal).rindex("\x1b[?25l")
    assert (sys.stdout, sys.stderr) == streams


def test_ctrl_c_leaves_a_clean_terminal(planned: Path, terminal: Console) -> None:
    streams = sys.stdout, sys.stderr

    def stopped() -> None:
        with view_of(planned, Store(planned), terminal) as view:
            begin(view, "macs", rows_of(planned)[3].keys["macs"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert "".join(screen(written(terminal))) == ""
    assert written(terminal).rindex("\x1b[?25h") > written(terminal).rindex("\x1b[?25l")
    assert (sys.stdout, sys.stderr) == streams


def test_a_disabled_view_writes_nothing(planned: Path) -> None:
    pipe = Console(file=io.StringIO())
    store = Store(planned)
    with view_of(planned, store, pipe, disable=not pipe.is_interactive) as view:
        for _ in replay(store, view):
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
    """Keep the first tokens."""

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
    chosen: Json = {"methods": ["noting", "raising"], "keep": [0.5], "limit": 50, "device": "cpu", "batch_size": [2]}
    chosen |= {"models": ["digits_deit"], "baselines": ["none"]}
    suite = settings.suite("embedded", {**chosen, "seconds": 0.3, "precision": 1e-9})
    prepared = prepare(cells_of(suite, settings, list(known)), suite)
    # Memory is measured in other processes, which take long to start.
    lighter = [{kind: key for kind, key in row.keys.items() if kind != "memory"} for row in prepared.rows]
    rows = tuple(replace(row, keys=keys) for row, keys in zip(prepared.rows, lighter, strict=True))
    prepared = replace(prepared, rows=rows)
    store = Store(tmp_path / "results")
    write_plan(prepared, store.directory)
    noted = sys.modules[method_class("noting").__module__]
    threads = set(threading.enumerate())
    noted.LOOK.append(lambda: (len(written(terminal)), set(threading.enumerate()) <= threads))
    with view_of(store.directory, store, terminal) as view:
        measure(prepared, store, view)
    own = next(row for row in rows_of(store.directory) if row.id.method == "noting")
    timed = store.get("latency", own.keys["latency"])
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
