"""Schedules: at which depths a method acts, and how many patch tokens it leaves there."""

from __future__ import annotations

import itertools
import math
import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Annotated, ClassVar

import pydantic

from tokbench.errors import UserError, did_you_mean
from tokbench.notation import bind, parse_call, shortened

if TYPE_CHECKING:
    from tokbench.downsampler import Downsampler

DEFAULT_DEPTHS = (3, 6, 9)
DEFAULT_TRIALS = 200  # of a search


def _numbers(written: object) -> object:
    """Split the text `3-6-9`, `3,6,9`, `(3,6,9)` or `[3,6,9]` into numbers; any other value is left to pydantic."""
    if not isinstance(written, str):
        return written
    listed = written.strip()
    if listed[:1] + listed[-1:] in ("()", "[]"):
        listed = listed[1:-1].strip().removesuffix(",")
    return re.split(r"\s*,\s*|(?<=\d)\s*-\s*", listed)


Numbers = Annotated[tuple[int, ...], pydantic.BeforeValidator(_numbers)]


class Schedule(ABC):
    """At which depths to reduce, and how many patch tokens to leave.

    Attributes:
        keep: The fraction of the present patch tokens that each reduction keeps; None if the schedule gives counts.
        positional: The arguments that are written without a name.
    """

    keep: float | None
    positional: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def depths(self, blocks: int) -> tuple[int, ...]:
        """The depths of the reductions, in ascending order.

        Args:
            blocks: The number of blocks of the model.

        Raises:
            UserError: The schedule does not fit a model with this many blocks.
        """

    @abstractmethod
    def target(self, stage: int, n_patches: int) -> int:
        """K, the number of patch tokens to leave at reduction `stage` (from 0) if `n_patches` are present."""

    @staticmethod
    def parse(text: str, keep: float | None = None) -> Schedule:
        """Read a schedule: `stages(at=3-6-9)`, `every_block(r=13)`, `explicit(counts=...)`, `budget(0.7)`.

        Args:
            text: The schedule without its keep, as in the table's column `schedule`.
            keep: The fraction to keep, if the schedule takes one.

        Raises:
            UserError: The text, an argument or the keep is invalid.
        """
        call = parse_call(text)
        if call.name not in KINDS:
            raise UserError(f"unknown schedule '{shortened(call.name)}': {did_you_mean(call.name, list(KINDS))}")
        kind = KINDS[call.name]
        if len(call.positional) > len(kind.positional):
            raise UserError(f"schedule '{shortened(text)}': name its arguments, as in stages(at=3-6-9)")
        given = {**dict(zip(kind.positional, call.positional, strict=False)), **call.named}
        return kind(**bind(kind, {"keep": keep, **given}, f"schedule '{call.name}'"))

    @staticmethod
    def stages(keep: float, at: tuple[int, ...] = DEFAULT_DEPTHS) -> Schedule:
        """Keep the same fraction at a few depths (EViT; Haurum et al. 2023)."""
        return Stages(keep, at)

    @staticmethod
    def every_block(keep: float | None = None, r: int | None = None) -> Schedule:
        """Act in every block: keep a fraction (Marin et al. 2021) or remove r tokens (ToMe)."""
        return EveryBlock(keep, r)

    @staticmethod
    def explicit(counts: tuple[int, ...], at: tuple[int, ...] | None = None) -> Schedule:
        """Leave the given counts, at the given depths or in every block (DiffRate)."""
        return Explicit(None, counts, at)


@dataclass(frozen=True)
class Stages(Schedule):
    """`stages(at=3-6-9)`: the same fraction at a few depths."""

    keep: float | None
    at: Numbers = DEFAULT_DEPTHS

    def __post_init__(self) -> None:
        """Check the fraction and the depths."""
        _check_keep(self.keep, "stages")
        _check_rising(self.at)

    def depths(self, blocks: int) -> tuple[int, ...]:
        """See `Schedule`."""
        _check_depth(self.at[-1], blocks)
        return self.at

    def target(self, stage: int, n_patches: int) -> int:
        """See `Schedule`."""
        return kept(self.keep, n_patches)

    def __str__(self) -> str:
        return f"stages(at={_join(self.at)})"


