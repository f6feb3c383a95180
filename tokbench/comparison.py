"""The order of work of a comparison: plan, measure, write tables. The command line and Python code both call this."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tokbench.config import Config, Suite
from tokbench.data.formats import describe_left_out
from tokbench.distributed.parts import share
from tokbench.distributed.ray_run import run_on_ray
from tokbench.errors import UserError
from tokbench.published.plausible import at_chance
from tokbench.published.timm_accuracy import unlike_published
from tokbench.registry import Broken, discover
from tokbench.results.directory import Results, check_places, write_tables
from tokbench.results.lock import locked
from tokbench.results.plan import refuse_newer
from tokbench.results.store import RECORDS, Store
from tokbench.run.cells import cells_of
from tokbench.run.measure import measure
from tokbench.run.observer import Observer, Silent
from tokbench.run.plan import write_plan
from tokbench.run.prepare import Prepared, prepare

Watch = Callable[[Results], AbstractContextManager[Observer]]
"""Shows a run: gets its results directory, and gives whom the run tells how far it is."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """A comparison ready to be measured.

    Attributes:
        prepared: What will be measured.
        plugins: The user's files and folders of methods.
        broken: Plugins that could not be imported.
    """

    prepared: Prepared
    plugins: tuple[Path, ...]
    broken: tuple[Broken, ...]


def plan_comparison(suite: Suite, config: Config, plugins: Sequence[Path] = ()) -> Comparison:
    """Find the methods, plan the cells, and load and check everything they need.

    Args:
        suite: What to compare.
        config: Holds the methods' default parameters.
        plugins: The user's files and folders of methods.

    Raises:
        UserError: A setting is wrong, or a model, its weights, the device or the data cannot be opened.
    """
    known, broken = discover(plugins)
    try:
        cells = cells_of(suite, config, list(known), broken=bool(broken))
    except UserError as error:  # the method that is missing may be one of theirs
        reasons = "".join(f"; {one.source} could not be imported: {one.reason}" for one in broken)
        raise UserError(f"{error}{reasons}") from None
    return Comparison(prepare(cells, suite), tuple(plugins), broken)


@contextmanager
def unwatched(results: Results) -> Iterator[Observer]:
    """Show nothing."""
    yield Silent()


@dataclass(frozen=True, eq=False)
class Finished:
    """What a comparison has left.

    Attributes:
        results: The results directory.
        warnings: What a user should know besides the table, a line each.
    """

    results: Results
    warnings: tuple[str, ...]


def carry_out(
    comparison: Comparison,
    out: Path,
    *,
    fresh: bool = False,
    retry: bool = False,
    part: str | None = None,
    on_ray: bool = False,
    watch: Watch = unwatched,
) -> Finished:
    """Measure what is missing in a results directory, and write its tables.

    Args:
        comparison: What to measure.
        out: The directory.
        fresh: Measure everything again; the records of before are moved aside.
        retry: Also measure what has ended a process before.
        part: `2/4` measures the second of four parts; None everything.
        on_ray: Measure on the Ray cluster that is connected.
        watch: Shows the run.

    Raises:
        UserError: The directory cannot be written, another process writes to it, or more than 1 % of the images cannot
            be read.
    """
    prepared = comparison.prepared
    own = None if part is None else share(prepared, part)
    out = out.absolute()  # a method may change the working directory
    with locked(out):
        if not fresh:
            refuse_newer(out)
        check_places(out)
        left_out = [] if fresh else _left_out(out, prepared)
        store = Store(out, fresh=fresh)
        if retry:
            store.forget_ended()
        ignored = None if prepared.images is None else describe_left_out(prepared.images.ignored)
        notes = [*filter(None, [ignored]), *_about_records(store), *left_out]
        write_plan(prepared, out)
        results = Results(out, store)
        with watch(results) as observer:
            if on_ray:
                run_on_ray(prepared, store, observer, comparison.plugins)
            elif own is not None:
                measure(own.of(prepared), store, observer, own.shards)
            else:
                measure(prepared, store, observer)
        results.refresh()
        write_tables(results)
    return Finished(results, (*notes, *_about(results)))


def _about_records(store: Store) -> list[str]:
    """What happened to the records of before."""
    notes = []
    if store.moved_to is not None:
        notes.append(f"the records of before are in {store.moved_to}")
    if store.damaged:
        notes.append(f"damaged lines in {store.directory / RECORDS}: {store.damaged}; they were measured again")
    return notes


def _left_out(out: Path, prepared: Prepared) -> list[str]:
    """What an earlier comparison measured in this directory and this one does not."""
    try:
        before = Results(out)
    except UserError:  # nothing readable is there
        return []
    now = {row.cell.row_id(prepared.suite.dtype) for row in prepared.rows}
    gone = [row for row in before.plan.rows if row.id not in now and row.keys and not before.missing(row)]
    if not gone:
        return []
    methods = ",".join(dict.fromkeys(row.id.method for row in gone))
    return [
        f"WARNING: {len(gone)} rows of an earlier comparison in {out} ({methods}) are no longer in its table; "
        "their measurements are kept: compare all of them in one command, or choose another folder with --out DIR"
    ]


def _about(results: Results) -> list[str]:
    """What else to know of a finished run: unreadable images, implausible plain models."""
    lost = [f"unreadable image {name}: {reason}" for name, reason in results.unreadable.items()]
    plain = (*unlike_published(results.table, results.plan), *at_chance(results))
    return [*lost, *(f"WARNING: {text}" for text in plain)]
