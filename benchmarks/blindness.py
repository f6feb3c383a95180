"""Does `tokbench check` detect a method that became 5 % slower, and one that lost a point of top-1?

    GOMP_SPINCOUNT=30000 python benchmarks/blindness.py

A hundred times, score pruning on the embedded model is compared with itself plus extra work (matrix products, not
sleep) that takes 5 % of the whole model's time, in the same way as `tokbench check --against`: both versions in one
session, in alternating order. The target is the verdict SLOWER at least 95 times and FASTER never. Then 10 of 1,000
right predictions, one point of top-1, are made wrong and compared exactly.

Writes results/trust/blindness.txt.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch
from output import TRUST, write_output
from rich.progress import track
from timing import BATCH, KEEP, built, digits_with
from torch import Tensor

from tokbench import Context, DownsampledViT, Tokens, create
from tokbench.check.against import compare_versions
from tokbench.check.finding import Outcome
from tokbench.check.rules import judge_answers_exactly
from tokbench.config import Check
from tokbench.downsampler import Downsampler
from tokbench.measure.latency import measure_latency
from tokbench.registry import method_class
from tokbench.rows import RowId
from tokbench.stats.times import Verdict, median_interval

RUNS, TARGET = 100, 95
SLOWDOWN = 0.05
CALIBRATION_SECONDS = 30.0  # for each of the two measurements that find the amount of extra work
SETTINGS = Check()  # the default time limit and precision of `tokbench check`

IMAGES, LOST = 1000, 10

METHOD = "score_pruning"


class Slower(Downsampler):
    """A method with extra matrix products, distributed over its three stages."""

    stages = 3

    def __init__(self, method: Downsampler, products: int) -> None:
        """Take the method and the number of extra products in one forward pass."""
        super().__init__()
        self.method = method
        self.products = products
        self.name, self.site, self.needs = method.name, method.site, method.needs
        self.matrix = torch.eye(48)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        """Do the extra work, then call the method."""
        done = self.products * context.stage // self.stages
        for _ in range(self.products * (context.stage + 1) // self.stages - done):
            torch.mm(self.matrix, self.matrix)
        return self.method(tokens, keep, context)


def products_for(slowdown: float, old: DownsampledViT, images: Tensor) -> int:
    """How many products slow the model down by a fraction, measured inside the model: alone they take less time."""
    products = 100
    for _ in range(2):
        new, _ = digits_with(Slower(create(METHOD), products))
        timed = measure_latency(old, new, [images], CALIBRATION_SECONDS, precision=0)
        measured = float(np.median(np.log(timed.other_s) - np.log(timed.base_s)))
        products = round(products * math.log1p(slowdown) / measured)
    return products


def slowdowns() -> tuple[Counter[Verdict], list[str]]:
    """The verdicts, and the lines of the report."""
    method_class(METHOD)
    old, images = digits_with(create(METHOD))
    products = products_for(SLOWDOWN, old, images)
    new, _ = digits_with(Slower(create(METHOD), products))
    runs = [
        compare_versions(built(old), built(new), [images], SETTINGS.seconds, SETTINGS.precision)
        for _ in track(range(RUNS), transient=True)
    ]
    verdicts = Counter(run.change.verdict for run in runs)
    ratios = np.concatenate([np.log(run.latency.other_s) - np.log(run.latency.base_s) for run in runs])
    pooled = median_interval(ratios)
    width, floor, load = (
        f"{100 * np.median(values):.1f} %"
        for values in (
            [run.latency.half_width for run in runs],
            [run.floor for run in runs],
            [run.latency.other_load for run in runs],
        )
    )
    return verdicts, [
        f"{METHOD} at keep {KEEP} on the digits, batch {BATCH}, compared with itself plus {products} products of 48x48",
        f"matrices: {100 * math.expm1(pooled.estimate):.1f} % slower over all {len(ratios):,} rounds "
        f"(95 % interval {100 * math.expm1(pooled.lo):.1f} to {100 * math.expm1(pooled.hi):.1f} %).",
        f"{RUNS} comparisons of {SETTINGS.seconds:g} s or to {100 * SETTINGS.precision:g} %, and as long for the noise "
        f"floor; typical precision reached {width}, noise floor {floor}, load of other processes {load}.",
        f"SLOWER {verdicts[Verdict.SLOWER]}, AMBIGUOUS {verdicts[Verdict.AMBIGUOUS]}, SAME {verdicts[Verdict.SAME]}, "
        f"FASTER {verdicts[Verdict.FASTER]}; target: at least {TARGET} SLOWER and no FASTER.",
    ]


def lost_predictions() -> Iterator[Outcome]:
    """The outcome of losing a point of top-1 on 1,000 images, for a hundred choices of the lost images."""
    row = RowId("digits_deit", METHOD, "", "off-the-shelf", "after_attention", "", KEEP, None, "fp32", None, "")
    for seed in range(RUNS):
        random = np.random.default_rng(seed)
        old = random.random(IMAGES) < 0.95
        new = old.copy()
        new[random.choice(np.flatnonzero(old), LOST, replace=False)] = False
        yield from (finding.outcome for finding in judge_answers_exactly(row, old, new))


def main() -> None:
    """Run both and exit with 1 unless the targets are met."""
    verdicts, lines = slowdowns()
    outcomes = Counter(lost_predictions())
    regressed = outcomes[Outcome.REGRESSED]
    lines += ["", f"A loss of {LOST} of {IMAGES:,} predictions: regressed {regressed} times of {RUNS}."]
    write_output(TRUST / "blindness.txt", lines)
    slowdown_detected = verdicts[Verdict.SLOWER] >= TARGET and not verdicts[Verdict.FASTER]
    loss_detected = outcomes == {Outcome.REGRESSED: RUNS}
    sys.exit(not (slowdown_detected and loss_detected))


if __name__ == "__main__":
    main()
