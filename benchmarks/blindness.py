"""Does the gate see a method that became 5 % slower, and one that loses a point of top-1?

    GOMP_SPINCOUNT=30000 python benchmarks/blindness.py

A hundred times, score pruning on the embedded model is held against itself with extra work in it (matrix products, no
sleep) that takes 5 % of the whole model's time, as `tokbench check --against` does: both versions in one session, in
turn. SLOWER is wanted at least 95 times, FASTER never. Then 10 of 1,000 right answers are made wrong, a point of
top-1, and held against the others exactly.

Writes results/trust/blindness.txt.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Iterator

import numpy as np
import torch
from kept import TRUST, keep
from rich.progress import track
from torch import Tensor
from trial import BATCH, KEEP, digits_with

from tokbench import Context, DownsampledViT, Tokens, create
from tokbench.check.against import compare_versions
from tokbench.check.finding import Outcome, Row
from tokbench.check.rules import judge_answers_exactly
from tokbench.config import Check
from tokbench.downsampler import Downsampler
from tokbench.measure.latency import measure_latency
from tokbench.registry import method_class
from tokbench.stats.times import Verdict, median_interval

RUNS, WANTED = 100, 95
SLOWDOWN = 0.05
TRIAL_SECONDS = 30.0  # of each of two trials that size the work
GATE = Check()  # as long and as precise as the gate measures where nothing else is said

IMAGES, LOST = 1000, 10

METHOD = "score_pruning"


class Heavier(Downsampler):
    """A method that multiplies matrices besides, so many times at each of its three stages."""

    stages = 3

    def __init__(self, method: Downsampler, products: int) -> None:
        """Take the method and how often it shall multiply in one forward pass."""
        super().__init__()
        self.method = method
        self.products = products
        self.name, self.site, self.needs = method.name, method.site, method.needs
        self.matrix = torch.eye(48)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        """Do what the method does, and the work."""
        done = self.products * context.stage // self.stages
        for _ in range(self.products * (context.stage + 1) // self.stages - done):
            torch.mm(self.matrix, self.matrix)
        return self.method(tokens, keep, context)


def products_for(slowdown: float, old: DownsampledViT, images: Tensor) -> int:
    """How many products slow the model down by so much, found by trying: alone they take less time than in a model."""
    products = 100
    for _ in range(2):
        new, _ = digits_with(Heavier(create(METHOD), products))
        timed = measure_latency(old, new, [images], TRIAL_SECONDS, precision=0)
        measured = float(np.median(np.log(timed.other_s) - np.log(timed.base_s)))
        products = round(products * math.log1p(slowdown) / measured)
    return products


def slowdowns() -> tuple[Counter[Verdict], list[str]]:
    """The verdicts, and the lines that tell them."""
    method_class(METHOD)
    old, images = digits_with(create(METHOD))
    products = products_for(SLOWDOWN, old, images)
    new, _ = digits_with(Heavier(create(METHOD), products))
    timed = [
        compare_versions(old, new, [images], GATE.seconds, GATE.precision) for _ in track(range(RUNS), transient=True)
    ]
    verdicts = Counter(one.change.verdict for one in timed)
    ratios = np.concatenate([np.log(one.latency.other_s) - np.log(one.latency.base_s) for one in timed])
    pooled = median_interval(ratios)
    width, floor, load = (
        f"{100 * np.median(values):.1f} %"
        for values in (
            [one.latency.half_width for one in timed],
            [one.floor for one in timed],
            [one.latency.other_load for one in timed],
        )
    )
    return verdicts, [
        f"{METHOD} at keep {KEEP} on the digits, batch {BATCH}, against itself with {products} products of 48x48",
        f"matrices more: {100 * math.expm1(pooled.estimate):.1f} % slower over all {len(ratios):,} rounds "
        f"(95 % interval {100 * math.expm1(pooled.lo):.1f} to {100 * math.expm1(pooled.hi):.1f} %).",
        f"{RUNS} comparisons of {GATE.seconds:g} s or to {100 * GATE.precision:g} %, and as long for the noise floor; "
        f"typical half width {width}, floor {floor}, other processes' load {load}.",
        f"SLOWER {verdicts[Verdict.SLOWER]}, AMBIGUOUS {verdicts[Verdict.AMBIGUOUS]}, SAME {verdicts[Verdict.SAME]}, "
        f"FASTER {verdicts[Verdict.FASTER]}; at least {WANTED} SLOWER and no FASTER wanted.",
    ]


def lost_answers() -> Iterator[Outcome]:
    """What a point of top-1 on 1,000 images comes to, for a hundred choices of which images are lost."""
    row = Row("digits_deit", METHOD, "", "off-the-shelf", "after_attention", "", KEEP, None, "fp32", None, "")
    for seed in range(RUNS):
        random = np.random.default_rng(seed)
        old = random.random(IMAGES) < 0.95
        new = old.copy()
        new[random.choice(np.flatnonzero(old), LOST, replace=False)] = False
        yield from (finding.outcome for finding in judge_answers_exactly(row, old, new))


def main() -> None:
    """Run both and say whether the targets are met."""
    verdicts, lines = slowdowns()
    outcomes = Counter(lost_answers())
    caught = outcomes == {Outcome.REGRESSED: RUNS}
    lines += ["", f"A loss of {LOST} of {IMAGES:,} answers: regressed {outcomes[Outcome.REGRESSED]} times of {RUNS}."]
    keep(TRUST / "blindness.txt", lines)
    seen = verdicts[Verdict.SLOWER] >= WANTED and not verdicts[Verdict.FASTER]
    sys.exit(not (seen and caught))


if __name__ == "__main__":
    main()
