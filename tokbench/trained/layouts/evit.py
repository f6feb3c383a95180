"""EViT of Liang et al. 2022 (github.com/youweiliang/evit).

Its models `..._shrink_base` keep ceil(r n) of n tokens in the blocks `drop_loc`, r being `base_keep_rate`, with a fused
token if `fuse_token`. The weights have the names of a plain DeiT, so that only the args say that they are an EViT's.
"""

from __future__ import annotations

import ast
from typing import Any

from tokbench.trained.checkpoint import Trained
from tokbench.trained.layouts.keep_rates import explicit, with_fused_token
from tokbench.trained.layouts.saved_content import Saved


def read(saved: Saved) -> Trained | None:
    """See `tokbench.trained.layouts.recognise`."""
    if not {"base_keep_rate", "drop_loc", "fuse_token"} <= saved.args.keys():
        return None
    if not saved.arg("model", str).endswith("_shrink_base"):
        return None
    at, fused = _depths(saved), saved.arg("fuse_token", bool)
    schedule = explicit(with_fused_token(saved.patches, saved.arg("base_keep_rate", float), len(at), fused), at)
    if fused:
        return saved.trained("evit", schedule, "after_attention")
    return saved.trained("score_pruning", schedule, "after_attention", {"score": "cls"})


def _depths(saved: Saved) -> tuple[int, ...]:
    """`drop_loc`, which is a text such as `(3, 6, 9)`."""
    written = saved.arg("drop_loc", str)
    try:
        depths: Any = ast.literal_eval(written)
    except (ValueError, SyntaxError):
        depths = None
    if not isinstance(depths, tuple) or not depths or not all(type(depth) is int for depth in depths):
        saved.refuse(f"its args have drop_loc={written!r}, not block numbers")
    return depths
