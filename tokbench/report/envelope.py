"""The headline across models of one family: compute saved at equal accuracy, over all sizes and keeps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tokbench.families import family_of
from tokbench.names import FINE_TUNED, PLAIN
from tokbench.outcomes import RIGHT, UNREADABLE, marks_of
from tokbench.report.digits import number
from tokbench.report.labels import FEWER_PIXELS, cell_text, series
from tokbench.results import Results
from tokbench.rows import ANSWER, plain_models, with_fewer_pixels
from tokbench.stats.envelope import saved_compute
from tokbench.stats.proportions import Interval

EXPLANATION = (
    "Compute that a method saves against the plain models of the same family at equal top-1, over all sizes and keeps: "
    "a large model, reduced, may cost less than a small one. Interpolated between measured points. [ ] are 95 % "
    "intervals over images. The model with the largest saving is named first; its interval ignores that it was chosen."
)

Marks = NDArray[np.str_]


@dataclass(frozen=True)
class EnvelopeHeadline:
    """What one method saves across the models of a family.

    Attributes:
        models: The family, the cheapest model first.
        method: The name of its series, or `fewer pixels`.
        saved: By the plain model whose accuracy is reached: percent of the compute that the plain models need for it.
        top1: By model: the plain model's top-1 in percent.
        regime: `fine-tuned` if methods and plain models were fine-tuned, else empty.
    """

    models: tuple[str, ...]
    method: str
    saved: dict[str, Interval]
    top1: dict[str, float]
    regime: str = ""

    @property
    def text(self) -> str:
        """The saving at the accuracy of the model where it is largest, and of the largest model."""
        largest = self.models[-1]
        best = max(reversed(self.models), key=lambda model: self.saved[model].estimate)
        first = f"{self._saving(best)} fewer MACs at the top-1 of {self._name(best)}"
        return first if best == largest else f"{first}, {self._saving(largest)} at that of {self._name(largest)}"

    def _saving(self, model: str) -> str:
        saved = self.saved[model]
        estimate, lo, hi = (number(value, 0) for value in (saved.estimate, saved.lo, saved.hi))
        return f"{estimate} % [{lo}, {hi}]"

    def _name(self, model: str) -> str:
        return f"{cell_text(model)} ({number(self.top1[model], 1)} %)"


def envelope_headlines(results: Results) -> list[EnvelopeHeadline]:
    """One headline for each method in each family of which two plain models or more have compute and accuracy.

    Compute and answers of a stochastic method are averaged over its seeds. Images that could not be read count nowhere.
    """
    table = results.table
    outcomes = pd.Series([results.outcomes(row) for row in results.plan.rows], table.index, dtype=object)
    answered = table.assign(outcomes=outcomes)[table["status"].eq("ok")].dropna(subset=["gmacs", "outcomes"])
    answered = answered.drop_duplicates(list(ANSWER))
    families = answered.groupby([answered["model"].map(family_of), answered["regime"].eq(FINE_TUNED)], sort=False)
    return [headline for (_, trained), rows in families for headline in _of_family(rows, bool(trained))]


def print_envelopes(results: Results, console: Console) -> None:
    """Print a line for each method, below the explanation; nothing without several models of one family."""
    for (models, regime), lines in _by_family(envelope_headlines(results)).items():
        shown = Table.grid(padding=(0, 2))
        for line in lines:
            shown.add_row(Text(cell_text(line.method)), Text(line.text))
        title = ", ".join(filter(None, (*map(cell_text, models), regime)))
        console.print("", Text(f"Across {title}", "bold"), "", shown, "", sep="\n")
        console.print(Text(EXPLANATION, "dim"))


def _by_family(headlines: list[EnvelopeHeadline]) -> dict[tuple[tuple[str, ...], str], list[EnvelopeHeadline]]:
    families: dict[tuple[tuple[str, ...], str], list[EnvelopeHeadline]] = {}
    for headline in headlines:
        families.setdefault((headline.models, headline.regime), []).append(headline)
    return families


def _of_family(rows: pd.DataFrame, trained: bool) -> Iterator[EnvelopeHeadline]:
    """The headlines of the answered rows of one family: of those that were fine-tuned, or of the others.

    Of several plain models that were fine-tuned with different seeds, the first is the one to compare with.
    """
    rows = rows.assign(plain=rows["method"].eq(PLAIN) if trained else plain_models(rows))
    plain = rows[rows["plain"]].drop_duplicates("model").sort_values("gmacs")
    if len(plain) < 2:
        return
    marks = np.stack([marks_of(text) for text in rows["outcomes"]])
    read = (marks != UNREADABLE).all(axis=0)
    if not read.any():
        return
    right = pd.DataFrame((marks == RIGHT)[:, read].astype(float), rows.index)
    models = tuple(plain["model"])
    top1 = dict(zip(models, 100 * right.loc[plain.index].mean(axis=1), strict=True))
    named = rows.assign(curve=_curves(rows))
    for method, own in named.dropna(subset=["curve"]).groupby("curve", sort=False):
        points = own.groupby([name for name in ANSWER if name != "seed"], sort=False, dropna=False)
        answers = right.loc[own.index].groupby(points.ngroup()).mean()
        saved = saved_compute(plain["gmacs"], right.loc[plain.index], points["gmacs"].mean(), answers)
        percent = [Interval(100 * one.estimate, 100 * one.lo, 100 * one.hi) for one in saved]
        regime = FINE_TUNED if trained else ""
        yield EnvelopeHeadline(models, str(method), dict(zip(models, percent, strict=True)), top1, regime)


def _curves(rows: pd.DataFrame) -> pd.Series:
    """The method of each row as the charts name it; missing for the plain model, whatever its attention."""
    names = pd.concat([series(own) for _, own in rows.groupby("model", sort=False)])
    curves: pd.Series = names.where(rows["method"].ne(PLAIN)).mask(with_fewer_pixels(rows), FEWER_PIXELS)
    return curves
