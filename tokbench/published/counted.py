"""The compute of published settings, counted by tokbench: MACs need neither the weights nor the images.

`counted_gmacs.csv` has one row for each published setting whose model and token counts are known. It is written by
`benchmarks/claimed_macs.py`.
"""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tokbench.names import PLAIN
from tokbench.published.claims import DECIMALS

FILE_NAME = "counted_gmacs.csv"
KEY = ("architecture", "method", "params", "schedule", "keep")
FIGURE = 0.02  # a number that was read off a figure is known to this fraction

ARCHITECTURES: Mapping[str, str] = {
    "ViT-B MAE": "vit_base_patch16_224",
    "ViT-L MAE": "vit_large_patch16_224",
    "ViT-H MAE": "vit_huge_patch14_224",
    "ViT-B (83.74 base)": "vit_base_patch16_224",
    "DeiT-256": "deit_tiny_patch16_224(embed_dim=256,num_heads=4)",
    # The number of heads is not published; MACs do not depend on it.
    "DeiT-e252 (own)": "deit_tiny_patch16_224(embed_dim=252,num_heads=4)",
    "DeiT-e318 (own)": "deit_tiny_patch16_224(embed_dim=318,num_heads=6)",
}
"""Published models whose weights timm does not have, by timm's model of the same shape."""


@dataclass(frozen=True)
class Counted:
    """What tokbench counts for a published setting, in billions of MACs per image.

    Attributes:
        gmacs: As tokbench counts: every matrix product, the method's own included.
        method: The method's part of `gmacs`.
        norm: What LayerNorm would add: 5 for each element, as fvcore counts it.
    """

    gmacs: float
    method: float
    norm: float

    def by_convention(self) -> dict[str, float]:
        """The count under each convention that papers use, tokbench's own first, under an empty name."""
        return {
            "": self.gmacs,
            "without the method's own operations": self.gmacs - self.method,
            "with LayerNorm": self.gmacs + self.norm,
            "with LayerNorm, without the method's own operations": self.gmacs - self.method + self.norm,
        }


def architecture(claim: Mapping[Hashable, Any] | Mapping[str, Any]) -> str:
    """The model of a claim as timm names it, without the tag of its weights; empty where timm has none like it."""
    return str(claim["model"]).partition(".")[0] or ARCHITECTURES.get(str(claim["published_model"]), "")


def load_counted() -> dict[tuple[Any, ...], Counted]:
    """The counts that come with tokbench, by `setting`."""
    with importlib.resources.files("tokbench.published").joinpath(FILE_NAME).open(encoding="utf-8") as file:
        table = pd.read_csv(file, dtype={name: str for name in KEY if name != "keep"}, keep_default_na=False)
    table["keep"] = pd.to_numeric(table["keep"])
    return {
        setting(row): Counted(row["gmacs"], row["gmacs_method"], row["gmacs_norm"]) for row in table.to_dict("records")
    }


def setting(claim: Mapping[Hashable, Any] | Mapping[str, Any]) -> tuple[Any, ...]:
    """What decides the compute of a claim, or of a row of the file."""
    model = claim["architecture"] if "architecture" in claim else architecture(claim)
    keep = None if pd.isna(claim["keep"]) else float(claim["keep"])
    return (model, *(str(claim[name]) for name in ("method", "params", "schedule")), keep)


def can_be_counted(claim: Mapping[Hashable, Any] | Mapping[str, Any]) -> bool:
    """Whether a claim's model, method and token counts are known."""
    if not claim["method"] or not architecture(claim):
        return False
    return bool(claim["schedule"]) or claim["method"] == PLAIN


def tolerance(gmacs: float, decimals: int, read_from: str) -> float:
    """How far a count may be from a published one: half of the last digit that the source prints.

    Args:
        gmacs: The published number.
        decimals: How many decimals the source prints.
        read_from: `figure` allows 2 % instead.
    """
    if read_from == "figure":
        return FIGURE * gmacs
    return math.nextafter(0.5 * 10**-decimals, math.inf)  # 2.65 is not exact in binary


def printed(claim: Mapping[Hashable, Any] | Mapping[str, Any]) -> str:
    """The compute of a claim with the decimals that its source prints; empty where it gives none."""
    return "" if pd.isna(claim["gmacs"]) else f"{claim['gmacs']:.{claim[DECIMALS]}f}"
