"""Directories of one comparison joined into one: each was measured on a machine of its own.

Rows are told apart by what the table shows of them. A row that stands in several directories must have been measured
under the same conditions in all of them, which its keys tell: so no row mixes machines that are unlike. Where a
measurement was made twice, exact kinds must agree, and of times one session is taken by lot. What comes out does not
depend on the directories' order, but for the order of models, methods and settings: that in which they first come.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from tokbench.config import Measurement
from tokbench.distributed.parts import ACCURACY
from tokbench.errors import UserError
from tokbench.results.store import ENVIRONMENT, PLAN, Records, Store
from tokbench.results.table import read_images, read_plan, write_images, write_results

ALIKE = ("schedule", "site", "dtype", "accuracy_batch", "seconds", "precision", "threads")
"""Settings of a suite that the directories must share."""

JOINED = ("models", "methods", "keep", "batch_size", "seeds", "mode")
"""Settings that are lists, of which the joined suite has everything."""

ROW = ("model", "method", "params", "regime", "site", "schedule", "keep", "seed", "batch_size", "mode")
"""What tells rows apart."""

EXACT = ("macs", ACCURACY)
MACHINES = "machines"  # in a joined environment: the environments of the directories

Place = tuple[str, str]
Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Source:
    """What a comparison has left in its directory."""

    directory: Path
    plan: Json
    environment: Json
    images: dict[str, int] | None
    records: dict[Place, Json]


def merge(directories: Sequence[Path], out: Path) -> pd.DataFrame:
    """Join directories; what `out` holds already takes part.

    Args:
        directories: What `tokbench compare` or this wrote, finished or not.
        out: Where the joined results go.

    Returns:
        The table, which is written too.

    Raises:
        UserError: A directory holds no results, is damaged or of another comparison; a row was measured under unlike
            conditions; or exact measurements disagree.
    """
    places = {path.resolve(): path for path in ([out] if (out / PLAN).is_file() else []) + [*directories]}
    sources = [_read(path) for path in places.values()]
    for source in sources[1:]:
        _check_same_comparison(sources[0], source)
    rows = _rows(sources)
    records = _records(sources, rows)
    images = next((source.images for source in sources if source.images is not None), None)
    store = Store(out)
    store.write_json(PLAN, _plan(sources, rows))
    store.write_json(ENVIRONMENT, _environment([source.environment for source in sources]))
    if images is not None:
        write_images(out, images)
    store.add_all({place: records[place] for place in sorted(records) if store.get(*place) != records[place]})
    return write_results(store)


def _read(directory: Path) -> Source:
    plan = read_plan(directory)
    records = Records(directory).all()
    images = read_images(directory)
    if plan["images"] is not None and images is None:
        raise UserError(f"{directory} does not say which images it was shown: run its tokbench compare again")
    try:
        environment = json.loads((directory / ENVIRONMENT).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{directory / ENVIRONMENT} cannot be read ({error}): run its tokbench compare again") from None
    return Source(directory, plan, environment, images, records)


def _check_same_comparison(first: Source, other: Source) -> None:
    pair = f"{first.directory} and {other.directory} cannot be joined"
    one, two = ({"device": source.plan["device"], **source.plan["suite"]} for source in (first, other))
    for name in ("device", *ALIKE):
        if one[name] != two[name]:
            raise UserError(f"{pair}: {name} is {one[name]} in one and {two[name]} in the other; measure both alike")
    if None not in (first.images, other.images) and first.images != other.images:
        raise UserError(f"{pair}: they were shown different images; use the same --data and --limit for both")


def _rows(sources: Sequence[Source]) -> list[Json]:
    """The rows of all plans, in the order in which one plan of them would have them."""
    found: dict[tuple[Any, ...], list[tuple[Source, Json]]] = {}
    for source in sources:
        for row in source.plan["rows"]:
            found.setdefault(tuple(row[name] for name in ROW), []).append((source, row))
    rows = [_row(several) for several in found.values()]
    return sorted(rows, key=_order(rows))


def _order(rows: Sequence[Json]) -> Callable[[Json], tuple[float, ...]]:
    """Models, in them methods, in them keeps falling, and then the rest: each as it first comes."""
    columns = (("model",), ("method", "params"), ("site", "schedule"), ("batch_size",), ("mode",), ("seed",))
    ranks = [
        {value: rank for rank, value in enumerate(dict.fromkeys(_values(row, names) for row in rows))}
        for names in columns
    ]

    def order(row: Json) -> tuple[float, ...]:
        model, method, *others = (rank[_values(row, names)] for rank, names in zip(ranks, columns, strict=True))
        return model, method, -(row["keep"] or 0), *others

    return order


def _values(row: Json, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[name] for name in names)


def _row(found: Sequence[tuple[Source, Json]]) -> Json:
    """One row of several plans, with the measurements that any of them wants."""
    keys: dict[str, str] = {}
    wanted: dict[str, Source] = {}
    for source, row in found:
        for kind, key in row["keys"].items():
            if keys.setdefault(kind, key) != key:
                raise _unlike(row, kind, wanted[kind], source)
            wanted.setdefault(kind, source)
    # A machine that could not build the method says nothing against one that could.
    best = min((row for _, row in found), key=lambda row: (bool(row["skipped"]), bool(row["failed"])))
    return {**best, "keys": {kind: keys[kind] for kind in sorted(keys, key=_measurement)}}


def _measurement(kind: str) -> int:
    """The order in which a run measures."""
    kinds = get_args(Measurement)
    return kinds.index(kind) if kind in kinds else len(kinds)


def _unlike(row: Json, kind: str, one: Source, two: Source) -> UserError:
    was, now = ({**source.environment, **source.environment["versions"]} for source in (one, two))
    names = ("device_name", "threads", *one.environment["versions"])
    differing = [f"{name} {was.get(name)} and {now.get(name)}" for name in names if was.get(name) != now.get(name)]
    why = ", ".join(differing) or "the data, the weights or the method's source"
    return UserError(
        f"{_named(row)} was measured under unlike conditions in {one.directory} and {two.directory}: its {kind} "
        f"depends on {why}; join what machines and versions alike have measured"
    )


def _named(row: Json) -> str:
    method = f"{row['method']}({row['params']})" if row["params"] else row["method"]
    seed = "" if row["seed"] is None else f" seed {row['seed']}"
    return f"{method} at keep {row['keep']}{seed} in {row['model']}"


def _records(sources: Sequence[Source], rows: Sequence[Json]) -> dict[Place, Json]:
    """Every record of every directory, one of each kind and key."""
    found: dict[Place, list[tuple[Source, Json]]] = {}
    for source in sources:
        for place, value in source.records.items():
            found.setdefault(place, []).append((source, value))
    named = {(kind, key): row for row in rows for kind, key in row["keys"].items()}
    return {place: _one(place, several, named) for place, several in found.items()}


def _one(place: Place, found: Sequence[tuple[Source, Json]], named: Mapping[Place, Json]) -> Json:
    (first, value), *others = found
    kind, key = place
    row = named.get((kind, key.partition("/")[0]))
    other = next((source for source, another in others if another != value), None)
    if other is not None and row is not None and kind in EXACT:
        raise UserError(
            f"{_named(row)}: {first.directory} and {other.directory} disagree on its {kind}, though nothing that it "
            "depends on differs; measure one of them again with --fresh"
        )
    # By lot, and the same for every order: what the values are must not decide which is taken.
    return min((value for _, value in found), key=_digest)


def _digest(value: Json) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _plan(sources: Sequence[Source], rows: list[Json]) -> Json:
    suites = [source.plan["suite"] for source in sources]
    joined = {name: list(dict.fromkeys(item for suite in suites for item in suite[name])) for name in JOINED}
    only = [kind for kind in get_args(Measurement) if any(kind in suite["only"] for suite in suites)]
    # One model's weights are another's mistake, and each machine has the data somewhere else.
    weights = suites[0]["weights"] if all(suite["weights"] == suites[0]["weights"] for suite in suites) else None
    data = next((suite["data"] for suite in suites if suite["data"] is not None), None)
    others = {"only": only, "weights": weights, "data": data, "analyse": any(suite["analyse"] for suite in suites)}
    return {
        "suite": {**suites[0], **joined, **others},
        "device": sources[0].plan["device"],
        "images": next((source.plan["images"] for source in sources if source.plan["images"] is not None), None),
        "rows": rows,
    }


def _environment(environments: Sequence[Json]) -> Json:
    """What all machines share, what they differ in side by side, and what each of them was."""
    single = [machine for environment in environments for machine in environment.get(MACHINES, [environment])]
    machines = sorted({_digest(machine): machine for machine in single}.values(), key=_measured)
    return machines[0] if len(machines) == 1 else {**_side_by_side(machines), MACHINES: machines}


def _measured(machine: Json) -> tuple[str, str]:
    return machine["measured"], _digest(machine)


def _side_by_side(machines: Sequence[Json]) -> Json:
    return {name: _values_of(name, [machine.get(name) for machine in machines]) for name in _names(machines)}


def _names(machines: Sequence[Json]) -> Iterator[str]:
    yield from dict.fromkeys(name for machine in machines for name in machine)


def _values_of(name: str, values: Sequence[Any]) -> Any:
    if name == "measured":
        return max(values)
    if all(isinstance(value, dict) for value in values):
        return _side_by_side(values)
    texts = {json.dumps(value): value for value in values}
    return values[0] if len(texts) == 1 else " and ".join(sorted(map(str, texts.values())))
