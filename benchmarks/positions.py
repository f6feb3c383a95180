"""Which rotary position should a merged token get? The rules are compared on `digits_rope`.

    python benchmarks/positions.py

Every method that needs no training and merges runs at keep 0.7, 0.5 and 0.3 (at depths 3, 6 and 9) under each rule of
`--position`. A method merges if some token of its result represents more than one patch.

Each of the 1,000 held-out digits is on five canvases with other positions and clutter. These are not independent: a
digit's answer is the mean over its canvases, and intervals and tests are over digits, as those of `tokbench versus`
with several seeds. A difference from the first rule is sure if its p is below 5 % after Holm's correction for all
differences of the run; the intervals are not corrected.

Writes results/positions/positions.csv and results/positions/positions.txt.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import StringIO

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike, NDArray
from output import TRUST, write_output
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

import tokbench
from tokbench import DownsampledViT, Tokens
from tokbench.embedded.canvases import compose, digits, held_out, to_input
from tokbench.embedded.model import ROTARY
from tokbench.errors import UserError
from tokbench.files import write_atomically
from tokbench.names import POSITIONS, Position
from tokbench.registry import create, discover
from tokbench.stats.differences import mean_interval, score_p

DEFAULT, *OTHERS = POSITIONS
KEEPS = (0.7, 0.5, 0.3)
SCHEDULE = "stages(at=3-6-9)"
SEEDS = (0, 3, 4, 5, 6)  # of the canvases; 0 gives those of the embedded suite
CALIBRATION = 2  # the seed of the canvases to calibrate on
LEVEL = 0.05
BATCH = 250
OUT = TRUST.with_name("positions")

Shares = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """A method at a keep: per rule, the share of its canvases on which each digit was recognised, (digits,)."""

    method: str
    keep: float
    shares: dict[str, Shares]

    def differences(self, rule: str) -> Shares:
        """Per digit, by how much a rule is better than the default."""
        return self.shares[rule] - self.shares[DEFAULT]


class Canvases:
    """All canvases inside the plain model: the blocks before the first reduction are computed once for all methods."""

    def __init__(self, plain: DownsampledViT) -> None:
        """Make the canvases, seed after seed."""
        sets = [held_out(seed) for seed in SEEDS]
        self.plain = plain
        self.labels = np.stack([shown.labels for shown in sets])  # (seeds, digits)
        self.images = torch.split(torch.cat([to_input(shown.images) for shown in sets]), BATCH)
        self.ids = torch.split(torch.arange(self.labels.size), BATCH)
        train = digits("train").images
        self.calibration = to_input(compose(train, train, seed=CALIBRATION))
        self._entering: dict[int, list[Tokens]] = {}  # the tokens that enter a block, per batch

    def shares(self, model: DownsampledViT) -> Shares:
        """The share of its canvases on which a model recognises each digit, (digits,)."""
        first, last = model.start, len(model.vit.blocks)
        if first not in self._entering:
            batches = zip(self.images, self.ids, strict=True)
            self._entering[first] = [self.plain.through(self.plain.embed(x), range(first), ids) for x, ids in batches]
        inside = zip(self._entering[first], self.ids, strict=True)
        logits = [model.classify(model.through(tokens, range(first, last), ids)) for tokens, ids in inside]
        right = torch.cat(logits).argmax(1).numpy().reshape(self.labels.shape) == self.labels
        return np.asarray(right.mean(axis=0))


def merges(model: DownsampledViT, images: Tensor) -> bool:
    """Whether some token represents more than one patch, after any block."""
    largest: list[float] = []
    model(images, observe=lambda _, tokens: largest.append(float(tokens.size.max())))
    return max(largest) > 1


def measured(canvases: Canvases, left_out: list[str]) -> Iterator[Cell]:
    """The cells of all merging methods; `left_out` receives those that do not run in this model, and why."""

    def reduced(method: str, keep: float, rule: Position) -> DownsampledViT:
        model = tokbench.reduce(canvases.plain.vit, method, keep, schedule=SCHEDULE, position=rule)
        tokbench.calibrate(model, canvases.calibration)
        return model

    methods = [name for name in discover()[0] if not create(name).trained]
    for method, keep in track(list(itertools.product(methods, KEEPS)), console=Console(stderr=True)):
        try:
            if merges(reduced(method, keep, DEFAULT), canvases.images[0]):
                yield Cell(method, keep, {rule: canvases.shares(reduced(method, keep, rule)) for rule in POSITIONS})
        except UserError as error:
            left_out.append(f"{method} at keep {keep}: {error}")


def holm(p: ArrayLike) -> Shares:
    """Holm's adjusted p of several tests: those below a level are significant together at that level."""
    values = np.asarray(p, dtype=float)
    order = np.argsort(values)
    steps = np.maximum.accumulate(values[order] * np.arange(len(values), 0, -1))
    return np.minimum(steps, 1)[np.argsort(order)]


