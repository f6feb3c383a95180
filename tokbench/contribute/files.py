"""The files of contributed results: all that tokbench writes, and no others."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from tokbench.contribute.problem import Name, Problem
from tokbench.kinds import KINDS
from tokbench.results import Results
from tokbench.results.directory import ENVIRONMENT, IMAGES, TABLES
from tokbench.results.plan import PLAN, SCHEMA
from tokbench.results.store import RECORDS

ALWAYS = (PLAN, RECORDS, ENVIRONMENT, *TABLES)
WITH_IMAGES = (IMAGES,)
LARGEST = 64 * 2**20  # bytes of a file; a comparison of 1,000 rows on 50,000 images has records of about this size


def check_files(directory: Path) -> Iterator[Problem]:
    """Check that the plan can be read and that no file is missing; without these nothing else can be checked.

    Args:
        directory: The contributed results.
    """
    for name in ALWAYS:
        if not (directory / name).is_file():
            yield Problem(Name.MISSING_FILE, f"{name} is missing: run the same tokbench compare again")
    if not (directory / PLAN).is_file():
        return
    try:
        content = json.loads((directory / PLAN).read_text(encoding="utf-8"))
        schema = content["schema"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        yield Problem(Name.UNREADABLE_FILE, f"{PLAN} is no plan of tokbench")
        return
    if schema != SCHEMA:
        yield Problem(
            Name.UNKNOWN_FORMAT,
            f"{PLAN} has format {schema}, not {SCHEMA}: update tokbench and run the same tokbench compare again",
        )


def check_names(results: Results) -> Iterator[Problem]:
    """Check that the files are those that a run with this plan leaves.

    Args:
        results: The contributed results.
    """
    needed = (*(WITH_IMAGES if results.plan.images else ()), *written_tables(results))
    for name in needed:
        if not (results.directory / name).is_file():
            yield Problem(Name.MISSING_FILE, f"{name} is missing: run the same tokbench compare again")
    known = {*ALWAYS, *needed}
    for path in sorted(results.directory.rglob("*")):
        name = path.relative_to(results.directory).as_posix()
        if path.is_symlink() or (not path.is_dir() and name not in known):
            yield Problem(Name.UNKNOWN_FILE, f"{name} is no file that belongs to these results: leave it out")
        elif path.is_file() and path.stat().st_size > LARGEST:
            yield Problem(Name.UNKNOWN_FILE, f"{name} is larger than {LARGEST >> 20} MiB: contribute fewer rows")


def written_tables(results: Results) -> list[str]:
    """The names of the kinds' own tables that these results have."""
    return [name for kind in KINDS.values() for name in kind.tables(results)]
