"""What a configuration of transformers says of a model that its weights do not show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from timm.layers import Mlp, create_act_layer
from torch import nn

from tokbench.errors import UserError

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""timm's names of the activations, by those of transformers."""


def apply_settings(vit: Any, config: Mapping[str, Any]) -> list[str]:
    """Take the activation and the norms' epsilon that a configuration names; refuse what cannot be taken.

    Args:
        vit: A timm model. It is changed.
        config: The content of a `config.json`; nothing happens where it is not one of transformers.

    Returns:
        What was changed.

    Raises:
        UserError: The model has another number of heads or other rotary positions, or not such an activation.
    """
    if "model_type" not in config:
        return []
    inner = config.get("vision_config")
    settings = inner if isinstance(inner, Mapping) else config
    _check_heads(vit, settings.get("num_attention_heads"))
    _check_rotation(vit, settings.get("rope_theta"))
    return [*_with_eps(vit, settings), *_with_activation(vit, settings)]


def _check_heads(vit: Any, wanted: object) -> None:
    """The weights have the same shapes for any number of heads."""
    own = vit.blocks[0].attn.num_heads
    if isinstance(wanted, int) and wanted != own:
        raise UserError(
            f"its config.json says {wanted} attention heads, and the model has {own}: name a model with {wanted}, or "
            "the folder itself with --models local-dir:FOLDER"
        )


def _check_rotation(vit: Any, wanted: object) -> None:
    own = getattr(getattr(vit, "rope", None), "temperature", None)
    if own is not None and isinstance(wanted, int | float) and wanted != own:
        raise UserError(
            f"its config.json says rope_theta {wanted:g}, and the model has {own:g}: name a model with {wanted:g}, or "
            "the folder itself with --models local-dir:FOLDER"
        )


def _with_eps(vit: Any, settings: Mapping[str, Any]) -> list[str]:
    eps = settings.get("layer_norm_eps", settings.get("norm_eps"))
    norms = [module for module in vit.modules() if isinstance(module, nn.LayerNorm)]
    if not isinstance(eps, float) or all(norm.eps == eps for norm in norms):
        return []
    for norm in norms:
        norm.eps = eps
    return [f"the norms' epsilon is {eps:g}, as config.json says"]


def _with_activation(vit: Any, settings: Mapping[str, Any]) -> list[str]:
    written = settings.get("hidden_act")
    layers = [module for module in vit.modules() if type(module) is Mlp]
    if written is None or not layers:  # gated layers have the one that their name says
        return []
    activation = _ACTIVATIONS.get(str(written))
    if activation is None:
        raise UserError(
            f"its config.json names the activation {str(written)[:50]!r}, which is not known here: use one of "
            f"{', '.join(_ACTIVATIONS)}"
        )
    if all(_name_of(layer.act) == activation for layer in layers):
        return []
    for layer in layers:
        layer.act = create_act_layer(activation)
    return [f"the activation is {written}, as config.json says"]


def _name_of(activation: nn.Module) -> str:
    """timm's name of an activation; empty for those that no configuration asks for."""
    if getattr(activation, "approximate", "") == "tanh":
        return "gelu_tanh"
    names = {"GELU": "gelu", "GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu", "ReLU": "relu", "SiLU": "silu"}
    return names.get(type(activation).__name__, "")
