"""A comparison on two Ray nodes: does it survive the failure of one node, and are two workers twice as fast as one?

    python benchmarks/wide.py DATA WEIGHTS [MODEL]

Nodes of one core each are started on this machine. First, one of two is killed (its workers and its raylet, SIGKILL) in
the middle of an accuracy pass: the outcomes must be complete and equal to those of a local run, and nothing that was
already written may be measured again. Then the pass is timed on one node and on two, in alternating order (one, two,
two, one), with workers that have loaded everything, from its start to its last record.

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
from output import SPEED, write_output
from speed import Outcomes, accuracy_plan, outcomes_of, time_accuracy_pass

from tokbench.distributed.ray_cluster import SETTINGS, connected
from tokbench.distributed.ray_run import run_on_ray
from tokbench.outcomes import shard_key, shards
from tokbench.results.store import RECORDS, Records, Store
from tokbench.run.observer import Silent
from tokbench.run.prepare import Prepared

METHODS, KEEPS = ("evit", "tome", "random_selection"), (0.7, 0.5)
SUITE: dict[str, Any] = {"threads": 1, "workers": 0, "seeds": (0,), "device": "cpu", "accuracy_batch": 8}
TARGET = 0.85
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "include_dashboard": False}


@contextmanager
def cluster(nodes: int) -> Iterator[Any]:
    """A local cluster of nodes with one core each."""
    from ray.cluster_utils import Cluster  # imported here because the import reads the settings

    local = Cluster(initialize_head=True, head_node_args=NODE)
    try:
        for _ in range(1, nodes):
            local.add_node(**NODE)
        yield local
    finally:
        local.shutdown()  # type: ignore[no-untyped-call]


def run(prepared: Prepared, directory: Path, done: Outcomes | None = None) -> int:
    """Run the pass on the connected cluster, except parts that are done; returns the number of duplicate records."""
    store = Store(directory)
    store.add_all({("accuracy", key): {"outcomes": outcomes} for key, outcomes in (done or {}).items()})
    return run_on_ray(prepared, store, Silent())


def read_outcomes(prepared: Prepared, directory: Path) -> Outcomes:
    """The outcomes for all images, by row."""
    records = Records(directory)
    keys = [row.keys["accuracy"] for row in prepared.rows]
    return {key: outcomes_of(key, _shards(prepared), records) for key in keys}


def survive_failure(prepared: Prepared, local: Outcomes) -> tuple[bool, list[str]]:
    """Kill one of two nodes when half of the pass is done."""
    expected = len(prepared.rows) * len(_shards(prepared))
    killed_after: list[int] = []
    with tempfile.TemporaryDirectory() as folder, cluster(1) as head:
        node = head.add_node(**NODE)
        records = Path(folder) / RECORDS

        def kill() -> None:
            while not records.is_file() or len(records.read_bytes().splitlines()) < expected // 2:
                time.sleep(0.05)
            killed_after.append(len(records.read_bytes().splitlines()))
            [raylet] = node.all_processes["raylet"]
            parent = psutil.Process(raylet.process.pid)
            for process in [*parent.children(recursive=True), parent]:
                process.kill()

        killer = threading.Thread(target=kill)
        with connected(head.address):
            killer.start()
            received_twice = run(prepared, Path(folder))
            killer.join()
        lines = Counter((line["kind"], line["key"]) for line in map(json.loads, records.read_bytes().splitlines()))
        outcomes = read_outcomes(prepared, Path(folder))
    complete = len(lines) == expected
    identical = outcomes == local
    once = max(lines.values()) == 1 and received_twice == 0
    return complete and identical and once, [
        f"one of two nodes killed after {killed_after[0]} of {expected} records:",
        f"  the table is {'complete' if complete else 'NOT complete'}, its outcomes are "
        f"{'identical' if identical else 'NOT identical'} to a local run's",
        f"  records received twice: {received_twice}; records written twice: "
        f"{sum(lines.values()) - len(lines)} (target: none): {'met' if once else 'NOT met'}",
    ]


def seconds(prepared: Prepared, local: Outcomes, nodes: int) -> float:
    """The seconds of the pass on a number of nodes whose workers have already prepared it."""
    every = _shards(prepared)
    # For the warm-up only the first and the last shard are left: two parts, so that every worker gets one.
    done = {shard_key(key, shard): "" for key in local for shard in every[1:-1]}
    with tempfile.TemporaryDirectory() as warm, tempfile.TemporaryDirectory() as folder:
        with cluster(nodes) as head, connected(head.address):
            run(prepared, Path(warm), done)
            start = time.perf_counter()
            run(prepared, Path(folder))
            elapsed = time.perf_counter() - start
        if read_outcomes(prepared, Path(folder)) != local:
            raise AssertionError("the outcomes differ from those of a local run")
    return elapsed


def _shards(prepared: Prepared) -> list[range]:
    return shards(len(prepared.images or ()), prepared.suite.accuracy_batch)


def main(data: str, weights: str, model: str = "deit_tiny_patch16_224") -> None:
    """Measure, and print and write the results.

    Args:
        data: An image set.
        weights: The weights of the model.
        model: The name of a timm model.
    """
    os.environ.update(SETTINGS)
    prepared = accuracy_plan(data, weights, model, METHODS, KEEPS, **SUITE)
    without_ray, local = time_accuracy_pass(prepared.rows, prepared)
    survived, lines = survive_failure(prepared, local)
    times: dict[int, list[float]] = {1: [], 2: []}
    for nodes in (1, 2, 2, 1):
        times[nodes].append(seconds(prepared, local, nodes))
    efficiency = fmean(times[1]) / (2 * fmean(times[2]))
    write_output(
        SPEED / "wide.txt",
        (
            f"{model}, {len(prepared.rows)} cells, {len(prepared.images or ())} images, "
            f"batches of {prepared.suite.accuracy_batch}, one thread per worker; ray {version('ray')}",
            *lines,
            f"the accuracy pass without Ray:     {without_ray:.1f} s",
            f"on one worker with one core:       {' and '.join(f'{elapsed:.1f} s' for elapsed in times[1])}",
            f"on two workers with one core each: {' and '.join(f'{elapsed:.1f} s' for elapsed in times[2])}",
            f"  {100 * efficiency:.0f} % of ideal (target: {100 * TARGET:.0f} %): "
            + ("met" if efficiency >= TARGET else "NOT met"),
        ),
        ("python", "torch", "timm", "tokbench"),
    )
    if not survived:
        sys.exit(1)


if __name__ == "__main__":
    main(*sys.argv[1:])
