"""The token sequence that flows between the blocks of a downsampled ViT, with a record of what each token represents.

Every operation returns new `Tokens` and updates the records: `size` (how many image patches a token represents),
`owner` (which token each image patch is in now), `layout` (the grid of the present tokens, if they form one) and, in
models with rotary positions, `rotary` (the patch whose position a token has).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tokbench.token_groups import central_patch, gather_rows, group_sum, group_sums, of_largest


@dataclass(frozen=True, eq=False)
class Tokens:
    """The input sequence of a transformer block, with a record of what each patch token represents.

    B images, P prefix tokens (class, distillation, registers), N patch tokens, N0 patches of the image.

    Attributes:
        x: (B, P+N, D), prefix tokens first.
        size: (B, N) float32, how many image patches each token represents. Merging keeps the sum, dropping reduces it.
        owner: (B, N0) int64, the patch token in [0, N) that each image patch is in, -1 if it was dropped.
        grid: (h, w) of the image's patches, h*w = N0.
        layout: (h, w) of the present patch tokens, in row-major order, while they form a grid; else None.
        valid: (B, N) bool if the count differs between images (False is padding), else None.
        rotary: (B, N) int64, the image patch whose rotary position each patch token has: its own, or that of its
            largest member. None in models without rotary positions.
        presence: (B, N) in [0, 1], how far each token is present, while a method trains with all tokens in place; else
            None. Only `select`, `replace` and `stay` keep it.
    """

    x: Tensor
    size: Tensor
    owner: Tensor
    grid: tuple[int, int]
    layout: tuple[int, int] | None = None
    valid: Tensor | None = None
    rotary: Tensor | None = None
    presence: Tensor | None = None

    @classmethod
    def from_sequence(cls, x: Tensor, grid: tuple[int, int], prefix: int = 1) -> Tokens:
        """Create tokens from a ViT's embedded sequence: every patch token represents its own patch.

        Args:
            x: (B, P+N0, D), prefix tokens first.
            grid: (h, w) of the patches.
            prefix: P, the number of prefix tokens.

        Raises:
            ValueError: The sequence length is not P + h*w.
        """
        n = x.shape[1] - prefix
        if n != grid[0] * grid[1]:
            raise ValueError(
                f"{x.shape[1]} tokens, {prefix} of them prefix tokens, do not match a {grid[0]}x{grid[1]} grid"
            )
        batch = x.shape[0]
        return cls(
            x=x,
            size=torch.ones(batch, n, device=x.device),
            owner=torch.arange(n, device=x.device).expand(batch, n),
            grid=grid,
            layout=grid,
        )

    def with_rotary(self) -> Tokens:
        """The same tokens of single patches, each with the rotary position of its own patch."""
        return dataclasses.replace(self, rotary=self.owner)

    @property
    def n_patches(self) -> int:
        """N, the number of patch tokens (padding included)."""
        return int(self.size.shape[1])  # in a traced model, shapes are tensors

    @property
    def n_prefix(self) -> int:
        """P, the number of prefix tokens."""
        return int(self.x.shape[1] - self.size.shape[1])

    @property
    def prefix(self) -> Tensor:
        """(B, P, D), a view."""
        return self.x[:, : self.n_prefix]

    @property
    def patches(self) -> Tensor:
        """(B, N, D), a view."""
        return self.x[:, self.n_prefix :]

    def select(self, index: Tensor, *, layout: tuple[int, int] | None = None) -> Tokens:
        """Keep the patch tokens at `index`, in that order, and drop the others.

        Args:
            index: (B, K) int64, distinct in each row.
            layout: (h, w) if the kept tokens form a grid, h*w = K.
        """
        kept = torch.arange(index.shape[1], device=index.device).expand_as(index)
        dropped = torch.full((index.shape[0], self.n_patches + 1), -1, device=index.device)
        return Tokens(
            x=torch.cat([self.prefix, gather_rows(self.patches, index)], dim=1),
            size=self.size.gather(1, index),
            owner=_compose(self.owner, dropped.scatter(1, index, kept)),
            grid=self.grid,
            layout=layout,
            valid=None if self.valid is None else self.valid.gather(1, index),
            rotary=None if self.rotary is None else self.rotary.gather(1, index),
            presence=None if self.presence is None else self.presence.gather(1, index),
        )

    def merge(
        self,
        owner: Tensor,
        count: int,
        weight: Tensor | None = None,
        *,
        layout: tuple[int, int] | None = None,
    ) -> Tokens:
        """Replace each group of patch tokens by its weighted mean.

        Sums are computed in float32 or wider, in the same order on every run. A group without members, or with zero
        total weight, becomes a zero vector.

        Args:
            owner: (B, N) int64 in [-1, count), the group of each token; -1 drops it.
            count: K, the number of groups.
            weight: (B, N) non-negative weights of the mean; None uses `size`.
            layout: (h, w) if the groups form a grid, h*w = K.
        """
        if self.valid is not None:
            owner = owner.masked_fill(~self.valid, -1)
        wide = torch.promote_types(self.x.dtype, torch.float32)
        weight = (self.size if weight is None else weight).to(wide)
        columns = [self.patches.to(wide) * weight[..., None], weight[..., None], self.size[..., None].to(wide)]
        if self.valid is not None:
            columns.append(torch.ones_like(columns[1]))
        merged, total, size, *members = group_sums(columns, owner, count)
        merged = merged / total.clamp_min(torch.finfo(wide).tiny)
        return Tokens(
            x=torch.cat([self.prefix, merged.to(self.x.dtype)], dim=1),
            size=size[..., 0].to(self.size.dtype),
            owner=_compose(self.owner, F.pad(owner, (0, 1), value=-1)),
            grid=self.grid,
            layout=layout,
            valid=members[0][..., 0] > 0 if members else None,
            rotary=None if self.rotary is None else of_largest(self.rotary, self.size, owner, count),
        )

    def mix(self, matrix: Tensor, *, layout: tuple[int, int] | None = None) -> Tokens:
        """Soft pooling: each new token is a linear combination of all patch tokens.

        Sizes are combined with the same matrix. An image patch goes to the new token with the largest entry in its
        token's column, and is dropped if no entry is positive.

        Args:
            matrix: (B, K, N), one row per new token.
            layout: (h, w) if the new tokens form a grid, h*w = K.
        """
        if self.valid is not None:
            matrix = matrix * self.valid[:, None]
        largest, row = matrix.max(dim=1)
        # Not as a matrix product: under autocast that would be computed in half precision.
        shares = matrix.to(self.size.dtype) * self.size[:, None]
        return Tokens(
            x=torch.cat([self.prefix, matrix.to(self.x.dtype) @ self.patches], dim=1),
            size=shares.sum(dim=2),
            owner=_compose(self.owner, F.pad(row.masked_fill(largest <= 0, -1), (0, 1), value=-1)),
            grid=self.grid,
            layout=layout,
            rotary=None if self.rotary is None else self.rotary.gather(1, shares.argmax(dim=2)),
        )

    def append(self, patches: Tensor, size: Tensor, owner: Tensor) -> Tokens:
        """Add E patch tokens after the present ones.

        Args:
            patches: (B, E, D).
            size: (B, E).
            owner: (B, N0) int64 in [-1, E), the new token that each image patch moves to; -1 leaves it where it is.
        """
        n = self.n_patches
        valid, rotary = self.valid, self.rotary
        if valid is not None:
            valid = torch.cat([valid, torch.ones_like(size, dtype=torch.bool)], dim=1)
        if rotary is not None:
            # The members may have been dropped before, so that the largest of them is no longer known.
            rotary = torch.cat([rotary, central_patch(owner, size.shape[1], self.grid)], dim=1)
        return Tokens(
            x=torch.cat([self.x, patches.to(self.x.dtype)], dim=1),
            size=torch.cat([self.size, size.to(self.size.dtype)], dim=1),
            owner=torch.where(owner >= 0, owner + n, self.owner),
            grid=self.grid,
            valid=valid,
            rotary=rotary,
        )

    def stay(self, owner: Tensor, presence: Tensor) -> Tokens:
        """Merge and drop patch tokens on record only, as in training: all N stay in place, with their vectors.

        A token that others are in has the sum of their sizes. Every other token keeps its own size.

        Args:
            owner: (B, N) int64, the token that each one is in: itself if it is present; -1 if it was dropped.
            presence: (B, N) in [0, 1], how far each token is present.
        """
        n = self.n_patches
        size, rotary = group_sum(self.size[..., None], owner, n)[..., 0], self.rotary
        empty = size == 0
        if rotary is not None:
            rotary = torch.where(empty, rotary, of_largest(rotary, self.size, owner, n))
        return dataclasses.replace(
            self,
            size=torch.where(empty, self.size, size),
            owner=_compose(self.owner, F.pad(owner, (0, 1), value=-1)),
            layout=None,
            rotary=rotary,
            presence=presence,
        )

    def replace(self, *, patches: Tensor | None = None, size: Tensor | None = None) -> Tokens:
        """The same tokens with new vectors or sizes, for methods that compute these themselves.

        Args:
            patches: (B, N, D), or None to keep the vectors.
            size: (B, N), or None to keep the sizes.

        Raises:
            ValueError: The number of tokens would change.
        """
        for name, given in (("patches", patches), ("size", size)):
            if given is not None and given.shape[:2] != self.size.shape:
                raise ValueError(f"replace({name}=): expected shape {tuple(self.size.shape)}, got {tuple(given.shape)}")
        x = self.x if patches is None else torch.cat([self.prefix, patches.to(self.x.dtype)], dim=1)
        return dataclasses.replace(self, x=x, size=self.size if size is None else size.to(self.size.dtype))


def _compose(owner: Tensor, new_of_old: Tensor) -> Tensor:
    """Map the owner (B, N0) of each image patch from old to new tokens by `new_of_old` (B, N+1), whose last is -1."""
    return new_of_old.gather(1, owner.remainder(new_of_old.shape[1]))  # that of -1 is N
