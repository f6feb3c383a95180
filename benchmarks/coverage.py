"""Do the 95 % intervals of tokbench hold the truth as often as they say?

    python benchmarks/coverage.py

At each point of a grid 2,000 suites are simulated: images that are right or wrong with a known probability, or that
flip with known ones. Wilson's interval of the top-1 and Tango's of the paired difference are made of each suite by the
functions that fill the table, and those that hold the truth are counted. 94 % to 98 % is wanted at each point.

The draws are stratified: a low-discrepancy sequence (Halton's, scrambled) goes through the inverse distribution
functions of the counts. 2,000 independent draws would put an error of ±1 point on each coverage, these put ±0.3.
The exact coverage, a sum over all outcomes, stands beside it; it uses the score itself and no solver.

Where hardly anything happens coverage cannot be steered. Where no flip is possible every interval that has a width
holds the truth; where a few wrong answers or flips are expected, a single count more or less in the interval's reach
moves the coverage by several points. So a point outside the band is a miss, and the exit code is 1, where at least ten
wrong answers or flips are expected; where fewer are it is listed with its figures, counted apart, and told to lie
above or below. What other intervals would cover at the same points is told too, and what lies between the points.

Writes results/trust/coverage.csv and results/trust/coverage.txt.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np
import pandas as pd
from acceptance import WAYS, Floats, Holds
from kept import TRUST, keep
from scipy import stats
from scipy.stats import qmc

from tokbench.files import write_atomically
from tokbench.stats.proportions import Interval, tango, wilson

IMAGES = (200, 500, 1000, 5000, 10_000, 50_000)
TOP1 = (0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.97, 0.98, 0.99)
FLIPS = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
GAINED = (0.5, 0.25, 0.1, 0.0)  # the share of the flips that are for the better

SUITES = 2000
BAND = (0.94, 0.98)
ENOUGH = 10  # wrong answers or flips expected, from which on a point outside the band is a miss
NEGLIGIBLE = 1e-12  # the probability that a sum leaves out on either side


@dataclass(frozen=True)
class Point:
    """A point of the grid: `up` and `down` are the probabilities of the two counts among `n` images.

    For the top-1 they are of a right and a wrong answer, for the difference of a flip for the better and the worse.
    """

    interval: str
    n: int
    up: float
    down: float

    @property
    def truth(self) -> float:
        """What the interval is to hold."""
        return self.up if self.interval == "top1" else self.up - self.down

    @property
    def events(self) -> float:
        """The probability of what is counted: a wrong answer or a flip."""
        return self.down if self.interval == "top1" else self.up + self.down

    @property
    def expected(self) -> float:
        """How many wrong answers or flips a suite has."""
        return round(self.n * self.events, 9)


def grid() -> Iterator[Point]:
    """The points; top-1 plays no part in a paired difference, which sees the flips only."""
    for n in IMAGES:
        yield from (Point("top1", n, p, 1 - p) for p in TOP1)
        for flips in FLIPS:
            yield from (Point("difference", n, flips * s, flips * (1 - s)) for s in (GAINED if flips else GAINED[:1]))


def simulated(point: Point) -> float:
    """The share of the simulated suites whose interval, as tokbench computes it, holds the truth."""
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
    return float(np.mean([holds_truth(interval, point.truth) for interval in intervals]))


def holds_truth(interval: Interval, truth: float) -> bool:
    """Whether the truth is in it; ends that a solver found are good to its tolerance."""
    return interval.lo - 1e-9 <= truth <= interval.hi + 1e-9


def exact(point: Point, holds: Holds) -> float:
    """The probability of all outcomes at which an interval holds the truth."""
    down = _likely(point.n, point.down)
    if point.interval == "top1":
        up, weight = point.n - down, stats.binom.pmf(down, point.n, point.down)
    else:
        up = _likely(point.n, point.up)[:, None]
        rest = point.down / (1 - point.up)
        weight = stats.binom.pmf(up, point.n, point.up) * stats.binom.pmf(down, point.n - up, rest)
    return float(weight[holds(up, down, point.n, point.truth) & (weight > 0)].sum())


def _likely(n: int, p: float) -> Floats:
    """All counts but for those in the negligible tails."""
    first, last = stats.binom.ppf(NEGLIGIBLE, n, p), stats.binom.isf(NEGLIGIBLE, n, p)
    return np.arange(max(first - 1, 0), min(last + 1, n) + 1, dtype=float)


def within(coverage: float) -> bool:
    """Whether a coverage is in the wanted band."""
    return BAND[0] <= coverage <= BAND[1]


def judge(point: Point) -> dict[str, Any]:
    """A line of the table."""
    drawn = simulated(point)
    sums = {name: exact(point, holds) for name, holds in WAYS[point.interval].items()}
    first = next(iter(sums.values()))
    if within(drawn) and within(first):
        finding, reason = "within", ""
    elif point.expected == 0:
        finding, reason = "few", "nothing can flip: every interval that has a width holds 0 always"
    elif point.expected < ENOUGH:
        heaviest = stats.binom.pmf(np.arange(2 * ENOUGH), point.n, point.events).max()
        what = "wrong answers" if point.interval == "top1" else "flips"
        finding = "few"
        reason = f"{what} expected: {point.expected:g}; one count alone has a probability of {heaviest:.0%}"
    else:
        finding, reason = "MISSED", ""
    return {
        "interval": point.interval,
        "n": point.n,
        "top1": point.up if point.interval == "top1" else np.nan,
        "flip_rate": point.events if point.interval == "difference" else np.nan,
        "difference": point.truth if point.interval == "difference" else np.nan,
        "expected": point.expected,
        "simulated": drawn,
        "exact": first,
        "finding": finding,
        "reason": reason,
        **sums,
    }


def between() -> Iterator[str]:
    """The exact coverage at many more points than the grid has, wherever ten or more events are expected."""
    for n in IMAGES:
        fine = [Point("top1", n, p, 1 - p) for p in np.arange(600, 991) / 1000]
        yield f"  top-1      n {n:>6,}: {_range(fine)}"
    for n in IMAGES[:4]:  # the sums of more images take minutes, and cover better
        rates = np.geomspace(0.001, 0.2, 60)
        fine = [Point("difference", n, q * s, q * (1 - s)) for q in rates for s in GAINED]
        yield f"  difference n {n:>6,}: {_range(fine)}"


def _range(points: list[Point]) -> str:
    points = [point for point in points if point.expected >= ENOUGH]
    ways = {name: next(iter(holds.values())) for name, holds in WAYS.items()}
    found = np.array([exact(point, ways[point.interval]) for point in points])
    below, above = np.sum(found < BAND[0]), np.sum(found > BAND[1])
    worst = points[int(found.argmin())]
    return (
        f"{found.min():.2%} to {found.max():.2%}, mean {found.mean():.2%}; of {len(points)} points {below} below the "
        f"band and {above} above; lowest where {worst.n * worst.up:.1f} and {worst.n * worst.down:.1f} are expected"
    )


def report(table: pd.DataFrame) -> Iterator[str]:
    """The lines of coverage.txt."""
    yield f"Coverage of the 95 % intervals over {SUITES:,} simulated suites a point, stratified; wanted: 94 % to 98 %."
    yield "In brackets: the exact coverage, by summation. * outside, under ten events expected. ! missed."
    for name, title in (("top1", "Top-1: Wilson"), ("difference", "Paired difference: Tango")):
        rows = table[table["interval"] == name]
        yield from ("", f"{title}. Points: {len(rows)}. {_count(rows)}")
        yield f"{'':22}" + "".join(f"{n:>16,}" for n in IMAGES)
        key = ["top1"] if name == "top1" else ["flip_rate", "difference"]
        for value, line in rows.groupby(key, sort=True):
            rate, *change = map(float, cast(tuple[float, ...], value))
            label = f"top-1 {rate:.0%}" if name == "top1" else f"flips {rate:.1%} Δ {100 * change[0]:+.3g}"
            yield f"{label:22}" + "".join(f"{_cell(row):>16}" for row in line.sort_values("n").to_dict("records"))
        yield "Exact, other intervals at the same points:"
        for way in WAYS[name]:
            out = ~rows[way].map(within)
            many = rows["expected"] >= ENOUGH
            yield (
                f"  {way}: {rows[way].min():.2%} to {rows[way].max():.2%}, outside the band at {out.sum()}, "
                f"of them with {ENOUGH} or more events expected {(out & many).sum()}"
            )
    yield from ("", "Between the grid's points, exact, where ten or more wrong answers or flips are expected:")
    yield from between()
    yield from ("", "Outside the band:")
    for (interval, n, reason), rows in table[table["finding"] != "within"].groupby(
        ["interval", "n", "reason"], sort=False
    ):
        cells = ", ".join(_cell(row) for row in rows.to_dict("records"))
        yield f"  {interval} n {n:,}, {reason or 'MISSED'}: {cells}"


def _count(rows: pd.DataFrame) -> str:
    found = rows["finding"].value_counts()
    apart = rows[rows["finding"] == "few"]
    below, above = (apart["exact"] < BAND[0]).sum(), (apart["exact"] > BAND[1]).sum()
    return (
        f"Within the band: {found.get('within', 0)}. Outside, under {ENOUGH} expected: {len(apart)} "
        f"({above} above, {below} below). Missed: {found.get('MISSED', 0)}."
    )


def _cell(row: dict[Hashable, Any]) -> str:
    sign = {"within": "", "few": "*", "MISSED": "!"}[row["finding"]]
    return f"{sign}{100 * row['simulated']:.1f} ({100 * row['exact']:.2f})"


def main() -> int:
    """Run the grid, write the two files, and say how it went."""
    table = pd.DataFrame([judge(point) for point in grid()])
    keep(TRUST / "coverage.txt", report(table), packages=("python", "numpy", "tokbench"))
    shown = table.round({"top1": 4, "flip_rate": 4, "difference": 6, "simulated": 5, "exact": 5})
    shown = shown.round(dict.fromkeys((way for ways in WAYS.values() for way in ways), 5))
    write_atomically(TRUST / "coverage.csv", lambda path: shown.to_csv(path, index=False))
    return int((table["finding"] == "MISSED").any())


if __name__ == "__main__":
    raise SystemExit(main())
