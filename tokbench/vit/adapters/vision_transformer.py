"""timm's `VisionTransformer`: ViT, DeiT, DeiT-3, CLIP, SigLIP, DINOv2, FlexiViT and others with absolute positions."""

from __future__ import annotations

from timm.models.vision_transformer import Attention, Block, ResPostBlock, VisionTransformer
from torch import Tensor, nn

from tokbench.tokens import Tokens
from tokbench.vit.adapters.adapter import Adapter, TimmAttention, TimmBlock, TimmViT
from tokbench.vit.attention import Projected


class VisionTransformerAdapter(Adapter):
    """Blocks x + LayerScale(attention(norm(x))), or with the norm after the layer (`ResPostBlock`)."""

    model = VisionTransformer
    modules = ("vision_transformer", "deit")
    block_classes = (Block, ResPostBlock)
    attention_classes = (Attention,)

    def refusal(self, vit: TimmViT) -> str:
        """Why a model is not supported; empty if it is."""
        if type(vit).forward_features is not VisionTransformer.forward_features:
            return "it has its own forward pass"
        if not isinstance(vit.patch_drop, nn.Identity):
            return "it drops random patches in training"
        return ""

    def embed(self, vit: TimmViT, images: Tensor) -> Tokens:
        """The input tokens of the first block."""
        x = vit.patch_embed(images)
        grid = tuple(x.shape[1:3]) if x.ndim == 4 else vit.patch_embed.grid_size
        x = vit.norm_pre(vit.patch_drop(vit._pos_embed(x)))
        return Tokens.from_sequence(x, grid, vit.num_prefix_tokens)

    def attention_input(self, block: TimmBlock, x: Tensor) -> Tensor:
        """The normalised input; the input itself where the norm comes after the layer."""
        return x if isinstance(block, ResPostBlock) else block.norm1(x)

    def project(self, attention: TimmAttention, x: Tensor, rotary: Tensor | None) -> Projected:
        """Queries, keys and values, from one matrix for all three."""
        batch, n, _ = x.shape
        qkv = attention.qkv(x).reshape(batch, n, 3, attention.num_heads, attention.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        q, k = attention.q_norm(q), attention.k_norm(k)
        return Projected(q, k, v)

    def attention_update(self, block: TimmBlock, y: Tensor) -> Tensor:
        """The output after LayerScale, or after the norm."""
        return block.drop_path1(block.norm1(y) if isinstance(block, ResPostBlock) else block.ls1(y))

    def mlp_update(self, block: TimmBlock, x: Tensor) -> Tensor:
        """The MLP's output after LayerScale, or after the norm."""
        if isinstance(block, ResPostBlock):
            return block.drop_path2(block.norm2(block.mlp(x)))
        return block.drop_path2(block.ls2(block.mlp(block.norm2(x))))

    def pools_prefix(self, vit: TimmViT) -> bool:
        """Whether the model says so; versions of timm before 1.0.16 pool all tokens by attention, patches by mean."""
        return bool(getattr(vit, "pool_include_prefix", vit.attn_pool is not None))
