"""ATC, agglomerative token clustering of Haurum et al. 2024 (github.com/JoakimHaurum/ATC).

`reduction_ratio` has one rate r, from which the numbers of clusters at `reduction_loc` are int(N r^s).
"""

from __future__ import annotations

from tokbench.trained.checkpoint import Trained
from tokbench.trained.layouts.keep_rates import explicit, powers
from tokbench.trained.layouts.saved_content import Saved


def read(saved: Saved) -> Trained | None:
    """See `tokbench.trained.layouts.recognise`."""
    if not {"linkage", "reduction_ratio", "reduction_loc", "proportional_attn"} <= saved.args.keys():
        return None
    if not saved.arg("model", str).startswith("atc"):
        return None
    rates, at = saved.numbers("reduction_ratio", float), saved.numbers("reduction_loc", int)
    if len(rates) != 1:
        saved.refuse(f"its args have {len(rates)} reduction_ratios, which its own code cannot run")
    params = {"linkage": saved.arg("linkage", str), "proportional": saved.arg("proportional_attn", bool)}
    schedule = explicit(powers(saved.patches, rates[0], len(at)), at)
    return saved.trained("atc", schedule, "after_attention", params)
