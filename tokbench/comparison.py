"""The order of work of a comparison: plan, measure, write tables. The command line and Python code both call this."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tokbench.config import Config
from tokbench.data.formats import describe_left_out
from tokbench.distributed.parts import share
from tokbench.distributed.processes import measure_in_processes
from tokbench.distributed.ray_run import run_on_ray
from tokbench.errors import UserError
from tokbench.published.plausible import Guessing, at_chance
from tokbench.published.timm_accuracy import unlike_published
from tokbench.registry import Broken, discover
from tokbench.results.directory import Results, check_places, write_tables
from tokbench.results.lock import locked
from tokbench.results.merge import JOINED, SHARED
from tokbench.results.plan import refuse_newer
from tokbench.results.store import RECORDS, Store
from tokbench.rows import RowId
from tokbench.run.calibration import MEASURED_AS_WELL
from tokbench.run.cells import cells_of
from tokbench.run.measure import measure
from tokbench.run.observer import Observer, Silent
from tokbench.run.plan import write_plan
from tokbench.run.prepare import Prepared, prepare, silent
from tokbench.run.search import Tell
from tokbench.run.wrong_answers import answers_in_words
from tokbench.schedule_text import takes_keep
from tokbench.suite import Suite

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


def plan_comparison(
    suite: Suite, config: Config, plugins: Sequence[Path] = (), out: Path | None = None, tell: Tell = silent
) -> Comparison:
    """Find the methods, plan the cells, and load and check everything they need.

    Args:
        suite: What to compare.
        config: Holds the methods' default parameters.
        plugins: The user's files and folders of methods.
        out: The results directory, which keeps what is found out while planning; None keeps nothing.
        tell: Gets what takes long, to show it.

    Raises:
        UserError: A setting is wrong, or a model, its weights, the device or the data cannot be opened.
    """
    known, broken = discover(plugins)
    try:
        cells = cells_of(suite, config, list(known), broken=bool(broken))
    except UserError as error:  # the method that is missing may be one of theirs
        reasons = "".join(f"; {one.source} could not be imported: {one.reason}" for one in broken)
        raise UserError(f"{error}{reasons}") from None
    return Comparison(prepare(cells, suite, out, tell), tuple(plugins), broken)


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
        labels = () if prepared.images is None else prepared.images.notes
        notes = [*filter(None, [ignored]), *labels, *_about_records(store), *left_out]
        write_plan(prepared, out)
        results = Results(out, store)
        with watch(results) as observer:
            if on_ray:
                run_on_ray(prepared, store, observer, comparison.plugins)
            elif own is not None:
                measure(own.of(prepared), store, observer, own.shards)
            else:
                measure_in_processes(prepared, store, observer)
                measure(prepared, store, observer)
        results.refresh()
        write_tables(results)
    return Finished(results, (*notes, *_about(results, prepared)))


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
    gone = [row.id for row in before.plan.rows if row.id not in now and row.keys and not before.missing(row)]
    if not gone:
        return []
    replaced = f"{len(gone)} {'row' if len(gone) == 1 else 'rows'} of an earlier comparison"
    return [
        f"WARNING: this replaces the table in {out}: {replaced} ({_described(gone)}) "
        f"{'is' if len(gone) == 1 else 'are'} no longer in it; the measurements are kept: "
        f"{_how_to_have_both(before.plan.suite, prepared.suite)}"
    ]


def _described(rows: Sequence[RowId]) -> str:
    """Which rows these are: `budget(0.7), stages(at=3-6-9) at keep 0.5: tome, evit`."""
    methods: dict[str, dict[str, None]] = {}
    for row in rows:
        keep = f" at keep {row.keep:g}" if row.schedule and takes_keep(row.schedule) and row.keep is not None else ""
        methods.setdefault(f"{row.schedule or 'unreduced'}{keep}", {})[row.method] = None
    settings: dict[str, list[str]] = {}
    for setting, names in methods.items():
        settings.setdefault(", ".join(names), []).append(setting)
    return "; ".join(f"{', '.join(several)}: {names}" for names, several in settings.items())


def _how_to_have_both(before: Suite, now: Suite) -> str:
    """The options that measure what two comparisons do, if they differ in nothing but lists."""
    options = []
    for name in JOINED:
        lists = [
            getattr(suite, name) for suite in (before, now) if name != "keep" or any(map(takes_keep, suite.schedule))
        ]
        both = dict.fromkeys(value for values in lists for value in values)
        if any(set(values) != set(both) for values in lists):
            options.append(f"--{name.replace('_', '-')} {shlex.quote(','.join(map(str, both)))}")
    if not options or any(getattr(before, name) != getattr(now, name) for name in SHARED):
        return "choose another folder with --out DIR to have two tables"
    return f"for one table of both add {' '.join(options)}, for two tables choose another folder with --out DIR"


def _about(results: Results, prepared: Prepared) -> list[str]:
    """What else to know of a finished run: unreadable images, changed weights, implausible plain models."""
    lost = [f"unreadable image {name}: {reason}" for name, reason in results.unreadable.items()]
    plain = [f"WARNING: {text}" for text in unlike_published(results.table, results.plan)]
    return [
        *lost,
        *_about_models(results),
        *plain,
        *(line for guessing in at_chance(results) for line in _about_guessing(guessing, prepared)),
        *(f"WARNING: {text}" for text in _measured_on_calibration(results)),
    ]


def _about_models(results: Results) -> list[str]:
    """What was done to the weights of each model, and what cannot be measured with them: the plain models' remarks."""
    plain = (row for row in results.plan.rows if row.is_plain)
    about = ((row.id.model, remark) for row in plain for remark in row.remarks)
    named = (remark if remark.startswith(f"{model} ") else f"{model}: {remark}" for model, remark in about)
    return list(dict.fromkeys(named))


def _about_guessing(guessing: Guessing, prepared: Prepared) -> list[str]:
    """The warning, and a line for each of the examples."""
    model = prepared.models.get(guessing.model)
    examples: list[str] = []
    if model is not None and prepared.images is not None:
        examples = answers_in_words(model, prepared.images, [place for place, _, _ in guessing.wrong])
    return [f"WARNING: {guessing}", *examples]


def _measured_on_calibration(results: Results) -> list[str]:
    """Which methods were calibrated, or schedules searched, on images that they are measured on."""
    methods: dict[str, dict[str, None]] = {}
    for row in results.plan.rows:
        for remark in row.remarks:
            if MEASURED_AS_WELL in remark:
                methods.setdefault(remark, {})[row.id.method] = None
    return [f"{', '.join(names)}: {remark}" for remark, names in methods.items()]
