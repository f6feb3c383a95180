"""Measuring in several processes of a machine: the records are those of one process, even if the others die."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from tokbench.comparison import plan_comparison
from tokbench.config import load_config
from tokbench.distributed.processes import measure_in_processes
from tokbench.results.store import Store
from tokbench.run.measure import measure
from tokbench.run.observer import Silent
from tokbench.run.prepare import Prepared

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are copied on Linux only")

SETTINGS = {"models": ["digits_deit_16"], "methods": ["token_pooling", "random_selection"], "keep": [0.5], "limit": 200}
EXACT = ("macs", "accuracy", "agreement")

PLUGIN = """
import torch

from tokbench import Downsampler, register


@register("first_tokens")
class FirstTokens(Downsampler):
    '''Keep the first tokens.'''

    def forward(self, tokens, keep, context):
        return tokens.select(torch.arange(keep).expand(len(tokens.x), -1))
"""


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    """As many processes as there are threads are started."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def planned(*plugins: Path, **settings: object) -> Prepared:
    """A small comparison."""
    config = load_config(None)
    suite = config.suite("embedded", {**SETTINGS, "only": EXACT, **settings})
    return plan_comparison(suite, config, plugins).prepared


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """What one process measures."""
    store = Store(tmp_path_factory.mktemp("whole"))
    measure(planned(), store, Silent())
    return store


def test_the_records_are_those_of_one_process(whole: Store, tmp_path: Path) -> None:
    store = Store(tmp_path)
    measure_in_processes(planned(), store, Silent())
    assert store.all() == whole.all()
    assert Store(tmp_path).all() == whole.all()  # on the disk


def test_only_what_is_missing_is_measured(whole: Store, tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.add_all(dict(list(whole.all().items())[::2]))
    measure_in_processes(planned(), store, Silent())
    assert store.all() == whole.all()
    assert len((tmp_path / "records.jsonl").read_text().splitlines()) == len(whole.all())


class Killing(Silent):
    """An observer that kills the copies when the first measurement arrives."""

    def measured(self, kind: str, count: int = 1) -> None:
        """Kill what this process has started."""
        for process in psutil.Process().children():
            process.kill()


def test_what_dead_processes_leave_is_measured_by_this_one(whole: Store, tmp_path: Path) -> None:
    prepared, store = planned(), Store(tmp_path)
    measure_in_processes(prepared, store, Killing())
    assert 0 < len(store.all()) < len(whole.all())
    measure(prepared, store, Silent())
    assert store.all() == whole.all()


def test_nothing_is_timed_beside_others(tmp_path: Path) -> None:
    store = Store(tmp_path)
    measure_in_processes(planned(only=["macs", "latency", "accuracy"]), store, Silent())
    assert {kind for kind, _ in store.all()} == {"macs", "accuracy"}


def test_methods_of_others_are_left_to_one_process(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(PLUGIN)
    store = Store(tmp_path / "results")
    measure_in_processes(planned(tmp_path / "own.py", methods=["first_tokens"]), store, Silent())
    assert store.all() == {}
    assert psutil.Process().children() == []
