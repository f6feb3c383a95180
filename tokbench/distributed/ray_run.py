"""Distributed runs: the parts of a comparison as tasks on a Ray cluster.

The driver plans, prepares and shows progress. A worker prepares its part again and measures it with the code of a local
run. It sends each record to the writer, an actor on the driver's node that alone writes records, and goes on when the
record is on the disk. Ray repeats a part whose worker has died; it asks the writer which records exist and measures the
rest.
"""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tokbench.data.hub import HUB
from tokbench.distributed.parts import Part, divide
from tokbench.distributed.writer import RemoteRecords, Writer
from tokbench.errors import UserError
from tokbench.measure.devices import device_name
from tokbench.names import EMBEDDED, RANDOM
from tokbench.registry import discover
from tokbench.results.store import FAILED, UNREADABLE_IMAGE, Store
from tokbench.run.cells import Cell
from tokbench.run.measure import measure
from tokbench.run.observer import Observer, Silent
from tokbench.run.prepare import Prepared, prepare
from tokbench.run.unreadable import LostImages
from tokbench.suite import Suite
from tokbench.weights_setting import SPLIT, with_paths

REFRESH = 0.5  # seconds between two looks at what has been measured
PIECES = 4  # parts of the accuracies per worker: few wait long for the last ones
RETRIES = 20  # of a part whose worker died; each resumes where the one before it stopped


