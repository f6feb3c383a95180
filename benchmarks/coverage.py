"""Do tokbench's 95 % intervals contain the true value as often as they claim?

    python benchmarks/coverage.py

At each point of a grid, 2,000 suites are simulated: images that are right or wrong with a known probability, or that
flip with known probabilities. For each suite the functions that fill the table compute Wilson's interval of the top-1
and Tango's interval of the paired difference, and the intervals that contain the true value are counted. The target is
a coverage of 94 % to 98 % at each point.

The draws are stratified: a low-discrepancy sequence (scrambled Halton) is transformed by the inverse distribution
functions of the counts. 2,000 independent draws would have an error of ±1 point in each coverage, these have ±0.3.
The exact coverage, a sum over all outcomes, is listed too; it uses the score itself and no solver.

With few events the coverage cannot be controlled. Where no flip is possible, every interval of non-zero width contains
the true value; where a few wrong predictions or flips are expected, a single count more or less inside the interval
changes the coverage by several points. Therefore a point outside the band counts as missed, and the exit code is 1,
only if at least ten wrong predictions or flips are expected. With fewer, the point is listed and counted separately, as
above or below the band. The coverage of other intervals at the same points is listed as well, and tokbench's coverage
between the points.

Writes results/trust/coverage.csv and results/trust/coverage.txt.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np
import pandas as pd
from acceptance import INTERVALS, Contains, Floats
from output import TRUST, write_output
from scipy import stats
from scipy.stats import qmc

from tokbench.files import write_atomically
from tokbench.stats.proportions import Interval, tango, wilson

IMAGES = (200, 500, 1000, 5000, 10_000, 50_000)
TOP1 = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99)
FLIPS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
GAINED = (0.5, 0.25, 0.1, 0.0)  # the share of the flips that are from wrong to right

SUITES = 2000
BAND = (0.94, 0.98)
ENOUGH = 10  # with at least so many wrong predictions or flips expected, a point outside the band is missed
NEGLIGIBLE = 1e-12  # the probability in each tail that a sum omits


@dataclass(frozen=True)
class Point:
    """A point of the grid: `up` and `down` are the probabilities of the two counts among `n` images.

    For the top-1 they are the probabilities of a right and a wrong prediction, for the difference those of a flip to
    right and to wrong.
    """

    interval: str
    n: int
    up: float
    down: float

    @property
    def truth(self) -> float:
        """The true value that the interval should contain."""
        return self.up if self.interval == "top1" else self.up - self.down

    @property
    def events(self) -> float:
        """The probability of the counted event: a wrong prediction or a flip."""
        return self.down if self.interval == "top1" else self.up + self.down

    @property
    def expected(self) -> float:
        """The expected number of wrong predictions or flips in a suite."""
        return round(self.n * self.events, 9)


def grid() -> Iterator[Point]:
    """The points; a paired difference depends only on the flips, not on the top-1."""
    for n in IMAGES:
        yield from (Point("top1", n, p, 1 - p) for p in TOP1)
        for flips in FLIPS:
            yield from (Point("difference", n, flips * s, flips * (1 - s)) for s in (GAINED if flips else GAINED[:1]))


def simulated(point: Point) -> float:
    """The share of the simulated suites whose interval, as tokbench computes it, contains the true value."""
    places = qmc.Halton(2, seed=point.n).random(SUITES)
    events = np.asarray(stats.binom.ppf(places[:, 0], point.n, point.events), dtype=int)
    if point.interval == "top1":
        single = cache(lambda wrong: wilson(point.n - wrong, point.n))
        intervals = [single(int(wrong)) for wrong in events]
    else:
        losing = point.down / point.events if point.events else 0.0
        lost = np.asarray(stats.binom.ppf(places[:, 1], events, losing), dtype=int)
        pair = cache(lambda up, down: tango(up, down, point.n))
        intervals = [pair(int(all_ - down), int(down)) for all_, down in zip(events, lost, strict=True)]
    return float(np.mean([contains_truth(interval, point.truth) for interval in intervals]))


def contains_truth(interval: Interval, truth: float) -> bool:
    """Whether an interval contains the true value, allowing for the tolerance of the solver."""
    return interval.lo - 1e-9 <= truth <= interval.hi + 1e-9


def exact(point: Point, contains: Contains) -> float:
    """The total probability of all outcomes whose interval contains the true value."""
    down = _likely(point.n, point.down)
    if point.interval == "top1":
        up, weight = point.n - down, stats.binom.pmf(down, point.n, point.down)
    else:
        up = _likely(point.n, point.up)[:, None]
        rest = point.down / (1 - point.up)
        weight = stats.binom.pmf(up, point.n, point.up) * stats.binom.pmf(down, point.n - up, rest)
    return float(weight[contains(up, down, point.n, point.truth) & (weight > 0)].sum())


def _likely(n: int, p: float) -> Floats:
    """All counts except those in the negligible tails."""
    first, last = stats.binom.ppf(NEGLIGIBLE, n, p), stats.binom.isf(NEGLIGIBLE, n, p)
    return np.arange(max(first - 1, 0), min(last + 1, n) + 1, dtype=float)


def within(coverage: float) -> bool:
    """Whether a coverage is within the target band."""
    return BAND[0] <= coverage <= BAND[1]


def judge(point: Point) -> dict[str, Any]:
    """A line of the table."""
    coverage = simulated(point)
    by_interval = {name: exact(point, contains) for name, contains in INTERVALS[point.interval].items()}
    first = next(iter(by_interval.values()))
    if within(coverage) and within(first):
        finding, reason = "within", ""
    elif point.expected == 0:
        finding, reason = "few", "nothing can flip: every interval of non-zero width contains 0"
    elif point.expected < ENOUGH:
        largest = stats.binom.pmf(np.arange(2 * ENOUGH), point.n, point.events).max()
        event = "wrong predictions" if point.interval == "top1" else "flips"
        finding = "few"
        reason = f"{event} expected: {point.expected:g}; a single count has a probability of {largest:.0%}"
    else:
        finding, reason = "MISSED", ""
    return {
        "interval": point.interval,
        "n": point.n,
        "top1": point.up if point.interval == "top1" else np.nan,
        "flip_rate": point.events if point.interval == "difference" else np.nan,
        "difference": point.truth if point.interval == "difference" else np.nan,
        "expected": point.expected,
        "simulated": coverage,
        "exact": first,
        "finding": finding,
        "reason": reason,
        **by_interval,
    }


def between() -> Iterator[str]:
    """The exact coverage at many more points than the grid has, where ten or more events are expected."""
    for n in IMAGES:
        fine = [Point("top1", n, p, 1 - p) for p in np.arange(600, 991) / 1000]
        yield f"  top-1      n {n:>6,}: {_range(fine)}"
    for n in IMAGES[:4]:  # with more images the sums take minutes, and the coverage is better
        rates = np.geomspace(0.001, 0.2, 60)
        fine = [Point("difference", n, q * s, q * (1 - s)) for q in rates for s in GAINED]
        yield f"  difference n {n:>6,}: {_range(fine)}"


def _range(points: list[Point]) -> str:
    points = [point for point in points if point.expected >= ENOUGH]
    used = {name: next(iter(intervals.values())) for name, intervals in INTERVALS.items()}
    found = np.array([exact(point, used[point.interval]) for point in points])
    below, above = np.sum(found < BAND[0]), np.sum(found > BAND[1])
    worst = points[int(found.argmin())]
    return (
        f"{found.min():.2%} to {found.max():.2%}, mean {found.mean():.2%}; of {len(points)} points {below} below the "
        f"band and {above} above; lowest where {worst.n * worst.up:.1f} and {worst.n * worst.down:.1f} are expected"
    )


def report(table: pd.DataFrame) -> Iterator[str]:
    """The lines of coverage.txt."""
    yield f"Coverage of the 95 % intervals over {SUITES:,} stratified suites per point; target: 94 % to 98 %."
    yield "In brackets: the exact coverage, by summation. * outside, fewer than ten events expected. ! missed."
    for name, title in (("top1", "Top-1: Wilson"), ("difference", "Paired difference: Tango")):
        rows = table[table["interval"] == name]
        yield from ("", f"{title}. Points: {len(rows)}. {_count(rows)}")
        yield f"{'':22}" + "".join(f"{n:>16,}" for n in IMAGES)
        key = ["top1"] if name == "top1" else ["flip_rate", "difference"]
        for value, line in rows.groupby(key, sort=True):
            rate, *change = map(float, cast(tuple[float, ...], value))
            point = f"top-1 {rate:.0%}" if name == "top1" else f"flips {rate:.1%} Δ {100 * change[0]:+.3g}"
            yield f"{point:22}" + "".join(f"{_cell(row):>16}" for row in line.sort_values("n").to_dict("records"))
        yield "Exact, other intervals at the same points:"
        for label in INTERVALS[name]:
            coverage = rows[label]
            outside = ~coverage.map(within)
            enough = rows["expected"] >= ENOUGH
            yield (
                f"  {label}: {coverage.min():.2%} to {coverage.max():.2%}, outside the band at {outside.sum()}, "
                f"of which with {ENOUGH} or more events expected {(outside & enough).sum()}"
            )
    yield from ("", "Between the grid's points, exact, where ten or more wrong predictions or flips are expected:")
    yield from between()
    yield from ("", "Outside the band:")
    for (interval, n, reason), rows in table[table["finding"] != "within"].groupby(
        ["interval", "n", "reason"], sort=False
    ):
        cells = ", ".join(_cell(row) for row in rows.to_dict("records"))
        yield f"  {interval} n {n:,}, {reason or 'MISSED'}: {cells}"


def _count(rows: pd.DataFrame) -> str:
    found = rows["finding"].value_counts()
    few = rows[rows["finding"] == "few"]
    below, above = (few["exact"] < BAND[0]).sum(), (few["exact"] > BAND[1]).sum()
    return (
        f"Within the band: {found.get('within', 0)}. Outside, fewer than {ENOUGH} expected: {len(few)} "
        f"({above} above, {below} below). Missed: {found.get('MISSED', 0)}."
    )


def _cell(row: dict[Hashable, Any]) -> str:
    sign = {"within": "", "few": "*", "MISSED": "!"}[row["finding"]]
    return f"{sign}{100 * row['simulated']:.1f} ({100 * row['exact']:.2f})"


def main() -> int:
    """Run the grid, write the two files, and return the exit code."""
    table = pd.DataFrame([judge(point) for point in grid()])
    write_output(TRUST / "coverage.txt", report(table), packages=("python", "numpy", "tokbench"))
    rounded = table.round({"top1": 4, "flip_rate": 4, "difference": 6, "simulated": 5, "exact": 5})
    rounded = rounded.round(dict.fromkeys((name for intervals in INTERVALS.values() for name in intervals), 5))
    write_atomically(TRUST / "coverage.csv", lambda path: rounded.to_csv(path, index=False))
    return int((table["finding"] == "MISSED").any())


if __name__ == "__main__":
    raise SystemExit(main())
