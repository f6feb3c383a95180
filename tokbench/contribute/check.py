"""All checks of contributed results, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from tokbench.contribute.counts import Recount
from tokbench.contribute.environment import check_environment
from tokbench.contribute.files import check_files, check_names
from tokbench.contribute.keys import KeyCheck
from tokbench.contribute.planned import check_plan, check_rows
from tokbench.contribute.privacy import check_privacy
from tokbench.contribute.problem import Name, Problem, Verdict
from tokbench.contribute.records import check_answers, check_records
from tokbench.contribute.reference import check_against, rows_without_reference
from tokbench.contribute.samples import check_samples
from tokbench.contribute.speed import check_speed
from tokbench.contribute.tables import check_images, check_tables
from tokbench.errors import UserError
from tokbench.results import Results
from tokbench.results.store import Records


def check_contribution(
    directory: Path,
    references: Sequence[Results],
    others: Sequence[Results] = (),
    own_names: frozenset[str] = frozenset(),
    now: datetime | None = None,
) -> Verdict:
    """Check results that someone else has measured.

    Args:
        directory: The contributed results.
        references: The project's own results, with which exact numbers are compared.
        others: What others have contributed, from which times may have been copied.
        own_names: Names of the user and the host that no text may hold, where they are known.
        now: The time; None takes that of the clock.

    Raises:
        UserError: There is no such directory, or a reference is damaged.
    """
    if not directory.is_dir():
        raise UserError(f"no results in {directory}: there is no such folder; create it with tokbench compare --out")
    problems = list(check_files(directory))
    if problems:
        return Verdict(tuple(problems))
    try:
        records = Records(directory)
        results = Results(directory, records)
        _ = results.environment, results.images  # they are read once, and may be damaged
    except UserError as error:
        return Verdict((Problem(Name.UNREADABLE_FILE, str(error)),))
    problems = [
        *check_plan(results.plan),
        *check_environment(results, now or datetime.now(UTC)),
        *check_records(results, records.all()),
    ]
    if problems:  # what follows would fail, or repeat them
        return Verdict(tuple(problems))
    recount, keys = Recount(results), KeyCheck(results)
    problems = [
        *check_names(results),
        *check_rows(results.plan),
        *keys.problems(),
        *check_samples(records.all(), [*references, *others]),
        *check_answers(results),
        *check_tables(results),
        *check_images(results, references),
        *check_privacy(results, records.all(), own_names),
        *recount.problems(),
        *check_speed(results, references),
        *check_against(results, references),
    ]
    return Verdict(tuple(problems), tuple(_notes(results, references, recount, keys)))


def _notes(results: Results, references: Sequence[Results], recount: Recount, keys: KeyCheck) -> Iterator[str]:
    """What could not be checked."""
    yield from keys.notes
    alone = rows_without_reference(results, references)
    if alone:
        yield f"answers of {alone} rows are not compared: no other results have these rows"
    yield from (f"MACs of {what} are not counted again: {why}" for what, why in recount.not_counted.items())
