"""A comparison on two Ray nodes: does it survive the death of one, and are two workers twice as fast as one?

    python benchmarks/wide.py DATA WEIGHTS [MODEL]

Nodes of one core each are started on this machine. First one of two is killed (its workers and its raylet, SIGKILL) in
the middle of an accuracy pass: the answers must be complete and those of a local run, and nothing may be measured again
that was on the disk. Then the pass is timed on one node and on two, in turn (one, two, two, one), with workers that
have loaded everything, from its start to its last record.

Writes results/speed/wide.txt.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import Any

import psutil
from kept import SPEED, keep
from rich.progress import Progress
from speed import Answers, accuracy_plan, answer
from tokbench.run.accuracy import shard_key, shards

from tokbench.distributed.ray_cluster import SETTINGS, connected
from tokbench.distributed.ray_run import run_wide
from tokbench.results.store import RECORDS, Store
from tokbench.run.prepare import Prepared

METHODS, KEEPS = ("evit", "tome", "random_selection"), (0.7, 0.5)
SUITE: dict[str, Any] = {"threads": 1, "workers": 0, "seeds": (0,), "device": "cpu", "accuracy_batch": 8}
WANTED = 0.85
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}


@contextmanager
def cluster(nodes: int) -> Iterator[Any]:
    """A cluster of nodes with one core each on this machine."""
    from ray.cluster_utils import Cluster  # reads the settings when it is imported

    made = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        for _ in range(1, nodes):
            made.add_node(**NODE)
        yield made
    finally:
        made.shutdown()  # type: ignore[no-untyped-call]


def run(prepared: Prepared, directory: Path, done: Answers | None = None) -> int:
    """The whole pass on the cluster that is connected, but for parts that are done; what was measured in vain."""
    store = Store(directory)
    store.add_all({("accuracy", key): {"outcomes": outcomes} for key, outcomes in (done or {}).items()})
    with Progress(disable=True) as progress:
        return run_wide(prepared, store, progress)


def answers(prepared: Prepared, directory: Path) -> Answers:
    """What was said of all images, by row."""
    store = Store(directory)
    found = {}
    for row in prepared.rows:
        keys = [shard_key(row.keys["accuracy"], span.start) for span in _spans(prepared)]
        parts = [store.get("accuracy", key) for key in keys]
        found[row.keys["accuracy"]] = "".join(part["outcomes"] if part else "(missing)" for part in parts)
    return found


def survive(prepared: Prepared, local: Answers) -> tuple[bool, list[str]]:
    """Kill one of two nodes when half of the pass is done."""
    wanted = len(prepared.rows) * len(_spans(prepared))
    killed: list[int] = []
    with tempfile.TemporaryDirectory() as folder, cluster(1) as made:
        node = made.add_node(**NODE)
        records = Path(folder) / RECORDS

        def kill() -> None:
            while not records.is_file() or len(records.read_bytes().splitlines()) < wanted // 2:
                time.sleep(0.05)
            killed.append(len(records.read_bytes().splitlines()))
            [raylet] = node.all_processes["raylet"]
            victim = psutil.Process(raylet.process.pid)
            for process in [*victim.children(recursive=True), victim]:
                process.kill()

        killer = threading.Thread(target=kill)
        with connected(made.address):
            killer.start()
            in_vain = run(prepared, Path(folder))
            killer.join()
        places = Counter((one["kind"], one["key"]) for one in map(json.loads, records.read_bytes().splitlines()))
        found = answers(prepared, Path(folder))
    complete = len(places) == wanted
    alike = found == local
    once = max(places.values()) == 1 and in_vain == 0
    return complete and alike and once, [
        f"one of two nodes killed after {killed[0]} of {wanted} records:",
        f"  the table is {'complete' if complete else 'NOT complete'}, its answers are "
        f"{'those of a local run' if alike else 'NOT those of a local run'}",
        f"  records that came though they were on the disk: {in_vain}; lines that repeat another: "
        f"{sum(places.values()) - len(places)} (wanted: none): {'met' if once else 'NOT met'}",
    ]


def seconds(prepared: Prepared, local: Answers, nodes: int) -> float:
    """Of the pass on so many nodes, whose workers have prepared it already."""
    spans = _spans(prepared)
    # One stretch at each end is left to do: two parts, for as many workers as there are.
    done = {shard_key(key, span.start): "" for key in local for span in spans[1:-1]}
    with tempfile.TemporaryDirectory() as warm, tempfile.TemporaryDirectory() as folder:
        with cluster(nodes) as made, connected(made.address):
            run(prepared, Path(warm), done)
            start = time.perf_counter()
            run(prepared, Path(folder))
            spent = time.perf_counter() - start
        if answers(prepared, Path(folder)) != local:
            raise AssertionError("the answers are not those of a local run")
    return spent


def _spans(prepared: Prepared) -> list[range]:
    return shards(len(prepared.images or ()), prepared.suite.accuracy_batch)


def main(data: str, weights: str, model: str = "deit_tiny_patch16_224") -> None:
    """Measure and tell.

    Args:
        data: An image set.
        weights: The model's.
        model: A name that timm knows.
    """
    os.environ.update(SETTINGS)
    prepared = accuracy_plan(data, weights, model, METHODS, KEEPS, **SUITE)
    alone, local = answer(prepared.rows, prepared)
    survived, lines = survive(prepared, local)
    one: list[float] = []
    two: list[float] = []
    for several in (False, True, True, False):
        (two if several else one).append(seconds(prepared, local, 2 if several else 1))
    efficiency = fmean(one) / (2 * fmean(two))
    keep(
        SPEED / "wide.txt",
        (
            f"{model}, {len(prepared.rows)} cells, {len(prepared.images or ())} images, "
            f"batches of {prepared.suite.accuracy_batch}, one thread a worker; ray {version('ray')}",
            *lines,
            f"the accuracy pass without Ray: {alone:.1f} s",
            f"on one worker with one core:   {' and '.join(f'{spent:.1f} s' for spent in one)}",
            f"on two workers with one each:  {' and '.join(f'{spent:.1f} s' for spent in two)}",
            f"  {100 * efficiency:.0f} % of ideal (wanted: {100 * WANTED:.0f} %): "
            + ("met" if efficiency >= WANTED else "NOT met"),
        ),
        ("python", "torch", "timm", "tokbench"),
    )
    if not survived:
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
