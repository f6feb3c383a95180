"""Joining directories of one comparison, each measured on a machine of its own.

A row that occurs in several directories must have been measured under the same conditions in all of them, which its
keys show: no row mixes unlike machines. Where a measurement was made twice, exact kinds must agree; of times one
session is picked by its hash. The result does not depend on the order of the directories, except that models, methods
and settings come in the order in which they first occur.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokbench.errors import UserError
from tokbench.kinds import KINDS
from tokbench.results.conditions import UNRECORDED, difference_text, differing
from tokbench.results.directory import ENVIRONMENT, Results, write_images, write_tables
from tokbench.results.lock import locked
from tokbench.results.plan import PLAN, MethodInfo, Plan, PlannedRow, plan_json
from tokbench.results.store import RECORDS, Place, Records, Store, write_json
from tokbench.rows import RowId
from tokbench.suite import Suite
from tokbench.weights_setting import files_of

SHARED = ("site", "position", "dtype", "accuracy_batch", "seconds", "precision", "threads", "img_size", "no_ema")
"""Settings of a suite that the directories must share."""

JOINED = ("models", "methods", "baselines", "schedule", "keep", "batch_size", "seeds", "mode")
"""Settings that are lists, of which the joined suite has everything."""

MACHINES = "machines"  # in a joined environment: the environments of the directories

Json = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Source:
    """A directory to join, and its records."""

    results: Results
    records: dict[Place, Json]

    @property
    def directory(self) -> Path:
        """Where."""
        return self.results.directory

    @property
    def plan(self) -> Plan:
        """What it measured."""
        return self.results.plan


def merge(directories: Sequence[Path], out: Path) -> Results:
    """Join directories; what `out` holds already is joined too.

    Args:
        directories: What `tokbench compare` or this wrote, finished or not.
        out: Where the joined results go; its tables are written too.

    Raises:
        UserError: A directory holds no results, is damaged or of another comparison; a row was measured under unlike
            conditions; or exact measurements disagree.
    """
    places = {path.resolve(): path for path in ([out] if (out / PLAN).is_file() else []) + [*directories]}
    sources = [_open(path) for path in places.values()]
    for source in sources[1:]:
        _check_same_comparison(sources[0], source)
    plan = _join_plans(sources)
    records = _join_records(sources, plan.rows)
    images = next((source.results.images for source in sources if source.results.images is not None), None)
    with locked(out):
        store = Store(out)
        write_json(out / PLAN, plan_json(plan))
        write_json(out / ENVIRONMENT, _join_environments([source.results.environment for source in sources]))
        if images is not None:
            write_images(out, images)
        store.add_all({place: records[place] for place in sorted(records) if store.get(*place) != records[place]})
        results = Results(out, store)
        write_tables(results)
    return results


def _open(directory: Path) -> Source:
    records = Records(directory)
    if records.damaged:
        raise UserError(f"{directory / RECORDS} is damaged: run its tokbench compare again, which repairs it")
    results = Results(directory, records)
    if results.plan.images is not None and results.images is None:
        raise UserError(f"{directory} does not say which images were classified: run its tokbench compare again")
    if not results.environment:
        raise UserError(f"{directory / ENVIRONMENT} is missing: run its tokbench compare again")
    return Source(results, records.all())


def _check_same_comparison(first: Source, other: Source) -> None:
    pair = f"{first.directory} and {other.directory} cannot be joined"
    one, two = ({"device": source.plan.device, **source.plan.suite.model_dump()} for source in (first, other))
    for name in ("device", *SHARED):
        if one[name] != two[name]:
            raise UserError(f"{pair}: {name} is {one[name]} in one and {two[name]} in the other; it must be the same")
    if None not in (first.results.images, other.results.images) and first.results.images != other.results.images:
        raise UserError(f"{pair}: they classified different images; use the same --data and --limit for both")


def _join_plans(sources: Sequence[Source]) -> Plan:
    plans = [source.plan for source in sources]
    return Plan(
        suite=_join_suites([plan.suite for plan in plans]),
        device=plans[0].device,
        images=next((plan.images for plan in plans if plan.images is not None), None),
        rows=tuple(_join_rows(sources)),
        methods={name: min(infos, key=repr) for name, infos in sorted(_infos(plans).items())},
        models=dict(sorted({name: full for plan in plans for name, full in plan.models.items()}.items())),
    )


def _infos(plans: Sequence[Plan]) -> dict[str, list[MethodInfo]]:
    """What each plan says of each method; a plugin may differ between machines that did not run it."""
    found: dict[str, list[MethodInfo]] = {}
    for plan in plans:
        for name, info in plan.methods.items():
            found.setdefault(name, []).append(info)
    return found


def _join_suites(suites: Sequence[Suite]) -> Suite:
    joined = {name: tuple(dict.fromkeys(item for suite in suites for item in getattr(suite, name))) for name in JOINED}
    only = tuple(kind for kind in KINDS if any(kind in suite.only for suite in suites))
    # Each machine has the data somewhere else.
    data, train = (
        next((path for suite in suites if (path := getattr(suite, name)) is not None), None)
        for name in ("data", "train")
    )
    others = {
        "only": only,
        "weights": _join_weights([suite.weights for suite in suites]),
        "data": data,
        "train": train,
        "analyse": any(suite.analyse for suite in suites),
    }
    return suites[0].model_copy(update={**joined, **others})


def _join_weights(given: Sequence[tuple[str, ...] | None]) -> tuple[str, ...] | None:
    """The files of all models; None where files that name no model differ, which would be wrong for another model."""
    if all(one == given[0] for one in given):
        return given[0]
    items = tuple(dict.fromkeys(item for one in given for item in one or ()))
    models = [model for model, _ in files_of(items)]
    return None if None in models or len(set(models)) < len(models) else items


def _join_rows(sources: Sequence[Source]) -> list[PlannedRow]:
    """The rows of all plans, in the order in which one plan of all of them would have them."""
    found: dict[RowId, list[tuple[Source, PlannedRow]]] = {}
    for source in sources:
        for row in source.plan.rows:
            found.setdefault(row.id, []).append((source, row))
    rows = [_join_row(several) for several in found.values()]
    return sorted(rows, key=_order([row.id for row in rows]))


def _order(rows: Sequence[RowId]) -> Callable[[PlannedRow], tuple[float, ...]]:
    """Models, in them methods, schedules, keeps from large to small, and then the rest: each as it first occurs."""
    method = ("method", "params")
    columns = (("model",), method, (*method, "regime", "site", "schedule"), ("batch_size",), ("mode",), ("seed",))
    ranks = [
        {value: rank for rank, value in enumerate(dict.fromkeys(_values(row, names) for row in rows))}
        for names in columns
    ]

    def order(row: PlannedRow) -> tuple[float, ...]:
        places = [rank[_values(row.id, names)] for rank, names in zip(ranks, columns, strict=True)]
        return *places[:3], -(row.id.keep or 0), *places[3:]

    return order


def _values(row: RowId, names: Sequence[str]) -> tuple[Any, ...]:
    return tuple(getattr(row, name) for name in names)


def _join_row(found: Sequence[tuple[Source, PlannedRow]]) -> PlannedRow:
    """One row of several plans, with the measurements that any of them wants."""
    keys: dict[str, str] = {}
    wanted: dict[str, Source] = {}
    for source, row in found:
        for kind, key in row.keys.items():
            if keys.setdefault(kind, key) != key:
                raise _unlike(row, kind, wanted[kind], source)
            wanted.setdefault(kind, source)
    # A machine that could not build the method proves nothing against one that could.
    best = min((row for _, row in found), key=lambda row: (bool(row.skipped), bool(row.failed)))
    return replace(best, keys={kind: keys[kind] for kind in KINDS if kind in keys})


def _unlike(row: PlannedRow, kind: str, one: Source, two: Source) -> UserError:
    names = ("device_name", "threads", *one.results.environment["versions"])
    differences = differing(one.results, two.results, names)
    why = difference_text(one.results, two.results, differences) or UNRECORDED
    return UserError(
        f"{_name(row.id)} was measured under different conditions in {one.directory} and {two.directory}: its {kind} "
        f"depends on {why}; join only what like machines and versions have measured"
    )


def _name(row: RowId) -> str:
    method = f"{row.method}({row.params})" if row.params else row.method
    seed = "" if row.seed is None else f" seed {row.seed}"
    return f"{method} at keep {row.keep}{seed} in {row.model}"


def _join_records(sources: Sequence[Source], rows: Sequence[PlannedRow]) -> dict[Place, Json]:
    """Every record of every directory, one of each kind and key."""
    found: dict[Place, list[tuple[Source, Json]]] = {}
    for source in sources:
        for place, value in source.records.items():
            found.setdefault(place, []).append((source, value))
    owners = {(kind, key): row for row in rows for kind, key in row.keys.items()}
    return {place: _join_record(place, several, owners) for place, several in found.items()}


def _join_record(place: Place, found: Sequence[tuple[Source, Json]], owners: Mapping[Place, PlannedRow]) -> Json:
    (first, value), *others = found
    kind, key = place
    row = owners.get((kind, key.partition("/")[0]))
    other = next((source for source, another in others if another != value), None)
    if other is not None and row is not None and KINDS[kind].exact:
        raise UserError(
            f"{_name(row.id)}: {first.directory} and {other.directory} disagree on its {kind}, although nothing "
            "that it depends on differs; measure one of them again with --fresh"
        )
    # By hash: the same for every order of the directories, and not by what the values are.
    return min((value for _, value in found), key=_digest)


def _digest(value: Json) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _join_environments(environments: Sequence[Json]) -> Json:
    """What all machines share, what they differ in side by side, and each of them complete."""
    single = [machine for environment in environments for machine in environment.get(MACHINES, [environment])]
    machines = sorted({_digest(machine): machine for machine in single}.values(), key=_age)
    return machines[0] if len(machines) == 1 else {**_side_by_side(machines), MACHINES: machines}


def _age(machine: Json) -> tuple[str, str]:
    return machine["measured"], _digest(machine)


def _side_by_side(machines: Sequence[Json]) -> Json:
    return {name: _both(name, [machine.get(name) for machine in machines]) for name in _names(machines)}


def _names(machines: Sequence[Json]) -> Iterator[str]:
    yield from dict.fromkeys(name for machine in machines for name in machine)


def _both(name: str, values: Sequence[Any]) -> Any:
    if name == "measured":
        return max(values)
    if all(isinstance(value, dict) for value in values):
        return _side_by_side(values)
    texts = {json.dumps(value): value for value in values}
    return values[0] if len(texts) == 1 else " and ".join(sorted(map(str, texts.values())))
