"""What will be trained: the cells of a suite, each of which becomes one checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from tokbench.config import Config
from tokbench.errors import UserError
from tokbench.names import EAGER, EMBEDDED, PLAIN, RANDOM
from tokbench.registry import create
from tokbench.run.cells import Cell, cells_of
from tokbench.run.variant import Variant
from tokbench.schedule_text import names_cost, refuse_searches, takes_keep
from tokbench.suite import Suite

BATCH = 32  # images that MACs are counted on, for budgets


def cells_to_train(suite: Suite, config: Config, known: Sequence[str], *, broken: bool = False) -> tuple[Cell, ...]:
    """The cells of a suite: for each model the plain one, then method by method, each with every seed.

    Args:
        suite: What to train.
        config: Holds the methods' default parameters.
        known: All registered methods, for the suite's `all`.
        broken: Whether plugins failed to import, so that an unknown method may be one of theirs.

    Raises:
        UserError: A method, parameter, schedule or keep is wrong, a schedule must be searched for, or a variant of the
            plain model is asked for.
    """
    refuse_searches(suite.schedule)
    found = cells_of(_with_needs_met(suite), config, known, broken=broken)
    settings = dict.fromkeys((cell.model, one) for cell in found for one in _each_keep(cell.variant, suite))
    for _, variant in settings:
        if variant.method == PLAIN and variant.params:
            raise UserError(f"method '{PLAIN}({variant.params_text})': the plain model is only trained as it is")
    return tuple(
        Cell(model, variant, BATCH, EAGER, seed) for model, variant in settings for seed in dict.fromkeys(suite.seeds)
    )


def _with_needs_met(suite: Suite) -> Suite:
    """The suite as if no method lacked anything: training gives weights, and constants are set from its images."""
    met = {"weights": (RANDOM,), "calibration": EMBEDDED, "set_apart": None}
    return suite.model_copy(
        update={**met, "baselines": ("none",), "checkpoint": None, "batch_size": (BATCH,), "mode": (EAGER,)}
    )


def _each_keep(variant: Variant, suite: Suite) -> Iterator[Variant]:
    """A variant; one that decides itself how many tokens stay is trained towards each keep."""
    fixed = (
        variant.method == PLAIN or variant.failed or names_cost(variant.schedule) or not takes_keep(variant.schedule)
    )
    method = None if fixed else create(variant.method, **dict(variant.params))
    if method is not None and method.ignores_keep and method.trained:
        yield from (replace(variant, keep=keep, remarks=()) for keep in sorted(set(suite.keep), reverse=True))
    else:
        yield variant
