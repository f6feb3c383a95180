"""The blocks that several models share, computed once.

Models that differ in their method alone are the same up to where the first of them acts. That part is computed once for
all of them, with the plain model's own blocks, so that each gives the answers it would give alone.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from tokbench.data.loading import Batch
from tokbench.data.preprocessing import Preprocessing
from tokbench.tokens import Tokens
from tokbench.vit.adapters import TimmViT
from tokbench.vit.backbone import DownsampledViT


class SharedBlocks:
    """The batches of a shard inside the plain model: for each batch, the tokens that entered some block.

    If models ask in the order of their `start`, no block is computed twice for a batch whose tokens are held.
    """

    def __init__(self, plain: DownsampledViT, ids: Tensor, preprocessing: Preprocessing, room: int) -> None:
        """Begin without images.

        Args:
            plain: The model without a method.
            ids: (images of the whole set,) int64, each image's identity.
            preprocessing: The model's.
            room: Most bytes of tokens to hold. A batch without room is computed from its images each time.
        """
        self.batches: list[Batch] = []
        self._plain = plain
        self._ids = ids
        self._preprocessing = preprocessing
        self._room = room
        self._held: dict[int, tuple[int, Tokens]] = {}
        self._full = False

    @property
    def vit(self) -> TimmViT:
        """The plain model as timm made it."""
        return self._plain.vit

    def add(self, batch: Batch) -> None:
        """Add the next batch of the shard."""
        self.batches.append(batch)

    def ids(self, number: int) -> Tensor:
        """(B,) int64: the identities of a batch's images, on the model's device."""
        return self._ids[self.batches[number].index].to(self._weight.device)

    def tokens_at(self, depth: int, number: int) -> Tokens:
        """The tokens that enter a block; the caller may change them.

        Args:
            depth: The block's; the number of blocks for the tokens that leave the last.
            number: Which batch.
        """
        reached, tokens = self._held.pop(number, (0, None))
        if tokens is None or reached > depth:
            images = self._preprocessing.normalise(self.batches[number].images, self._weight)
            reached, tokens = 0, self._plain.embed(images)
        tokens = self._plain.through(tokens, range(reached, depth), self.ids(number))
        if sum(_bytes(held) for _, held in self._held.values()) + _bytes(tokens) > self._room:
            self._full = True
            return tokens
        self._held[number] = depth, tokens
        # A method that writes into its input must not change the input of the others.
        own = {name: getattr(tokens, name) for name in ("x", "size", "owner", "rotary")}
        return dataclasses.replace(tokens, **{name: part.clone() for name, part in own.items() if part is not None})

    def advance(self, depth: int, number: int) -> None:
        """Compute a batch up to a block before a model asks for it there, as long as there is room to hold it.

        Args:
            depth: The block's.
            number: Which batch.
        """
        if self._full or not len(self.batches[number].index):
            return
        try:
            with torch.inference_mode():
                self.tokens_at(depth, number)
        except torch.OutOfMemoryError:
            self.stop_holding()

    def stop_holding(self) -> bool:
        """Hold nothing from now on, because the device has no memory for it.

        Returns:
            Whether anything was held.
        """
        held = bool(self._held)
        self._held.clear()
        self._room, self._full = 0, True
        return held

    @property
    def _weight(self) -> Tensor:
        weight: Tensor = self._plain.vit.patch_embed.proj.weight
        return weight


def _bytes(tokens: Tokens) -> int:
    return sum(part.numel() * part.element_size() for part in (tokens.x, tokens.size, tokens.owner))
