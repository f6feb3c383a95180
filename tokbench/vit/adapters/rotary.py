"""Rotary positions of tokens that were dropped, kept or merged.

A rotary table has a row of sines and cosines for each patch of the image, by whose angles attention rotates the pairs
of channels of queries and keys. The angles are linear in the patch's coordinates, so they are defined between patches
too. A token of a single patch has the patch's own row. For a merged token there are four rules:

    mean         the row at the mean coordinate of its patches
    destination  the row of its largest member
    rotation     the mean of its patches' rows, which also shrinks the vector: most where angles change fast
    none         no rotation
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from timm.layers import RotaryEmbeddingCat
from timm.layers import pos_embed_sincos as timm_tables
from torch import Tensor, nn

from tokbench.errors import UserError
from tokbench.names import Position
from tokbench.token_groups import grid_coordinates, group_mean, group_sum
from tokbench.tokens import Tokens

# Missing in older versions of timm, whose models have tables of the first kind only.
_Mixed, _DinoV3, _MRope = (
    getattr(timm_tables, f"RotaryEmbedding{kind}", None) for kind in ("Mixed", "DinoV3", "MRope")
)


def unknown_table(rope: Any) -> str:
    """Why the positions of merged tokens are not defined for a model's table; empty if they are."""
    known = tuple(kind for kind in (_Mixed, _DinoV3, _MRope) if kind is not None)
    by_index = isinstance(rope, RotaryEmbeddingCat) and not rope.in_pixels
    if isinstance(rope, known) or (by_index and getattr(rope, "grid_type", "index") == "index"):
        return ""
    return f"its rotary positions are of an unknown kind, {type(rope).__name__}"


def rotary_table(vit: Any, grid: tuple[int, int]) -> Tensor:
    """A model's table, (N0, 2·Dh), or (depth, H, N0, 2·Dh) where each block has its own, as the model computes it."""
    if vit.dynamic_img_size or not hasattr(vit.rope, "feat_shape"):
        return vit.rope.get_embed(shape=grid)
    return vit.rope.get_embed()


@dataclass(frozen=True, eq=False)
class Rotation:
    """The rotary positions of the present patch tokens.

    Attributes:
        rope: timm's module.
        table: As in `rotary_table`.
        position: The rule for merged tokens.
        patch: (B, N), `Tokens.rotary`.
        owner: (B, N0), `Tokens.owner`.
        grid: (h, w) of the image's patches.
        merged: (B, N) bool, tokens of more than one patch; None before any reduction.
        shared: The rows for all blocks, if they are the same for all; else None.
    """

    rope: Any
    table: Tensor
    position: Position
    patch: Tensor
    owner: Tensor
    grid: tuple[int, int]
    merged: Tensor | None
    shared: Tensor | None = None

    @classmethod
    def of(cls, rope: Any, table: Tensor, tokens: Tokens, position: Position) -> Rotation:
        """The rotary positions of tokens of a model with a rotary table."""
        assert tokens.rotary is not None
        merged = None
        if tokens.layout != tokens.grid:  # an adaptive method may keep all tokens, but in another order
            ones = torch.ones_like(tokens.owner, dtype=torch.float32)[..., None]
            merged = group_sum(ones, tokens.owner, tokens.n_patches)[..., 0] > 1
        rotation = cls(rope, table, position, tokens.rotary, tokens.owner, tokens.grid, merged)
        return rotation if table.ndim > 2 else replace(rotation, shared=rotation._rows(table, 0))

    def after(self, tokens: Tokens) -> Rotation:
        """The positions of tokens that these may have been reduced to."""
        return self if tokens.rotary is self.patch else Rotation.of(self.rope, self.table, tokens, self.position)

    def rows(self, depth: int) -> Tensor:
        """The rows with which a block rotates queries and keys.

        Before any reduction they are the table, (N0, 2·Dh) or (H, N0, 2·Dh); after it they differ between images,
        (B, 1 or H, N, 2·Dh).
        """
        return self._rows(self.table[depth], depth) if self.shared is None else self.shared

    def _rows(self, table: Tensor, depth: int) -> Tensor:
        """The rows from one block's table (N0, 2·Dh) or (H, N0, 2·Dh)."""
        if self.merged is None:
            return table
        table = table if table.ndim == 3 else table[None]
        own = table[:, self.patch].transpose(0, 1)
        if self.position == "destination":
            return own
        return torch.where(self.merged[:, None, :, None], self._of_merged(table, depth).to(table.dtype), own)

    def _of_merged(self, table: Tensor, depth: int) -> Tensor:
        """The rows that the rule gives to merged tokens, (B or 1, H or 1, N or 1, 2·Dh)."""
        batch, n = self.patch.shape
        width = table.shape[2] // 2
        if self.position == "none":
            return torch.cat([table.new_zeros(width), table.new_ones(width)])[None, None, None]
        if self.position == "rotation":
            flat = table.transpose(0, 1).flatten(1).to(torch.float32)
            means = group_mean(flat.expand(batch, -1, -1), self.owner, n)
            return means.reshape(batch, n, table.shape[0], -1).transpose(1, 2)
        if self.rope.training and getattr(self.rope, "aug_active", False):
            raise UserError(
                "the model moves its rotary positions at random in training, and no mean of them is known: "
                "set position='destination' or 'rotation'"
            )
        place = coordinates(self.rope, self.grid, table.device).expand(batch, -1, -1)
        return rows_at(self.rope, group_mean(place, self.owner, n), depth)


