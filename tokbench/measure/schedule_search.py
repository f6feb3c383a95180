"""Search for the token counts per block with which a method stays closest to the plain model, at equal compute.

The first trials are known shapes. After them Optuna's tree-structured Parzen estimator proposes directions from the
trials before; it models the shares of all blocks together (Bergstra et al. 2011, "Algorithms for hyper-parameter
optimization"). It is made anew for each trial, with a seed of its own: a trial depends on nothing but the trials before
it, so that a search that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tokbench.measure.budget import OutOfReachError
from tokbench.measure.equal_cost_counts import Backbone, solve
from tokbench.measure.known_shapes import NOTHING, Direction
from tokbench.measure.plain_answers import Closeness
from tokbench.schedule import Explicit

WORST = -1.0  # of scores


@dataclass(frozen=True)
class Trial:
    """A direction and how close the method stays to the plain model in it.

    Attributes:
        direction: For each block its share of the reduction.
        schedule: The counts; empty where there are none.
        fraction: Its MACs, as a fraction of the plain model's.
        extra: What of that the backbone's counts do not explain.
        same: Images with the plain model's top-1.
        kl: The mean KL divergence from the plain model's predictions, in nats.
        failed: Why there are no counts, or no answers.
    """

    direction: Direction
    schedule: str = ""
    fraction: float = 0.0
    extra: float = 0.0
    same: int = 0
    kl: float = 0.0
    failed: str = ""

    @property
    def score(self) -> float:
        """Larger for more agreement; of equal agreement, larger for a lower divergence."""
        return WORST if self.failed else self.same - self.kl / (1 + self.kl)


class TrialLog(Protocol):
    """The finished trials, in order."""

    @property
    def trials(self) -> Sequence[Trial]:
        """All of them."""

    def add(self, trial: Trial) -> None:
        """Write a trial; when this returns, it is on the disk."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What a schedule is searched for.

    Attributes:
        backbone: The model and the method.
        target: The cost, as a fraction of the plain model's MACs.
        cost: That of a schedule as counted.
        closeness: That of the method with a schedule.
    """

    backbone: Backbone
    target: float
    cost: Callable[[Explicit], float]
    closeness: Callable[[Explicit], Closeness]


def search(
    shapes: Sequence[Direction],
    blocks: range,
    log: TrialLog,
    trials: int,
    seed: int,
    attempt: Callable[[int, Direction], Trial],
) -> Trial:
    """Try directions until there are enough trials.

    Args:
        shapes: What to try first.
        blocks: Where the method may act.
        log: The trials so far; new ones are added.
        trials: How many trials the result is chosen from, those of the log included.
        seed: Of the proposals.
        attempt: Carries out a trial, from its number and its direction.

    Returns:
        The best trial; the first of several that are equal.
    """
    for number in range(len(log.trials), trials):
        known = number < len(shapes)
        log.add(attempt(number, shapes[number] if known else propose(log.trials, blocks, (seed, number))))
    return max(log.trials[:trials], key=lambda trial: trial.score)


def carry_out(subject: Subject, direction: Direction, before: Sequence[Trial]) -> Trial:
    """Find the counts of a direction, and how close the method stays to the plain model with them.

    Args:
        subject: The method in its model.
        direction: A share for each block.
        before: Earlier trials: what has been counted and compared before is not counted and compared again.

    Raises:
        Exception: Whatever the method raises.
    """
    known = {trial.schedule: trial for trial in before if not trial.failed}

    def cost(schedule: Explicit) -> float:
        trial = known.get(str(schedule))
        return subject.cost(schedule) if trial is None else trial.fraction

    extra = next((trial.extra for trial in reversed(before) if not trial.failed), 0.0)
    try:
        found = solve(direction, subject.target, subject.backbone, cost, extra)
    except OutOfReachError as error:
        return Trial(direction, failed=str(error))
    text = str(found.schedule)
    same = known.get(text)
    answers = subject.closeness(found.schedule) if same is None else Closeness(same.same, same.kl)
    return Trial(direction, text, found.fraction, found.extra, answers.same, answers.kl)


def propose(trials: Sequence[Trial], blocks: range, seed: tuple[int, int]) -> Direction:
    """The next direction to try.

    Args:
        trials: Those before it.
        blocks: Where the method may act.
        seed: Of the search, and the number of the trial.
    """
    import optuna

    shares = {str(block): optuna.distributions.FloatDistribution(-1.0, 1.0) for block in blocks}
    own_seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    with _silent():
        sampler = optuna.samplers.TPESampler(multivariate=True, seed=own_seed)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        study.add_trials(
            [
                optuna.trial.create_trial(
                    params={str(block): trial.direction[block] for block in blocks},
                    distributions=dict(shares),
                    value=trial.score,
                )
                for trial in trials
            ]
        )
        asked = study.ask(dict(shares)).params
    return tuple(asked.get(str(block), NOTHING) for block in range(blocks.stop))


@contextmanager
def _silent() -> Iterator[None]:
    """Without Optuna's messages: that a study was made, and that a setting may change in a later version."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
