"""What the text of a schedule says before it is read: whether it takes a keep, or names a cost."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from tokbench.errors import UserError
from tokbench.notation import parse_call, split_list

BY_COST = ("budget", "searched")
"""The schedules that name a cost, to which their token counts are fitted."""


def takes_keep(text: str) -> bool:
    """Whether a schedule, given as text, needs a keep."""
    call = parse_call(text)
    return not (call.name in ("explicit", *BY_COST) or "r" in call.named)


def names_cost(text: str) -> bool:
    """Whether a schedule, as the table shows it, names its cost, so that a keep beside it says nothing of its own."""
    return text.startswith(tuple(f"{name}(" for name in BY_COST))


def refuse_searches(schedules: Iterable[str]) -> None:
    """Check that none of these schedules must be searched for first.

    Raises:
        UserError: One of them must.
    """
    for text in schedules:
        if parse_call(text).name == "searched":
            raise UserError(
                f"schedule '{text}': only tokbench compare searches for schedules: give the explicit(counts=...) that "
                "it has found, which is in its DIR/schedules"
            )


def split_schedules(text: str) -> list[str]:
    """Split a list of schedules; `budget(0.7,0.5)` is short for `budget(0.7),budget(0.5)`, and so is `searched`.

    Raises:
        UserError: One of them is not of the form name or name(parameter=value,...).
    """
    found = []
    for written in split_list(text):
        call = parse_call(written)
        several = call.name in BY_COST and len(call.positional) > 1
        found += [str(replace(call, positional=(one,))) for one in call.positional] if several else [written]
    return found