@dataclass(frozen=True)
class EveryBlock(Schedule):
    """`every_block` with a keep, or `every_block(r=13)`: act in every block."""

    keep: float | None
    r: int | None = None

    def __post_init__(self) -> None:
        """Check that either keep or r is given."""
        if self.r is None:
            _check_keep(self.keep, "every_block without r")
        elif self.keep is not None:
            raise UserError("every_block(r=...) already fixes the token counts: drop either r or --keep")
        elif self.r < 1:
            raise UserError(f"every_block(r={self.r}): r, the number of tokens to remove, must be at least 1")

    def depths(self, blocks: int) -> tuple[int, ...]:
        """See `Schedule`."""
        return tuple(range(blocks))

    def target(self, stage: int, n_patches: int) -> int:
        """See `Schedule`."""
        return kept(self.keep, n_patches) if self.r is None else max(1, n_patches - self.r)

    def __str__(self) -> str:
        return "every_block" if self.r is None else f"every_block(r={self.r})"


@dataclass(frozen=True)
class Explicit(Schedule):
    """`explicit(counts=138-97-68,at=3-6-9)`: the given counts, at the given depths or in every block."""

    keep: float | None
    counts: Numbers
    at: Numbers | None = None

    def __post_init__(self) -> None:
        """Check the counts against the depths."""
        if self.keep is not None:
            raise UserError("explicit(counts=...) already fixes the token counts: drop --keep")
        if not self.counts or min(self.counts) < 1:
            raise UserError("explicit(counts=...) needs at least one count, each at least 1")
        if self.at is not None:
            _check_rising(self.at)
            if len(self.at) != len(self.counts):
                raise UserError(
                    f"explicit: {len(self.counts)} counts for {len(self.at)} depths; give one count per depth"
                )

    def depths(self, blocks: int) -> tuple[int, ...]:
        """See `Schedule`."""
        if self.at is not None:
            _check_depth(self.at[-1], blocks)
            return self.at
        if len(self.counts) != blocks:
            raise UserError(
                f"explicit: {len(self.counts)} counts for a model of {blocks} blocks; give one per block, or set at="
            )
        return tuple(range(blocks))

    def target(self, stage: int, n_patches: int) -> int:
        """See `Schedule`."""
        return min(self.counts[stage], n_patches)

    def __str__(self) -> str:
        at = "" if self.at is None else f",at={_join(self.at)}"
        return f"explicit(counts={_join(self.counts)}{at})"


@dataclass(frozen=True)
class Budget(Schedule):
    """`budget(0.7)` or `budget(0.7,at=3-6-9)`: the keep at which gmacs are this fraction of the plain model's."""

    positional = ("fraction",)

    keep: float | None
    fraction: float
    at: Numbers = DEFAULT_DEPTHS

    def __post_init__(self) -> None:
        """Check the fraction and the depths; the keep is None until it has been solved for."""
        _check_fraction(self.fraction, "budget")
        if self.keep is not None:
            _check_keep(self.keep, "budget")
        _check_rising(self.at)

    def depths(self, blocks: int) -> tuple[int, ...]:
        """See `Schedule`."""
        _check_depth(self.at[-1], blocks)
        return self.at

    def target(self, stage: int, n_patches: int) -> int:
        """See `Schedule`."""
        if self.keep is None:
            raise UserError(f"schedule '{self}' has no keep yet: tokbench compare solves for it, by model and method")
        return kept(self.keep, n_patches)

    def __str__(self) -> str:
        at = "" if self.at == DEFAULT_DEPTHS else f",at={_join(self.at)}"
        return f"budget({self.fraction:g}{at})"