class Placement(nn.Module):
    """Where the tokens of a block are.

    A module without parameters, so that the compute of merged tokens' positions is charged to the method.
    """

    def forward(self, rotation: Rotation, tokens: Tokens, depth: int) -> tuple[Rotation, Tensor]:
        """The rotary positions of tokens, given those before a possible reduction, and the block's rows of them."""
        rotation = rotation.after(tokens)
        return rotation, rotation.rows(depth)


def rows_at(rope: Any, place: Tensor, depth: int) -> Tensor:
    """The rows of a rotary table at any coordinates.

    Args:
        rope: timm's module.
        place: (B, N, 2), in the order and unit of `coordinates`.
        depth: The block's index.

    Returns:
        (B, 1 or H, N, 2·Dh) float32.
    """
    frequency = frequencies(rope, depth, place.device)  # (2, 1 or H, 1, Dh/2)
    angle = place[:, None, :, :1] * frequency[0] + place[:, None, :, 1:] * frequency[1]
    parts = (angle.sin(), angle.cos())
    if _rotates_halves(rope):
        return torch.cat([torch.cat([part, part], dim=-1) for part in parts], dim=-1)
    return torch.cat([part.repeat_interleave(2, dim=-1) for part in parts], dim=-1)


def coordinates(rope: Any, grid: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """The coordinates of the patches in the table's own unit and order of the axes, (N0, 2) float32."""
    # Without tensors of numbers from the host, which cannot be copied to a GPU while a CUDA graph is captured.
    axes = list(grid_coordinates(grid, device).unbind(1))
    if isinstance(rope, RotaryEmbeddingCat):
        axes = [axis + getattr(rope, "grid_offset", 0.0) for axis in axes]
        if rope.ref_feat_shape is not None:
            axes = [axis / side * of for axis, side, of in zip(axes, grid, rope.ref_feat_shape, strict=True)]
    elif _DinoV3 is not None and isinstance(rope, _DinoV3):
        sides = {"separate": grid, "min": (min(grid),) * 2, "max": (max(grid),) * 2}[rope.normalize_coords]
        offset = 0.5 + getattr(rope, "grid_offset", 0.0)
        axes = [2 * (axis + offset) / side - 1 for axis, side in zip(axes, sides, strict=True)]
    return torch.stack(axes[::-1] if getattr(rope, "grid_indexing", "ij") == "xy" else axes, dim=1)


def frequencies(rope: Any, depth: int, device: torch.device | None = None) -> Tensor:
    """The change of the angles per unit of each coordinate, (2, 1 or H, 1, Dh/2) float32."""
    if _Mixed is not None and isinstance(rope, _Mixed):
        return rope.freqs[:, depth].float()[:, :, None]
    if _MRope is not None and isinstance(rope, _MRope):
        return torch.stack([rope.inv_freq * (rope.axis == axis) for axis in (1, 2)])[:, None, None]
    if isinstance(rope, RotaryEmbeddingCat):
        bands = timm_tables.freq_bands(rope.dim // 4, temperature=float(rope.temperature), step=1, device=device)
    else:
        bands = 2 * math.pi / rope.periods.float()
    nothing = torch.zeros_like(bands)
    return torch.stack([torch.cat([bands, nothing]), torch.cat([nothing, bands])])[:, None, None]


def _rotates_halves(rope: Any) -> bool:
    """Whether channel i is paired with channel i + Dh/2, instead of with its neighbour."""
    return (_MRope is not None and isinstance(rope, _MRope)) or bool(getattr(rope, "rotate_half", False))
