"""What several commands read alike from the command line."""

from __future__ import annotations

from tokbench.errors import UserError


def split(text: str | None) -> list[str] | None:
    """A comma-separated list, commas within brackets aside; None where nothing was given."""
    from tokbench.notation import split_list

    return None if text is None else split_list(text)


def schedule_of(schedule: str | None, at: str | None) -> str | None:
    """The schedule that `--schedule` or its short form `--at` names.

    Raises:
        UserError: Both are given.
    """
    if at is None:
        return schedule
    if schedule is not None:
        raise UserError("--at is short for --schedule 'stages(at=...)': give one of the two")
    return f"stages(at={at.replace(',', '-')})"
