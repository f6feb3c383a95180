"""LTMP of Bonnaerens and Dambre 2023 (github.com/Mxbonn/ltmp): its models `ltmp_...`, which merge and then prune.

Each block has two thresholds. They alone decide how many tokens are left, so that the schedule only names the blocks.
"""

from __future__ import annotations

import dataclasses
import re

import torch

from tokbench.trained.checkpoint import Trained
from tokbench.trained.layouts.saved_content import Saved

THRESHOLD = re.compile(r"blocks\.(?P<block>\d+)\.(?P<kind>merge|prune)_masker\.threshold")
MODEL = re.compile(r"(?:inference_)?ltmp_(?P<name>\w+)")
REMARK = "its thresholds decide how many tokens are left, by its inference code: its training code makes other pairs"


def read(saved: Saved) -> Trained | None:
    """See `tokbench.trained.layouts.recognise`."""
    thresholds = [key for key in saved.state if THRESHOLD.fullmatch(key)]
    if not thresholds:
        return None
    if len(thresholds) == len(saved.state):
        saved.refuse("it has LTMP's thresholds without the model's weights")
    model = saved.args.get("model")
    found = MODEL.fullmatch(model) if isinstance(model, str) else None
    if found is None:
        saved.refuse(
            "it has thresholds like LTMP's, but its args do not name a model ltmp_..., which merges, then prunes"
        )
    weights = {
        f"{kind}_thresholds": torch.cat(
            [saved.weight(f"blocks.{block}.{kind}_masker.threshold").flatten() for block in range(len(thresholds) // 2)]
        )
        for kind in ("merge", "prune")
    }
    vit = {key: value for key, value in saved.state.items() if key not in thresholds}
    params = {"variant": "authors"}
    trained = saved.trained(
        "ltmp", "every_block(r=1)", "after_attention", params, vit=vit, weights=weights, remarks=(REMARK,)
    )
    # A ViT of the same shapes has other means and deviations of its pixels than a DeiT.
    return dataclasses.replace(trained, model=found["name"] if trained.model else "")
