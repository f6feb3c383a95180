"""The rows of a plan that a method as the user writes it stands for."""

from __future__ import annotations

from collections.abc import Sequence

from tokbench.errors import UserError, did_you_mean
from tokbench.notation import parse_call, split_parameters
from tokbench.results.plan import Plan, PlannedRow
from tokbench.values import unquoted, value_text


def rows_of(plan: Plan, method: str, where: str) -> list[PlannedRow]:
    """The rows of a plan that a method's text stands for.

    Args:
        plan: What is to be measured, or was.
        method: As in `evit` or `score_pruning(score=cls)`.
        where: What has the plan, for messages.

    Raises:
        UserError: There is no such method, or several variants of it.
    """
    call = parse_call(method)
    if call.positional:
        raise UserError(f"{method}: name its parameters, as in {call.name}(parameter=value)")
    own = [row for row in plan.rows if row.id.method == call.name]
    if not own:
        known = list(dict.fromkeys(row.id.method for row in plan.rows))
        raise UserError(f"{where} has no method '{call.name}': {did_you_mean(call.name, known)}")
    variants = {row.id.params: split_parameters(row.id.params) for row in own}
    fitting = [text for text, has in variants.items() if _fits(call.named, has)]
    if len(fitting) > 1:
        info = plan.methods.get(call.name)
        assumed = dict(info.defaults) if info else {}
        fitting = [
            text for text in fitting if _fits({**assumed, **call.named}, variants[text], exactly=True)
        ] or fitting
    if len(fitting) != 1:
        listed = " or ".join(_short_names(call.name, [variants[text] for text in fitting or variants]))
        raise UserError(f"{where} has {'several' if fitting else 'no'} {call}: choose {listed}")
    return [row for row in own if row.id.params == fitting[0]]


def _short_names(method: str, variants: Sequence[dict[str, str]]) -> list[str]:
    """The variants as the user can write them, with those parameters that differ."""
    names = dict.fromkeys(name for has in variants for name in has)
    differing = [name for name in names if len(variants) == 1 or len({has.get(name) for has in variants}) > 1]
    texts = [",".join(f"{name}={has[name]}" for name in differing if name in has) for has in variants]
    return [f"'{method}({text})'" if text else method for text in texts]


def _fits(wanted: dict[str, str], has: dict[str, str], *, exactly: bool = False) -> bool:
    """Whether a variant's parameters have the wanted values; `exactly` allows no others."""
    same = all(name in has and _same(value, has[name]) for name, value in wanted.items())
    return same and (not exactly or set(has) == set(wanted))


def _same(value: str, shown: str) -> bool:
    """Whether a value as written by the user is the one that the table shows: `True` is `true`, `0.50` is `0.5`."""
    if value in (shown, unquoted(shown)) or value_text(value) == shown or value.lower() == shown:
        return True
    try:
        return float(value) == float(shown)
    except ValueError:
        return False
