"""tokbench: benchmarks methods that drop, merge or pool the tokens of a vision transformer.

The names below are the public Python API; methods outside this repository rely on them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# The public names by module. They are imported when first used, so that `tokbench --help` does not wait for torch.
_PUBLIC = {
    "api": ("compare", "reduce"),
    "context": ("Context",),
    "downsampler": ("Claim", "Downsampler", "Geometry", "Paper", "Reduction"),
    "measure.budget": ("solve_budget",),
    "measure.macs": ("count_macs",),
    "ops.clustering": ("farthest_first", "kmeans", "kmedoids", "nearest_members"),
    "ops.keep_predictor": ("KeepPredictor", "kept_fraction_loss"),
    "ops.matching": ("bipartite_matching",),
    "ops.relaxed_matching": ("relaxed_matching",),
    "ops.swaps": ("kmedoids_with_swaps",),
    "registry": ("create", "register"),
    "results.directory": ("Results",),
    "results.several": ("Combined", "load"),
    "schedule": ("Schedule",),
    "token_groups": ("gather_rows", "group_sum"),
    "tokens": ("Tokens",),
    "vit.backbone": ("DownsampledViT",),
    "vit.calibration": ("calibrate",),
    "vit.models": ("load_model",),
}
_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}

__all__ = sorted(_HOMES)

if TYPE_CHECKING:  # the same for type checkers; a test compares the two
    from tokbench.api import compare as compare
    from tokbench.api import reduce as reduce
    from tokbench.context import Context as Context
    from tokbench.downsampler import Claim as Claim
    from tokbench.downsampler import Downsampler as Downsampler
    from tokbench.downsampler import Geometry as Geometry
    from tokbench.downsampler import Paper as Paper
    from tokbench.downsampler import Reduction as Reduction
    from tokbench.measure.budget import solve_budget as solve_budget
    from tokbench.measure.macs import count_macs as count_macs
    from tokbench.ops.clustering import farthest_first as farthest_first
    from tokbench.ops.clustering import kmeans as kmeans
    from tokbench.ops.clustering import kmedoids as kmedoids
    from tokbench.ops.clustering import nearest_members as nearest_members
    from tokbench.ops.keep_predictor import KeepPredictor as KeepPredictor
    from tokbench.ops.keep_predictor import kept_fraction_loss as kept_fraction_loss
    from tokbench.ops.matching import bipartite_matching as bipartite_matching
    from tokbench.ops.relaxed_matching import relaxed_matching as relaxed_matching
    from tokbench.ops.swaps import kmedoids_with_swaps as kmedoids_with_swaps
    from tokbench.registry import create as create
    from tokbench.registry import register as register
    from tokbench.results.directory import Results as Results
    from tokbench.results.several import Combined as Combined
    from tokbench.results.several import load as load
    from tokbench.schedule import Schedule as Schedule
    from tokbench.token_groups import gather_rows as gather_rows
    from tokbench.token_groups import group_sum as group_sum
    from tokbench.tokens import Tokens as Tokens
    from tokbench.vit.backbone import DownsampledViT as DownsampledViT
    from tokbench.vit.calibration import calibrate as calibrate
    from tokbench.vit.models import load_model as load_model
else:  # hidden from type checkers, to which it would say that any name exists

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'tokbench' has no attribute '{name}'")
        return getattr(importlib.import_module(f"tokbench.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__all__", "__doc__", "__file__", "__name__", "__path__", "__version__"]
