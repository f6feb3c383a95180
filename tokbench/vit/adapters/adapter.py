"""What `DownsampledViT` has to know about a family of models: how its blocks, positions and pooling are computed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, TypeAlias

from timm.models.eva import Eva, EvaAttention, EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Attention, Block, ResPostBlock, VisionTransformer
from torch import Tensor, nn

from tokbench.names import Position
from tokbench.tokens import Tokens
from tokbench.vit.adapters.pooling import pooled
from tokbench.vit.adapters.rotary import Rotation
from tokbench.vit.attention import Projected

TimmViT: TypeAlias = VisionTransformer | Eva
TimmBlock: TypeAlias = Block | ResPostBlock | EvaBlock | EvaBlockPostNorm
TimmAttention: TypeAlias = Attention | EvaAttention


class Adapter(ABC):
    """How a family of timm's models is run block by block. It has no state: the model is an argument.

    Every method computes what the model's own forward pass computes, to the bit. B images, P prefix tokens, N patch
    tokens, D channels, H heads, Dh channels per head.

    Attributes:
        model: The class of the models.
        modules: timm's modules in which the architectures are registered.
        attention_classes: Classes of attention that `project` can take apart.
        block_classes: Classes of blocks that are supported.
    """

    model: ClassVar[type[nn.Module]]
    modules: ClassVar[tuple[str, ...]]
    block_classes: ClassVar[tuple[type[nn.Module], ...]]
    attention_classes: ClassVar[tuple[type[nn.Module], ...]]

    @abstractmethod
    def refusal(self, vit: TimmViT) -> str:
        """Why a model of the class is not supported, as far as only this family can tell; empty if it is."""

    @abstractmethod
    def embed(self, vit: TimmViT, images: Tensor) -> Tokens:
        """The input tokens of the first block, from images (B, C, H, W)."""

    def rotation(self, vit: TimmViT, tokens: Tokens, position: Position) -> Rotation | None:
        """The rotary positions of the tokens; None if the model has none."""
        return None

    @abstractmethod
    def attention_input(self, block: TimmBlock, x: Tensor) -> Tensor:
        """What a block's attention reads, from the block's input (B, P+N, D)."""

    def attention(self, block: TimmBlock, x: Tensor, rotary: Tensor | None) -> Tensor:
        """A block's attention as the model computes it.

        Args:
            block: The block.
            x: (B, P+N, D), from `attention_input`.
            rotary: Rows of the rotary table, from `Rotation.rows`, or None.
        """
        return block.attn(x)

    @abstractmethod
    def project(self, attention: TimmAttention, x: Tensor, rotary: Tensor | None) -> Projected:
        """The queries, keys and values that attention computes from x (B, P+N, D)."""

    @abstractmethod
    def attention_update(self, block: TimmBlock, y: Tensor) -> Tensor:
        """What is added to the block's input, from the attention's output (B, P+N, D)."""

    @abstractmethod
    def mlp_update(self, block: TimmBlock, x: Tensor) -> Tensor:
        """What the MLP adds to the tokens x (B, P+N, D)."""

    @abstractmethod
    def pools_prefix(self, vit: TimmViT) -> bool:
        """Whether pooling, other than by the class token, also reads the prefix tokens."""

    def pool(self, vit: TimmViT, tokens: Tokens, bias: Tensor | None) -> Tensor:
        """The features (B, D) that the head reads, from the output tokens of the last block.

        Args:
            vit: The model.
            tokens: The tokens.
            bias: (B, 1, 1, P+N), added to the logits of attention pooling, or None.
        """
        return pooled(vit, tokens, bias, prefix=self.pools_prefix(vit))
