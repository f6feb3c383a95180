"""What is measured in several processes is what one process measures."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil
import pytest
import torch

import tokbench
from tokbench.results.store import Records

SETTINGS: dict[str, Any] = {
    "models": ["digits_deit"],
    "methods": ["tome", "random_selection"],
    "keep": [0.5],
    "seeds": [0, 1],
    "baselines": ["none"],
    "limit": 120,
    "accuracy_batch": 5,  # 40 images a shard, so that there are three
    "only": ["macs", "accuracy", "agreement"],
    "progress": False,
}


def records_of(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    return {place: dict(record) for place, record in Records(folder).all().items()}


@contextmanager
def watching_copies(see: Callable[[psutil.Process], None]) -> Iterator[None]:
    """Show every process that this one starts to a function, as soon as it is seen."""
    over, seen = Event(), set[int]()

    def watch() -> None:
        while not over.wait(0.02):
            for copy in psutil.Process().children():
                if copy.pid not in seen:
                    seen.add(copy.pid)
                    see(copy)

    watcher = Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


@pytest.fixture(scope="module")
def of_one_process(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], dict[str, Any]]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("one")
    copies: list[psutil.Process] = []
    with watching_copies(copies.append):
        tokbench.compare("embedded", out=folder, **SETTINGS)
    assert copies == []
    return records_of(folder)


def test_several_processes_write_the_same_records(of_one_process: dict[Any, Any], tmp_path: Path) -> None:
    torch.set_num_threads(2)
    copies: list[psutil.Process] = []
    with watching_copies(copies.append):
        tokbench.compare("embedded", out=tmp_path, **SETTINGS)
    assert len(copies) == 2
    assert not any(copy.is_running() for copy in copies)
    assert records_of(tmp_path) == of_one_process


def test_what_copies_did_not_finish_is_measured(of_one_process: dict[Any, Any], tmp_path: Path) -> None:
    torch.set_num_threads(2)
    with watching_copies(psutil.Process.kill):
        tokbench.compare("embedded", out=tmp_path, **SETTINGS)
    assert records_of(tmp_path) == of_one_process


def test_methods_of_somebody_else_run_in_the_process_that_contains_them(tmp_path: Path) -> None:
    torch.set_num_threads(2)
    (tmp_path / "notes_its_process.py").write_text(
        "import os\n"
        "from pathlib import Path\n\n"
        "from tokbench import Downsampler, register\n\n\n"
        '@register("notes_its_process")\n'
        "class NotesItsProcess(Downsampler):\n"
        '    """Note which process runs it."""\n\n'
        "    def forward(self, tokens, keep, context):\n"
        f"        with Path({str(tmp_path / 'processes')!r}).open('a') as file:\n"
        "            print(os.getpid(), file=file)\n"
        "        return tokens.select(context.noise.topk(keep).indices.sort().values)\n"
    )
    settings = {**SETTINGS, "methods": ["notes_its_process"], "seeds": [0]}
    tokbench.compare("embedded", out=tmp_path / "x", plugins=[tmp_path / "notes_its_process.py"], **settings)
    assert set((tmp_path / "processes").read_text().split()) == {str(os.getpid())}
