"""The networks of DynamicViT that predict which tokens to keep, as its own code and TokenReduction save them."""

from __future__ import annotations

from tokbench.trained.checkpoint import Trained
from tokbench.trained.layouts.saved_content import Saved

OWN = "score_predictor."
LAYERS = {"in_conv": "inner", "out_conv": "outer"}


def keep_predictors(saved: Saved, schedule: str) -> Trained:
    """A checkpoint with these networks as tokbench describes it."""
    weights = {}
    for key, value in saved.state.items():
        if key.startswith(OWN):
            stage, _, rest = key.removeprefix(OWN).partition(".")
            layer, _, rest = rest.partition(".")
            weights[f"predictors.{stage}.{LAYERS.get(layer, layer)}.{rest}"] = value
    return saved.trained("dynamic_vit", schedule, "before_block", vit=saved.without(OWN), weights=weights)
