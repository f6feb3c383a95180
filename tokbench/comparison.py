"""The order of work of a comparison: plan, measure, write tables. The command line and Python code both call this."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tokbench.config import Config, Suite
from tokbench.distributed.parts import share
from tokbench.distributed.ray_run import run_on_ray
from tokbench.errors import UserError
from tokbench.published.timm_accuracy import unlike_published
from tokbench.registry import Broken, discover
from tokbench.results.directory import Results, write_tables
from tokbench.results.plan import refuse_newer
from tokbench.results.store import Store
from tokbench.run.bench import Observer, Silent
from tokbench.run.cells import cells_of
from tokbench.run.measure import measure
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


def carry_out(
    comparison: Comparison,
    out: Path,
    *,
    fresh: bool = False,
    part: str | None = None,
    on_ray: bool = False,
    watch: Watch = unwatched,
) -> Results:
    """Measure what is missing in a results directory, and write its tables.

    Args:
        comparison: What to measure.
        out: The directory.
        fresh: Discard what was measured before.
        part: `2/4` measures the second of four parts; None everything.
        on_ray: Measure on the Ray cluster that is connected.
        watch: Shows the run.

    Raises:
        UserError: The directory cannot be written, or more than 1 % of the images cannot be read.
    """
    prepared = comparison.prepared
    own = None if part is None else share(prepared, part)
    refuse_newer(out)
    store = Store(out, fresh=fresh)
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
    return results


def warnings_about(results: Results) -> list[str]:
    """What a user should know of a finished run besides the table: unreadable images, implausible plain models."""
    lost = [f"unreadable image {name}: {reason}" for name, reason in results.unreadable.items()]
    return [*lost, *(f"WARNING: {text}" for text in unlike_published(results.table, results.plan))]