def run_on_ray(prepared: Prepared, store: Store, observer: Observer, plugins: Sequence[Path] = ()) -> int:
    """Measure everything that is missing, on the cluster that is connected.

    Args:
        prepared: What to measure.
        store: Where records go.
        observer: Shows progress.
        plugins: The user's files and folders of methods; workers read them at the same places, as they do data and
            weights.

    Returns:
        How many measurements were duplicates of existing records: none, unless Ray believed a worker to be dead that
        was not.

    Raises:
        UserError: A worker cannot read the data, the weights or a plugin, or is another kind of machine than the
            driver; no node can run a part; a part's workers died too often; or more than 1 % of the images cannot be
            read.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    workers = _workers(nodes, prepared)
    parts = divide(prepared, store, PIECES * workers)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    actor: Any = ray.remote(Writer).options(num_cpus=0, scheduling_strategy=here)
    writer = actor.remote(store.directory.resolve(), (FAILED, UNREADABLE_IMAGE))
    order = Order(
        absolute_paths(prepared.suite, prepared.device.type),
        torch.get_num_threads(),
        tuple(path.resolve() for path in plugins),
    )
    # A process that has used a GPU stays on it, whichever GPU Ray gives the next part: so a new process for each.
    remote: Any = ray.remote(max_calls=1 if prepared.device.type == "cuda" else 0)(measure_part)
    waiting = {}
    for part in parts:
        given = _resources(part, nodes, prepared)
        task = remote.options(max_retries=RETRIES, **given).remote(part, order, _facts(part.of(prepared)), writer)
        waiting[task] = part
    kinds = Counter(kind for part in parts for kind in part.kinds)
    for kind, total in kinds.items():
        observer.planned(kind, total)
    all_parts = f"parts on {workers} workers"
    observer.planned(all_parts, len(parts))
    while waiting:
        done, _ = ray.wait(list(waiting), timeout=REFRESH)
        for task in done:
            part = waiting.pop(task)
            _await(task)
            for kind in part.kinds:
                observer.measured(kind)
        store.refresh()
        observer.measured(all_parts, len(done))
    # Each part alone may have lost few.
    if prepared.images is not None:
        LostImages(prepared.images, store).check()
    duplicates: int = ray.get(writer.duplicates.remote())
    return duplicates


@dataclass(frozen=True)
class Order:
    """What a worker needs to know to prepare as the driver did.

    Attributes:
        suite: With absolute paths.
        threads: The driver's; the keys of times depend on them.
        plugins: Absolute paths.
    """

    suite: Suite
    threads: int
    plugins: tuple[Path, ...]


def measure_part(part: Part, order: Order, facts: dict[str, str], writer: Any) -> None:
    """What a worker does: prepare, check that it measures what the driver means, and measure.

    Args:
        part: What to measure.
        order: How to prepare.
        facts: What the driver measures on; the worker must have the same.
        writer: The actor that writes the records.

    Raises:
        UserError: It cannot be prepared here, or this is another kind of machine.
    """
    torch.set_num_threads(order.threads)
    suite = order.suite.model_copy(update={"models": part.models})
    try:
        prepared = _prepared(suite, tuple(row.cell for row in part.rows), order.plugins)
    except UserError as error:
        raise UserError(f"on {platform.node()}: {error}") from None
    _check_alike(part, prepared, facts)
    if not part.exclusive:
        torch.set_num_threads(_threads(prepared))
    measure(part.of(prepared), RemoteRecords(writer, part.places()), Silent(), part.shards)


@lru_cache(maxsize=1)
def _prepared(suite: Suite, cells: tuple[Cell, ...], plugins: tuple[Path, ...]) -> Prepared:
    """Prepared once for all parts of the same rows that a worker gets."""
    discover(plugins)
    return prepare(cells, suite)


def _facts(prepared: Prepared) -> dict[str, str]:
    """What the keys of measurements depend on, in words for the message about a mismatch."""
    versions = {name: version(name) for name in ("tokbench", "torch", "timm", "fvcore")}
    weights = {f"weights of {name}": model.identity for name, model in prepared.models.items()}
    data = {"data (names, labels, content)": prepared.images.identity} if prepared.images is not None else {}
    train = {"training images (names, labels, content)": prepared.train.identity} if prepared.train is not None else {}
    return {**versions, "device": device_name(prepared.device), **weights, **data, **train}


def _check_alike(part: Part, prepared: Prepared, facts: dict[str, str]) -> None:
    keys = {row.cell: row.keys for row in prepared.rows}
    if all(keys[row.cell].get(kind) == key for row in part.rows for kind, key in row.keys.items()):
        return
    own = _facts(prepared)
    differing = [f"{name} is {own[name]}, not {fact}" for name, fact in facts.items() if own[name] != fact]
    why = differing[0] if differing else "tokbench's or a method's source differs"
    raise UserError(
        f"{platform.node()} differs from the machine that tokbench was started on: {why}; use like machines, or "
        "measure on each alone and join the results with tokbench merge"
    )


def absolute_paths(suite: Suite, device: str) -> Suite:
    """The suite with absolute paths, for workers on devices of this type."""
    paths: dict[str, Any] = {
        name: path.expanduser().resolve()
        for name in ("cache", "classes", "labels")
        if isinstance(path := getattr(suite, name), Path)
    }
    for name, split in SPLIT.items():
        if getattr(suite, name) is not None:
            paths[name] = with_paths(getattr(suite, name), split, _absolute)
    for name in ("data", "calibration", "train"):
        given = getattr(suite, name)
        if given is None or given == EMBEDDED:
            continue
        images = Path(given).expanduser()
        if images.exists() or not given.startswith(HUB):  # a range of shards is no file
            paths[name] = str(images.resolve())
    # A task on a CPU has its cores for everything it does, decoding included.
    decoding = {"workers": 0} if device == "cpu" else {}
    return suite.model_copy(update={**paths, **decoding, "device": device})


def _absolute(path: str) -> str:
    """The absolute path of a file of weights."""
    return path if path == RANDOM else str(Path(path).expanduser().resolve())


def _threads(prepared: Prepared) -> int:
    """Of a part that is not timed, on a CPU."""
    return prepared.suite.threads or 1


def _workers(nodes: Sequence[Mapping[str, float]], prepared: Prepared) -> int:
    """How many parts can run at once."""
    if prepared.device.type == "cuda":
        found = sum(int(node.get("GPU", 0)) for node in nodes)
        wanted = "no node with a GPU: use --device cpu"
    else:
        found = sum(int(node.get("CPU", 0)) // _threads(prepared) for node in nodes)
        wanted = f"no node with {_threads(prepared)} CPUs: use fewer --threads"
    if not found:
        raise UserError(f"the cluster has {wanted}, or start Ray on such nodes")
    return found


def _resources(part: Part, nodes: Sequence[Mapping[str, float]], prepared: Prepared) -> dict[str, float]:
    """What a part needs for itself: a GPU, a whole node's CPUs where these are timed, or some cores."""
    if prepared.device.type == "cuda":
        return {"num_gpus": 1}
    if part.exclusive:
        return {"num_cpus": max(node.get("CPU", 0) for node in nodes)}
    return {"num_cpus": _threads(prepared)}


def _await(task: Any) -> None:
    """Take a finished task's result.

    Raises:
        UserError: The worker's, or its workers died too often.
    """
    import ray
    from ray.exceptions import RayError, RaySystemError, RayTaskError

    try:
        ray.get(task)
    except RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise UserError(str(error.cause)) from None
        if isinstance(error.cause, RaySystemError):  # the task did not even begin
            reason = str(error.cause).strip().splitlines()[-1]
            raise UserError(
                f"a worker cannot load its task ({reason}): install the same tokbench on all nodes"
            ) from None
        raise
    except RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"a part's workers died {RETRIES + 1} times ({type(error).__name__}: {reason}); what was measured is "
            "kept: check their memory, and run the same command again"
        ) from None
