"""tokbench: what a way of dropping, merging or pooling tokens costs in accuracy, and gains in compute and time.

The names below are public: methods outside this repository rely on them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokbench.downsampler import Claim, Context, Downsampler, Geometry, Paper
    from tokbench.ops.clustering import farthest_first, kmeans, kmedoids, nearest_members
    from tokbench.ops.matching import bipartite_matching
    from tokbench.registry import create, register
    from tokbench.schedule import Schedule
    from tokbench.tokens import Tokens, gather_rows, group_sum
    from tokbench.vit.backbone import DownsampledViT

__version__ = "0.1.0"
__all__ = [
    "Claim",
    "Context",
    "DownsampledViT",
    "Downsampler",
    "Geometry",
    "Paper",
    "Schedule",
    "Tokens",
    "bipartite_matching",
    "create",
    "farthest_first",
    "gather_rows",
    "group_sum",
    "kmeans",
    "kmedoids",
    "nearest_members",
    "register",
]

_HOMES = {
    "Claim": "downsampler",
    "Context": "downsampler",
    "DownsampledViT": "vit.backbone",
    "Downsampler": "downsampler",
    "Geometry": "downsampler",
    "Paper": "downsampler",
    "Schedule": "schedule",
    "Tokens": "tokens",
    "bipartite_matching": "ops.matching",
    "create": "registry",
    "group_sum": "tokens",
    "farthest_first": "ops.clustering",
    "gather_rows": "tokens",
    "kmeans": "ops.clustering",
    "kmedoids": "ops.clustering",
    "nearest_members": "ops.clustering",
    "register": "registry",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first wanted, so that `tokbench --help` does not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tokbench' has no attribute '{name}'")
    return getattr(importlib.import_module(f"tokbench.{_HOMES[name]}"), name)
