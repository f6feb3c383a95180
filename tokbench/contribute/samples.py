"""Samples of times: positive, as precise as the record says, and of one measurement each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tokbench.contribute.problem import Name, Problem
from tokbench.results import Results
from tokbench.results.directory import log_ratios
from tokbench.results.store import RECORDS, Place, Records
from tokbench.stats.times import MIN_ROUNDS, median_interval

DIGITS = 10  # of samples relative to their median, in which a scaled copy agrees and another measurement does not
ROUNDING = 1e-9

Signature = tuple[float, ...]


def check_samples(records: Mapping[Place, Any], references: Sequence[Results]) -> Iterator[Problem]:
    """Check every list of samples.

    Args:
        records: All records of the contributed results.
        references: Other results, from which samples may have been copied.
    """
    seen = {
        signature: f"{one.directory}"
        for one in references
        for _, signature in _signatures(Records(one.directory).all())
    }
    for place, sides in _sampled(records):
        if wrong := _wrong(sides):
            yield Problem(Name.IMPOSSIBLE_RECORD, f"{RECORDS}: {place}: {wrong}")
    for place, signature in _signatures(records):
        if len(set(signature)) == 1:
            yield Problem(Name.COPIED_TIMES, f"{RECORDS}: {place}: all samples are equal")
        elif signature in seen:
            yield Problem(Name.COPIED_TIMES, f"{RECORDS}: {place} has the samples of {seen[signature]}, or a multiple")
        else:
            seen[signature] = place


def _sampled(records: Mapping[Place, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every record, or part of one, that has pairs of samples, with where it is."""
    for (kind, key), value in records.items():
        for number, part in enumerate(value.get("blocks", [value])):
            if (
                isinstance(part, dict)
                and isinstance(part.get("base_s"), list)
                and isinstance(part.get("other_s"), list)
            ):
                yield f"{kind} {key}" + (f" block {number}" if "blocks" in value else ""), part


def _signatures(records: Mapping[Place, Any]) -> Iterator[tuple[str, Signature]]:
    """Where each list of samples is, and what is the same in all multiples of it."""
    for place, part in _sampled(records):
        for name in ("base_s", "other_s"):
            samples = np.array(part[name], dtype=float)
            if samples.size and np.all(samples > 0):
                yield f"{place} {name}", tuple(np.round(samples / np.median(samples), DIGITS))


def _wrong(part: Mapping[str, Any]) -> str:
    """What no measurement leaves; empty if there is nothing."""
    base, other = (np.array(part[name], dtype=float) for name in ("base_s", "other_s"))
    if base.shape != other.shape or base.ndim != 1 or base.size < MIN_ROUNDS:
        return f"{base.size} and {other.size} samples, which must be as many and at least {MIN_ROUNDS}"
    if not (np.all(base > 0) and np.all(other > 0)):
        return "a time is not positive"
    if "half_width" in part and not np.isclose(part["half_width"], half_width(base, other), rtol=ROUNDING, atol=1e-12):
        return f"precision {part['half_width']:.6g}, and its samples give {half_width(base, other):.6g}"
    return ""


def half_width(base: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Half the width of the 95 % interval of the median log-ratio, as a measurement records it."""
    interval = median_interval(log_ratios(base, other))
    return (interval.hi - interval.lo) / 2
