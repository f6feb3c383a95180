"""Which models `DownsampledViT` can put a method into, and which methods fit."""

from __future__ import annotations

from timm.layers import AttentionPoolLatent, PatchEmbed
from torch import nn

from tokbench.context import FIELDS
from tokbench.downsampler import Downsampler, DownsamplerError
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


def check_method(method: Downsampler, vit: TimmViT, site: str, depths: tuple[int, ...]) -> None:
    """Check that a method can act in a model, at a site and depths.

    Raises:
        DownsamplerError: The method declares a field that does not exist.
        UserError: Method, site, depths and model do not fit together.
    """
    name = method.name or type(method).__name__
    unknown = method.needs - set(FIELDS)
    if unknown:
        raise DownsamplerError(f"{name}: unknown field '{min(unknown)}' in needs; known: {', '.join(FIELDS)}")
    if site not in method.sites:
        raise UserError(f"method '{name}' cannot act {site}; its sites are {', '.join(method.sites)}")
    if site == "before_block" and method.needs and 0 in depths:
        raise UserError(
            f"method '{name}' reads what the previous block computed, and depth 0 has none: "
            "use --site after_attention, or a schedule that starts later"
        )
    if "cls_attention" in method.needs and vit.cls_token is None and vit.global_pool != "map":
        raise UserError(
            f"method '{name}' reads the class token's attention, but this model has no class token and pools by "
            "the mean"
        )


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
