"""Accuracy: what a model says of each image, kept image by image.

Models that differ in their method alone are the same up to where the first of them acts. `SharedBlocks` computes that
part once for all of them, with the plain model's own blocks, so that each says what it would say alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from tokbench.data.loading import Batch
from tokbench.data.preprocessing import Preprocessing
from tokbench.downsampler import DownsamplerError
from tokbench.tokens import Tokens
from tokbench.vit.backbone import DownsampledViT

TOP = 5
WRONG = "-"  # not among the first five
UNREADABLE = "?"

# How an image comes out on the device: how many classes came before the right one, or one of these.
_NOT_AMONG_TOP, _NOT_FINITE = TOP, TOP + 1


def image_ids(names: Sequence[str]) -> Tensor:
    """(len(names),) int64: an identity of each image that depends on its name alone, for `Context.noise`."""
    hashes = (hashlib.sha256(name.encode()).digest()[:8] for name in names)
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in hashes], dtype=torch.int64)


class SharedBlocks:
    """A stretch of images on its way through the plain model: for each batch, the tokens that entered some block.

    Models are asked in the order of their `start`; then no block is computed twice for a batch whose tokens are held.
    """

    def __init__(
        self, plain: DownsampledViT, batches: Sequence[Batch], ids: Tensor, preprocessing: Preprocessing, room: int
    ) -> None:
        """Begin before the first block.

        Args:
            plain: The model without a method.
            batches: The stretch's images.
            ids: (images of the whole set,) int64, each image's identity.
            preprocessing: The model's.
            room: Bytes of tokens to hold at most. A batch for which there is none begins at its images each time.
        """
        self.batches = batches
        self._plain = plain
        self._ids = ids
        self._preprocessing = preprocessing
        self._room = room
        self._held: dict[int, tuple[int, Tokens]] = {}
        self._full = False

    def ids(self, number: int) -> Tensor:
        """(B,) int64: the identities of a batch's images, on the model's device."""
        return self._ids[self.batches[number].index].to(self._weight.device)

    def entering(self, depth: int, number: int) -> Tokens:
        """The tokens that enter a block, the caller's own to change.

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
        # A method that writes into what it is given must not change what the others are given.
        own = (tokens.x.clone(), tokens.size.clone(), tokens.owner.clone())
        return dataclasses.replace(tokens, x=own[0], size=own[1], owner=own[2])

    def advance(self, depth: int, number: int) -> None:
        """Send a batch to a block ahead of who will ask for it there, as long as there is room to hold it.

        Args:
            depth: The block's.
            number: Which batch.
        """
        if self._full or not len(self.batches[number].index):
            return
        try:
            with torch.inference_mode():
                self.entering(depth, number)
        except torch.OutOfMemoryError:
            self.forgo()

    def forgo(self) -> bool:
        """Hold nothing from now on, for the device has no memory for it.

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


def evaluate(model: DownsampledViT, shared: SharedBlocks, span: range, classes: Sequence[int] | None) -> str:
    """Classify a stretch of an image set.

    Args:
        model: In evaluation mode; its ViT is the one of `shared`.
        shared: The stretch's images.
        span: The positions of the stretch in the set.
        classes: Logits are restricted to these; None for all.

    Returns:
        One character a position: `0` to `4`, how many classes came before the right one; `-` where five or more did;
        `?` where the image could not be read.

    Raises:
        DownsamplerError: A logit is not a finite number.
    """
    read = [number for number, batch in enumerate(shared.batches) if len(batch.index)]
    allowed = None if classes is None else torch.tensor(classes, device=model.vit.patch_embed.proj.weight.device)
    ranks = [_rank_batch(model, shared, number, allowed) for number in read]
    outcomes = [UNREADABLE] * len(span)
    # Not before the last batch is on its way: reading one waits for a GPU.
    for number, rank in zip(read, ranks, strict=True):
        for position, place in zip(shared.batches[number].index.tolist(), rank.tolist(), strict=True):
            if place == _NOT_FINITE:
                raise DownsamplerError("the logits are not finite (NaN or infinity)")
            outcomes[position - span.start] = WRONG if place == _NOT_AMONG_TOP else str(place)
    return "".join(outcomes)


def _rank_batch(model: DownsampledViT, shared: SharedBlocks, number: int, allowed: Tensor | None) -> Tensor:
    """(B,) how each image of a batch comes out; without what is shared where the device has no memory for both."""
    try:
        return _run(model, shared, number, allowed)
    except torch.OutOfMemoryError:
        if not shared.forgo():
            raise
    return _run(model, shared, number, allowed)


@torch.inference_mode()
def _run(model: DownsampledViT, shared: SharedBlocks, number: int, allowed: Tensor | None) -> Tensor:
    tokens = shared.entering(model.start, number)
    left = model.through(tokens, range(model.start, len(model.vit.blocks)), shared.ids(number))
    logits = model.classify(left)
    return _rank(logits, shared.batches[number].labels.to(logits.device), allowed)


def _rank(logits: Tensor, labels: Tensor, allowed: Tensor | None) -> Tensor:
    """(B,) how many of the classes allowed came before the right one, of logits (B, classes)."""
    restricted = logits if allowed is None else logits[:, allowed]
    best = restricted.topk(min(TOP, restricted.shape[1])).indices
    hits = (best if allowed is None else allowed[best]) == labels[:, None]
    rank = torch.where(hits.any(dim=1), hits.int().argmax(dim=1), _NOT_AMONG_TOP)
    return torch.where(torch.isfinite(logits).all(dim=1), rank, _NOT_FINITE)


def _bytes(tokens: Tokens) -> int:
    return sum(part.numel() * part.element_size() for part in (tokens.x, tokens.size, tokens.owner))
