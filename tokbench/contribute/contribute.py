"""Copying results to where the repository keeps those of other machines, without what is private in them."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from tokbench.contribute.check import check_contribution
from tokbench.contribute.files import written_tables
from tokbench.contribute.privacy import names_of_this_machine, without_folders
from tokbench.contribute.problem import Verdict
from tokbench.contribute.records import has_place, planned_places
from tokbench.errors import UserError
from tokbench.files import OTHER_FOLDER, writing
from tokbench.results import Results
from tokbench.results.directory import ENVIRONMENT, IMAGES, TABLES
from tokbench.results.plan import PLAN
from tokbench.results.several import runs_under
from tokbench.results.store import RECORDS, Records, Store, write_json

CONTRIBUTED = "contributed"
"""The folder with others' results, in the repository's folder of results."""


def check(directory: Path, results: Path) -> Verdict:
    """Check contributed results where they are.

    Args:
        directory: The contributed results.
        results: The repository's folder of results.

    Raises:
        UserError: One of the two is no such folder, or the repository's own results are damaged.
    """
    own, contributed = _known(results, directory)
    return check_contribution(directory, own, contributed)


def contribute(directory: Path, results: Path) -> tuple[Path | None, Verdict]:
    """Check results, and copy them if there is no problem.

    In the copy, paths in the settings are shortened to their last part, and records of earlier runs in the same
    directory are left out. Everything else is copied as it is.

    Args:
        directory: What `tokbench compare` wrote.
        results: The repository's folder of results.

    Returns:
        The copy, None if there is a problem; and what the check has found.

    Raises:
        UserError: The directory holds no results, a folder cannot be written, or the repository's results are damaged.
    """
    source = Results(directory)
    own, contributed = _known(results, directory)
    folder = results / CONTRIBUTED
    scratch = folder / f".{os.getpid()}"
    with writing(folder, OTHER_FOLDER):
        scratch.mkdir(parents=True)
    try:
        _copy(source, scratch)
        verdict = check_contribution(scratch, own, contributed, names_of_this_machine())
        if verdict.problems:
            return None, verdict
        place = next(path for path in _places(source, folder) if not os.path.lexists(path))
        scratch.rename(place)
        return place, verdict
    finally:
        shutil.rmtree(scratch, ignore_errors=True)  # it is gone where it was moved


def _known(results: Path, directory: Path) -> tuple[list[Results], list[Results]]:
    """The repository's own results and those of others, without the directory itself."""
    if not results.is_dir():
        raise UserError(f"no folder {results}: run this in a clone of tokbench, or name its results with --results DIR")
    runs = [run for run in runs_under(results) if run.resolve() != directory.resolve()]
    of_others = [run for run in runs if run.is_relative_to(results / CONTRIBUTED)]
    return [Results(run) for run in runs if run not in of_others], [Results(run) for run in of_others]


def _copy(source: Results, target: Path) -> None:
    """Copy the files that belong to results; those that are missing are found by the check."""
    plan = json.loads((source.directory / PLAN).read_text(encoding="utf-8"))
    write_json(target / PLAN, without_folders(plan))
    tables = [*TABLES, *written_tables(source), *([IMAGES] if source.plan.images else [])]
    for name in (ENVIRONMENT, *tables):
        if (source.directory / name).is_file():
            shutil.copyfile(source.directory / name, target / name)
    records = Records(source.directory)
    if records.damaged or not (source.directory / RECORDS).is_file():  # for the check to find
        if (source.directory / RECORDS).is_file():
            shutil.copyfile(source.directory / RECORDS, target / RECORDS)
        return
    planned = planned_places(source)
    Store(target).add_all({at: value for at, value in records.all().items() if has_place(at, planned, source)})


def _places(source: Results, folder: Path) -> Iterator[Path]:
    """Where the copy may go: `<machine>-<date>`, then with a number."""
    machine = re.sub(r"[^a-z0-9]+", "-", str(source.environment["device_name"]).lower()).strip("-")
    name = f"{machine or 'machine'}-{str(source.environment['measured'])[:10]}"
    yield folder / name
    yield from (folder / f"{name}-{number}" for number in count(2))
