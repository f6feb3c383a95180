"""DTEM of Lee and Hong 2024 (github.com/movinghoon/DTEM).

In each block, `attn.qkv` has the model's own layer as `qkv_layer`, the embedding as `metric_layer`, and a copy of both.
The file has no args. How many tokens to remove in each block is an option of its evaluation, 16 by default.
"""

from __future__ import annotations

import re

from tokbench.trained.checkpoint import Trained
from tokbench.trained.layouts.saved_content import Saved

LAYER = re.compile(r"blocks\.(?P<block>\d+)\.attn\.qkv\.(?:(?P<layer>qkv|metric)_layer\.)?(?P<kind>weight|bias)")
REMOVED = 16
REMARK = f"the file does not say how many tokens to remove in a block: {REMOVED}, the default of its code"


def read(saved: Saved) -> Trained | None:
    """See `tokbench.trained.layouts.recognise`."""
    if not any(".attn.qkv.metric_layer." in key for key in saved.state):
        return None
    vit, weights = {}, {}
    for key, value in saved.state.items():
        found = LAYER.fullmatch(key)
        if found is None:
            vit[key] = value
        elif found["layer"] == "qkv":
            vit[key.replace(".qkv_layer.", ".")] = value
        elif found["layer"] == "metric":
            weights[f"embeddings.{found['block']}.{found['kind']}"] = value
    for block in range(sum(name.endswith(".weight") for name in weights)):
        for kind in ("weight", "bias"):
            weights[f"norms.{block}.{kind}"] = saved.weight(f"blocks.{block}.norm1.{kind}")
    params = {"channels": len(saved.weight("blocks.0.attn.qkv.metric_layer.bias")), "reads": "attention_input"}
    schedule = f"every_block(r={REMOVED})"
    return saved.trained("dtem", schedule, "after_attention", params, vit=vit, weights=weights, remarks=(REMARK,))