@dataclass(frozen=True)
class Searched(Schedule):
    """`searched(0.7)` or `searched(0.7,trials=500,seed=1)`: the best counts per block at this fraction of the gmacs.

    It only says what to search for; what is found is an `Explicit`.
    """

    positional = ("fraction",)

    keep: float | None
    fraction: float
    trials: int = DEFAULT_TRIALS
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.keep is not None:
            raise UserError("searched(...) already fixes the token counts: drop --keep")
        _check_fraction(self.fraction, "searched")
        if self.trials < 1 or self.seed < 0:
            raise UserError(f"{self}: there must be at least 1 trial, and the seed must not be negative")

    def depths(self, blocks: int) -> tuple[int, ...]:
        """See `Schedule`."""
        raise UserError(
            f"schedule '{self}' has no token counts yet: tokbench compare searches for them, by model and method, and "
            "writes the explicit(counts=...) that it finds to DIR/schedules"
        )

    def target(self, stage: int, n_patches: int) -> int:
        """See `Schedule`."""
        raise ValueError("a schedule to be searched for has no counts")

    def __str__(self) -> str:
        trials = "" if self.trials == DEFAULT_TRIALS else f",trials={self.trials}"
        seed = "" if self.seed == 0 else f",seed={self.seed}"
        return f"searched({self.fraction:g}{trials}{seed})"


def planned_counts(schedule: Schedule, downsampler: Downsampler, blocks: int, grid: tuple[int, int]) -> tuple[int, ...]:
    """The number of patch tokens after each reduction, from the schedule and the method's `count`.

    Args:
        schedule: At which depths to reduce, and how far.
        downsampler: The method.
        blocks: The number of blocks of the model.
        grid: (h, w) of the image's patches.
    """
    counts = []
    n = grid[0] * grid[1]
    layout: tuple[int, int] | None = grid
    for stage, depth in enumerate(schedule.depths(blocks)):
        keep = schedule.target(stage, n)
        if keep < n:
            n, layout = downsampler.count(keep, n, depth, layout), downsampler.layout_after(keep, layout)
        counts.append(n)
    return tuple(counts)


def planned_targets(schedule: Schedule, blocks: int, n_patches: int) -> tuple[int, ...]:
    """The number of patch tokens that each reduction is asked for, if every earlier one left exactly that many.

    Args:
        schedule: At which depths to reduce, and how far.
        blocks: The number of blocks of the model.
        n_patches: The patch tokens of the image.
    """
    targets = []
    for stage in range(len(schedule.depths(blocks))):
        n_patches = min(n_patches, schedule.target(stage, n_patches))
        targets.append(n_patches)
    return tuple(targets)


def kept(keep: float | None, n_patches: int) -> int:
    """ceil(keep * N) in exact arithmetic: keep 0.1 of 30 tokens is 3, not 4."""
    if keep is None:
        raise ValueError("this schedule has no keep")
    return math.ceil(Fraction(str(keep)) * n_patches)


def _check_keep(keep: float | None, kind: str) -> None:
    if keep is None:
        raise UserError(f"schedule '{kind}' needs a keep, as in --keep 0.7")
    if not 0 < keep <= 1:
        raise UserError(
            f"keep {keep} is outside (0, 1]: it is the fraction of the patch tokens that each reduction keeps"
        )


def _check_fraction(fraction: float, kind: str) -> None:
    if not 0 < fraction < 1:
        raise UserError(f"{kind}({fraction:g}): the fraction of the plain gmacs must be between 0 and 1")


def _check_rising(at: tuple[int, ...]) -> None:
    if not at or at[0] < 0 or any(second <= first for first, second in itertools.pairwise(at)):
        raise UserError(
            f"invalid depths '{shortened(_join(at))}': expected ascending block numbers from 0, as in 3-6-9"
        )


def _check_depth(last: int, blocks: int) -> None:
    if last >= blocks:
        raise UserError(f"depth {last} is outside the model: its {blocks} blocks are numbered 0 to {blocks - 1}")


def _join(numbers: tuple[int, ...]) -> str:
    return "-".join(map(str, numbers))


KINDS: dict[str, type[Schedule]] = {
    "stages": Stages,
    "every_block": EveryBlock,
    "explicit": Explicit,
    "budget": Budget,
    "searched": Searched,
}
