"""Which models `DownsampledViT` can put a method into."""

from __future__ import annotations

from timm.layers import AttentionPoolLatent, PatchEmbed
from torch import nn

from tokbench.errors import UserError
from tokbench.vit.adapters import ADAPTERS, Adapter, TimmViT, adapter_of

POOLINGS = ("token", "avg", "map")


class UnsupportedModelError(UserError):
    """`DownsampledViT` does not support the model.

    Attributes:
        reason: Why; the message also says which model would do.
    """

    def __init__(self, model: str, reason: str) -> None:
        """State the reason, and which model would do."""
        super().__init__(f"{model} is not supported: {reason}; use a timm ViT such as deit_small_patch16_224")
        self.reason = reason


def check_supported(vit: nn.Module) -> Adapter:
    """Raise an error if `DownsampledViT` does not support a model.

    Returns:
        The adapter of the model's family.

    Raises:
        UnsupportedModelError: The message gives the reason.
    """
    adapter = adapter_of(vit)
    classes = " or ".join(known.model.__name__ for known in ADAPTERS)
    reason = f"it is not a timm {classes}" if adapter is None else _refusal(adapter, vit)
    if adapter is None or reason:
        raise UnsupportedModelError(type(vit).__name__, reason)
    return adapter


def _refusal(adapter: Adapter, vit: TimmViT) -> str:
    """Why a model is not supported; empty if it is."""
    if not isinstance(vit.patch_embed, PatchEmbed):
        return f"its patch embedding is {type(vit.patch_embed).__name__}, not a single convolution"
    if vit.global_pool not in POOLINGS:
        return f"its pooling is '{vit.global_pool}', not by class token, mean or attention"
    pool = getattr(vit, "attn_pool", None)
    if pool is not None and (type(pool) is not AttentionPoolLatent or pool.pos_embed is not None):
        return "its attention pooling has positions of its own, or another form than AttentionPoolLatent"
    for depth, block in enumerate(vit.blocks):
        if type(block) not in adapter.block_classes:
            known = " or ".join(one.__name__ for one in adapter.block_classes)
            return f"block {depth} is {type(block).__name__}, not {known}"
        if type(block.attn) not in adapter.attention_classes:
            return f"the attention of block {depth} is {type(block.attn).__name__}, which mixes tokens in another way"
    return adapter.refusal(vit)
