"""Agreement: how close a model's predictions stay to the plain model's, for which images need no labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokbench.kinds.answers import AnswerKind
from tokbench.kinds.base import Column, Pace
from tokbench.names import PLAIN
from tokbench.outcomes import ANOTHER, SAME, UNREADABLE
from tokbench.stats.proportions import wilson

if TYPE_CHECKING:
    import torch

    from tokbench.measure.answers import Answers
    from tokbench.results import PlannedRow, Results
    from tokbench.run.prepare import Row
    from tokbench.suite import Suite


@dataclass(frozen=True)
class AgreementRecord:
    """A shard of the images.

    Attributes:
        outcomes: One character for each image; see `tokbench.outcomes`.
        kl: The sum over images of the KL divergence of the predictions from the plain model's, in nats; None for a
            model without a head.
        cosine: The sum over images of the cosine similarity of the pooled features before the head.
    """

    outcomes: str
    kl: float | None
    cosine: float


class Agreement(AnswerKind[AgreementRecord]):
    """The share of images with the plain model's top-1, and how far predictions and features are apart."""

    name = "agreement"
    record = AgreementRecord
    compares_answers = True
    columns = (
        Column("agreement", heading="agree", unit="%", interval="agreement", decimals=1, only_methods=True, dropped=4),
        Column("agreement_lo"),
        Column("agreement_hi"),
        Column("kl", heading="KL", unit="nats", step=0.001, only_methods=True, dropped=9),
        Column("cosine", heading="cosine", step=0.001, only_methods=True, dropped=9),
    )

    def wanted(self, row: Row, suite: Suite, device: torch.device) -> bool:
        """Of everything but the plain model, which agrees with itself."""
        variant = row.cell.variant
        untouched = variant.method == PLAIN and not variant.params and variant.fine_tuned is None
        return self.name in suite.only and not untouched

    def needs_data(self, suite: Suite) -> tuple[str, str] | None:
        """Always; accuracy, where it is wanted too, says so."""
        wanted = self.name in suite.only and "accuracy" not in suite.only
        return ("measure agreement on", "leave agreement out with --only macs,latency") if wanted else None

    def record_of(self, answers: Answers) -> AgreementRecord:
        """What was compared with the plain model's answers.

        Raises:
            ValueError: Nothing was.
        """
        if answers.comparison is None:
            raise ValueError("agreement needs the plain model's answers")
        return AgreementRecord(answers.comparison.outcomes, answers.comparison.kl, answers.comparison.cosine)

    def seconds(self, rows: Sequence[Row], pace: Pace) -> float:
        """As for accuracy, and once more for the plain model."""
        own = super().seconds(rows, pace)
        return own + pace.images * pace.image_s if own else 0.0

    def fill(self, row: PlannedRow, plain: PlannedRow | None, results: Results) -> dict[str, Any]:
        """Percent, nats, and a cosine; images that could not be read count nowhere."""
        records = results.shards_of(self, row)
        if not records:
            return {}
        outcomes = "".join(record.outcomes for record in records)
        images = len(outcomes) - outcomes.count(UNREADABLE)
        if not images:
            return {}
        counted = {} if "accuracy" in row.keys else {"images": images}
        filled: dict[str, Any] = {**counted, "cosine": sum(record.cosine for record in records) / images}
        same, another = outcomes.count(SAME), outcomes.count(ANOTHER)
        if same + another:
            share = wilson(same, same + another)
            filled |= {
                "agreement": 100 * share.estimate,
                "agreement_lo": 100 * share.lo,
                "agreement_hi": 100 * share.hi,
                "kl": sum(record.kl or 0.0 for record in records) / images,
            }
        return filled


AGREEMENT = Agreement()
