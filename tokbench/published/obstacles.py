"""What stands between a published accuracy and a measurement with public weights."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tokbench.names import FINE_TUNED, PLAIN
from tokbench.published.timm_accuracy import SAME_WEIGHTS

METHOD = "method"
WEIGHTS = "weights"
BASELINE = "baseline"
REGIME = "regime"
SCHEDULE = "schedule"
FIGURE = "figure"


@dataclass(frozen=True)
class Obstacle:
    """One reason why a published accuracy is not comparable with a measured one.

    Attributes:
        kind: `method`, `weights`, `baseline`, `regime`, `schedule` or `figure`.
        text: What it is in this case, as a part of a sentence.
    """

    kind: str
    text: str


def obstacles(claim: Mapping[Hashable, Any], public: Mapping[str, float]) -> tuple[Obstacle, ...]:
    """Why a claim is not comparable with an off-the-shelf measurement; empty where it is.

    Args:
        claim: A row of `tokbench.published.claims.published`.
        public: What `tokbench.published.claims.public_top1` gives.
    """
    found = {
        METHOD: "" if claim["method"] else f"tokbench has no {claim['published_as']}",
        WEIGHTS: "" if claim["model"] else f"timm has no weights of {claim['published_model']}",
        BASELINE: other_baseline(claim, public),
        REGIME: _training(claim),
        SCHEDULE: _counts(claim),
        FIGURE: "from a figure" if claim["read_from"] == "figure" else "",
    }
    return tuple(Obstacle(kind, text) for kind, text in found.items() if text)


def other_baseline(claim: Mapping[Hashable, Any], public: Mapping[str, float]) -> str:
    """How the plain model of a claim differs from the public weights; empty where it does not, or is not published."""
    own, known = claim["baseline_top1"], public.get(claim["model"])
    if known is None or pd.isna(own) or abs(own - known) <= SAME_WEIGHTS:
        return ""
    return f"its plain model has {own:g} %, the public weights {known:g} %"


def _training(claim: Mapping[Hashable, Any]) -> str:
    if claim["regime"] != FINE_TUNED:
        return ""
    return f"fine-tuned ({claim['training']})" if claim["training"] else "fine-tuned"


def _counts(claim: Mapping[Hashable, Any]) -> str:
    if claim["method"] == PLAIN or claim["schedule"]:
        return ""
    return "token counts unknown"
