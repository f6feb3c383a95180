"""TokenReduction, the benchmark of Haurum et al. 2023 (github.com/JoakimHaurum/TokenReduction).

The name of the model in its args begins with the method. `keep_rate` has one rate r, from which the counts at
`reduction_loc` are int(N r^s), or for three of the methods one rate per reduction.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from torch import Tensor

from tokbench.names import PLAIN
from tokbench.trained.checkpoint import Trained
from tokbench.trained.layouts.keep_predictors import keep_predictors
from tokbench.trained.layouts.keep_rates import by_matching, explicit, powers
from tokbench.trained.layouts.saved_content import Saved

OWN = "cluster_layers."
MODELS = re.compile(r"(?P<method>[a-z]+)_(?:tiny|small|base)_patch16_224(?:_local)?")
RATE_EACH = ("topk", "evit", "dyvit")  # may have one rate per reduction

Counts = tuple[int, ...]


def read(saved: Saved) -> Trained | None:
    """See `tokbench.trained.layouts.recognise`."""
    model = saved.args.get("model")
    found = MODELS.fullmatch(model) if isinstance(model, str) else None
    if found is None or not {"keep_rate", "reduction_loc"} <= saved.args.keys():
        return None
    kind = found["method"]
    if kind == "deit":
        return saved.trained(PLAIN, "", "")
    if kind not in METHODS:
        saved.refuse(f"tokbench does not have the method '{kind}' of TokenReduction")
    return METHODS[kind](saved, _counts(saved, kind), saved.numbers("reduction_loc", int))


def _counts(saved: Saved, kind: str) -> Counts:
    rates, stages = saved.numbers("keep_rate", float), len(saved.numbers("reduction_loc", int))
    if len(rates) == 1:
        return powers(saved.patches, rates[0], stages)
    if kind not in RATE_EACH or len(rates) != stages:
        saved.refuse(f"its args have {len(rates)} rates for {stages} reductions")
    return tuple(int(rate * saved.patches) for rate in rates)


def _top_k(saved: Saved, counts: Counts, at: Counts) -> Trained:
    return saved.trained("score_pruning", explicit(counts, at), "after_attention", {"score": "cls"})


def _evit(saved: Saved, counts: Counts, at: Counts) -> Trained:
    return saved.trained("evit", explicit(counts, at), "after_attention")


def _tome(saved: Saved, counts: Counts, at: Counts) -> Trained:
    return saved.trained("tome", explicit(by_matching(saved.patches, counts), at), "after_attention")


def _ats(saved: Saved, counts: Counts, at: Counts) -> Trained:
    remark = "where two tokens are about equally near to a point, its own code chooses by the rounding of its distances"
    bounds = tuple(count + 1 for count in counts)
    return saved.trained("ats", explicit(bounds, at), "after_attention", {"variant": "haurum"}, remarks=(remark,))


def _dynamic_vit(saved: Saved, counts: Counts, at: Counts) -> Trained:
    return keep_predictors(saved, explicit(counts, at))


def _k_medoids(saved: Saved, counts: Counts, at: Counts) -> Trained:
    if saved.arg("equal_weight", bool):
        saved.refuse("its K-Medoids with equal weights starts from a random token, without a seed")
    iterations = saved.arg("cluster_iters", int)
    params = {"algorithm": "haurum_kmedoids", "iterations": iterations, "output": "medoid"}
    remark = "its K-Medoids is not that of Token Pooling: each update minimises another objective"
    return saved.trained("token_pooling", explicit(counts, at), "before_block", params, remarks=(remark,))


def _dpc_knn(saved: Saved, counts: Counts, at: Counts) -> Trained:
    learned = not saved.arg("equal_weight", bool)
    params = {
        "neighbours": saved.arg("k_neighbors", int),
        "weights": "learned" if learned else "equal",
        "variant": "haurum",
    }
    names = {f"scores.{stage}.{kind}": f"{OWN}{stage}.score.{kind}" for stage in range(len(at)) for kind in WEIGHTS}
    weights = _renamed(saved, names) if learned else {}
    remark = "its own code draws its noise without a seed, also at inference"
    return _with_own(saved, "dpc_knn", explicit(counts, at), params, weights, remark)


def _sit(saved: Saved, counts: Counts, at: Counts) -> Trained:
    names = {
        f"slimming.{stage}.{layer}.{kind}": f"{OWN}{stage}.weight.{layer}.{kind}"
        for stage in range(len(at))
        for layer, kind in (("0", "weight"), ("0", "bias"), ("1", "weight"), ("1", "bias"), ("3", "weight"))
    }
    weights = _renamed(saved, names)
    # Its scale of the logits is part of the last layer here; that layer's bias cancels in the softmax.
    scales = _renamed(saved, {f"slimming.{stage}.3.weight": f"{OWN}{stage}.scale" for stage in range(len(at))})
    weights |= {name: weights[name] * scale.flatten() for name, scale in scales.items()}
    return _with_own(saved, "sit", explicit(counts, at), {}, weights)


def _patch_merger(saved: Saved, counts: Counts, at: Counts) -> Trained:
    names = {f"queries.{stage}": f"{OWN}{stage}.queries" for stage in range(len(at))}
    names |= {f"norms.{stage}.{kind}": f"{OWN}{stage}.norm.{kind}" for stage in range(len(at)) for kind in WEIGHTS}
    return _with_own(saved, "patch_merger", explicit(counts, at), {}, _renamed(saved, names))


def _sinkhorn(saved: Saved, counts: Counts, at: Counts) -> Trained:
    params = {
        "epsilon": saved.arg("sinkhorn_eps", float),
        "iterations": saved.arg("cluster_iters", int),
        "variant": "haurum",
    }
    weights = _renamed(saved, {f"queries.{stage}": f"{OWN}{stage}.v" for stage in range(len(at))})
    return _with_own(saved, "sinkhorn", explicit(counts, at), params, weights)


METHODS: dict[str, Callable[[Saved, Counts, Counts], Trained]] = {
    "topk": _top_k,
    "evit": _evit,
    "tome": _tome,
    "ats": _ats,
    "dyvit": _dynamic_vit,
    "kmedoids": _k_medoids,
    "dpcknn": _dpc_knn,
    "sit": _sit,
    "patchmerger": _patch_merger,
    "sinkhorn": _sinkhorn,
}
WEIGHTS = ("weight", "bias")


def _with_own(
    saved: Saved, method: str, schedule: str, params: dict[str, Any], weights: dict[str, Tensor], *remarks: str
) -> Trained:
    """A checkpoint whose method has weights, under `cluster_layers`, and acts before blocks."""
    vit = saved.without(OWN)
    return saved.trained(method, schedule, "before_block", params, vit=vit, weights=weights, remarks=remarks)


def _renamed(saved: Saved, names: dict[str, str]) -> dict[str, Tensor]:
    """Weights of the file, by the names that they have here."""
    return {name: saved.weight(key) for name, key in names.items()}