def table_of(cells: Sequence[Cell]) -> pd.DataFrame:
    """A line per cell and rule; accuracies and differences in percent."""
    lines = []
    for cell in cells:
        for rule, shares in cell.shares.items():
            line = {"method": cell.method, "keep": cell.keep, "position": rule, "top1": 100 * shares.mean()}
            if rule in OTHERS:
                differences = cell.differences(rule)
                interval = mean_interval(differences)
                line |= {"delta_top1": 100 * interval.estimate, "delta_lo": 100 * interval.lo}
                line |= {"delta_hi": 100 * interval.hi, "p": score_p(differences)}
                line |= {"digits_gained": int((differences > 0).sum()), "digits_lost": int((differences < 0).sum())}
            lines.append(line)
    table = pd.DataFrame(lines)
    tested = table["p"].notna()
    table.loc[tested, "p_holm"] = holm(table.loc[tested, "p"])
    return table


def rendered(table: pd.DataFrame) -> str:
    """A row per method and keep: top-1 under each rule, and the sure differences from the default."""
    shown = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("method", "keep", *POSITIONS):
        shown.add_column(name, justify="left" if name == "method" else "right")
    shown.add_column(f"surely different from {DEFAULT}")
    for (method, keep), rows in table.groupby(["method", "keep"], sort=False):
        top1 = rows.set_index("position")["top1"]
        sure = rows[rows["p_holm"] < LEVEL].to_dict("records")
        found = [f"{row['position']} {_interval(row['delta_top1'], row['delta_lo'], row['delta_hi'])}" for row in sure]
        shown.add_row(f"{method}", f"{keep}", *(f"{top1[rule]:.1f}" for rule in POSITIONS), "\n".join(found))
    out = StringIO()
    Console(file=out, width=100).print(shown)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines())


def overall(cells: Sequence[Cell]) -> Iterator[str]:
    """Per keep and rule, the difference from the default as a mean over the methods, with an interval over digits."""
    for keep in KEEPS:
        chosen = [cell for cell in cells if cell.keep == keep]
        texts = []
        for rule in OTHERS:
            one = mean_interval(np.mean([cell.differences(rule) for cell in chosen], axis=0))
            texts.append(f"{rule} {_interval(100 * one.estimate, 100 * one.lo, 100 * one.hi)}")
        yield f"  keep {keep}, {len(chosen)} methods: {', '.join(texts)}"


def _interval(estimate: float, lo: float, hi: float) -> str:
    return f"{estimate:+.1f} [{lo:.1f}, {hi:.1f}]"


def main() -> None:
    """Measure, and write the two files."""
    left_out: list[str] = []
    with torch.inference_mode():
        canvases = Canvases(DownsampledViT(tokbench.load_model(ROTARY).vit))
        plain = 100 * canvases.shares(canvases.plain).mean()
        cells = list(measured(canvases, left_out))
    table = table_of(cells)
    tests, sure = table["p"].notna().sum(), (table["p_holm"] < LEVEL).sum()
    lines = (
        f"Top-1 of {ROTARY} by the rule of a merged token's position: {canvases.labels.size:,} canvases of "
        f"{canvases.labels.shape[1]:,} held-out digits, {SCHEDULE}.",
        f"Plain model: {plain:.1f} %. Differences are in points, with 95 % intervals; of {tests}, {sure} are sure.",
        rendered(table),
        f"Differences from {DEFAULT}, means over the methods:",
        *overall(cells),
        *(f"Left out: {reason}" for reason in left_out),
    )
    write_output(OUT / "positions.txt", lines, ("python", "torch", "timm", "tokbench"))
    whole = pd.concat([pd.DataFrame([{"method": "none", "keep": 1.0, "top1": plain}]), table])[table.columns]
    write_atomically(OUT / "positions.csv", lambda path: whole.round(4).to_csv(path, index=False))


if __name__ == "__main__":
    main()
