"""Accuracy: how a model classifies each image, kept image by image.

Each image is decoded once for all models, and the blocks that models share run once (see `measure.shared_blocks`).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from timm.data.config import resolve_data_config
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tokbench.data.cache import open_cache
from tokbench.data.loading import Batch, Unreadable, batches
from tokbench.data.preprocessing import Preprocessing, preprocessing_of
from tokbench.data.sets import ImageSet
from tokbench.downsampler import DownsamplerError
from tokbench.isolation import alive
from tokbench.measure.allocator import keep_freed_memory
from tokbench.measure.shared_blocks import SharedBlocks
from tokbench.outcomes import SHARD, TOP, UNREADABLE, WRONG
from tokbench.vit.backbone import DownsampledViT

MIB = 2**20
NICENESS = 10  # of processes that decode on the cores that the models run on

# How an image comes out on the device: how many classes ranked before the right one, or one of these.
_NOT_AMONG_TOP, _NOT_FINITE = TOP, TOP + 1


@dataclass(frozen=True)
class Loading:
    """How images are decoded.

    Attributes:
        batch_size: Images per batch.
        workers: Processes that decode.
        memory: MiB of decoded images that may wait, and as many of tokens that models share.
        cache: A folder for preprocessed images, or None.
        cuda: Whether the models run on a GPU.
    """

    batch_size: int
    workers: int
    memory: int
    cache: Path | None
    cuda: bool

    def batches(
        self, images: ImageSet, preprocessing: Preprocessing, wanted: range
    ) -> Iterator[tuple[Batch, tuple[Unreadable, ...]]]:
        """Some of a set's images in batches.

        Args:
            images: The set.
            preprocessing: The model's.
            wanted: Positions, from the beginning of a batch.

        Yields:
            A batch, and what could not be read of its positions.

        Raises:
            DataError: The cache cannot be written.
        """
        return batches(
            images,
            preprocessing.pixels,
            batch_size=self.batch_size,
            workers=self.workers,
            start=wanted.start,
            stop=wanted.stop,
            waiting=self.memory * MIB // (self.batch_size * math.prod(preprocessing.shape)),
            cache=None if self.cache is None else open_cache(self.cache, preprocessing),
            pin_memory=self.cuda,
            niceness=0 if self.cuda else NICENESS,
        )


Attempt = Callable[[str, range, Callable[[], str]], bool]
"""Gets a model's key, a shard, and what computes the model's outcomes there; says whether that worked."""


@dataclass(frozen=True)
class Progress:
    """How far a classification is.

    Attributes:
        unreadable: Images of the shard that could not be decoded.
        count: How many of the wanted outcomes this settles.
    """

    unreadable: tuple[Unreadable, ...] = ()
    count: int = 0


def classify(
    models: Mapping[str, DownsampledViT],
    images: ImageSet,
    todo: Mapping[range, Sequence[str]],
    loading: Loading,
    attempt: Attempt,
) -> Iterator[Progress]:
    """Classify an image set with several models, shard by shard.

    Args:
        models: By key, in evaluation mode on their device.
        images: The set.
        todo: For each shard, in order and without gaps, the keys of the models that are to classify it.
        loading: How images are decoded.
        attempt: Called with each model and shard. A model that fails is left out of the shards that follow.

    Yields:
        The images of a shard that could not be read, before the shard's outcomes; and a count after each outcome.

    Raises:
        UserError: The cache cannot be written.
    """
    with keep_freed_memory():
        for group in _same_preprocessing(models):
            own = {shard: [key for key in keys if key in group] for shard, keys in todo.items()}
            yield from _classify_group(group, images, own, loading, attempt)


def _same_preprocessing(models: Mapping[str, DownsampledViT]) -> list[dict[str, DownsampledViT]]:
    """The models, grouped by their preprocessing: a group shares its decoded images."""
    groups: dict[str, dict[str, DownsampledViT]] = {}
    for key, model in models.items():
        groups.setdefault(str(resolve_data_config({}, model=model.vit)), {})[key] = model
    return list(groups.values())


def _classify_group(
    models: Mapping[str, DownsampledViT],
    images: ImageSet,
    todo: Mapping[range, Sequence[str]],
    loading: Loading,
    attempt: Attempt,
) -> Iterator[Progress]:
    every = list(todo)
    first = next((number for number, shard in enumerate(every) if todo[shard]), None)
    if first is None:
        return
    able = dict(models)
    ids = image_ids(images.names)
    preprocessing = preprocessing_of(next(iter(models.values())).vit)
    loaded = loading.batches(images, preprocessing, range(every[first].start, every[-1].stop))
    for shard in every[first:]:
        keys = [key for key in todo[shard] if key in able]
        groups = [
            (SharedBlocks(DownsampledViT(vit).eval(), ids, preprocessing, loading.memory * MIB), several)
            for vit, several in _by_vit(keys, able)
        ]
        for batch, lost in islice(loaded, SHARD):
            for shared, _ in groups:
                shared.add(batch)
            if groups:  # the first model's blocks run while the next images are decoded
                shared, several = groups[0]
                shared.advance(able[several[0]].start, len(shared.batches) - 1)
            if lost:
                yield Progress(unreadable=lost)
        yield Progress(count=len(todo[shard]) - len(keys))  # of models that failed before
        while groups:
            shared, several = groups.pop(0)  # so that its memory is free for the next
            for key in several:
                if not attempt(key, shard, partial(evaluate, able[key], shared, shard, images.classes)):
                    del able[key]
                yield Progress(count=1)


def _by_vit(keys: Sequence[str], models: Mapping[str, DownsampledViT]) -> Iterator[tuple[VisionTransformer, list[str]]]:
    """The keys grouped by plain model, and in each group those first whose method acts first."""
    groups: dict[VisionTransformer, list[str]] = {}
    for key in keys:
        groups.setdefault(models[key].vit, []).append(key)
    for vit, several in groups.items():
        yield vit, sorted(several, key=lambda key: models[key].start)


def image_ids(names: Sequence[str]) -> Tensor:
    """(len(names),) int64: an identity of each image that depends on its name alone, for `Context.noise`."""
    hashes = (hashlib.sha256(name.encode()).digest()[:8] for name in names)
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in hashes], dtype=torch.int64)


def evaluate(model: DownsampledViT, shared: SharedBlocks, shard: range, classes: Sequence[int] | None) -> str:
    """Classify a shard of an image set.

    Args:
        model: In evaluation mode; its ViT is the one of `shared`.
        shared: The shard's images.
        shard: The positions of the shard in the set.
        classes: Logits are restricted to these; None for all.

    Returns:
        One character per position; see `tokbench.outcomes`.

    Raises:
        DownsamplerError: A logit is not a finite number.
    """
    read = [number for number, batch in enumerate(shared.batches) if len(batch.index)]
    allowed = None if classes is None else torch.tensor(classes, device=model.vit.patch_embed.proj.weight.device)
    ranks = [_rank_batch(model, shared, number, allowed) for number in read]
    outcomes = [UNREADABLE] * len(shard)
    # Only once the last batch is under way, because reading a result waits for a GPU.
    for number, rank in zip(read, ranks, strict=True):
        for position, place in zip(shared.batches[number].index.tolist(), rank.tolist(), strict=True):
            if place == _NOT_FINITE:
                raise DownsamplerError("the logits are not finite (NaN or infinity)")
            outcomes[position - shard.start] = WRONG if place == _NOT_AMONG_TOP else str(place)
    return "".join(outcomes)


def _rank_batch(model: DownsampledViT, shared: SharedBlocks, number: int, allowed: Tensor | None) -> Tensor:
    """(B,) how each image of a batch comes out; without shared tokens where the device has no memory for both."""
    alive()
    try:
        return _run(model, shared, number, allowed)
    except torch.OutOfMemoryError:
        if not shared.stop_holding():
            raise
    return _run(model, shared, number, allowed)


@torch.inference_mode()
def _run(model: DownsampledViT, shared: SharedBlocks, number: int, allowed: Tensor | None) -> Tensor:
    tokens = shared.tokens_at(model.start, number)
    left = model.through(tokens, range(model.start, len(model.vit.blocks)), shared.ids(number))
    logits = model.classify(left)
    return _rank(logits, shared.batches[number].labels.to(logits.device), allowed)


def _rank(logits: Tensor, labels: Tensor, allowed: Tensor | None) -> Tensor:
    """(B,) how many of the allowed classes ranked before the right one, from logits (B, classes)."""
    restricted = logits if allowed is None else logits[:, allowed]
    best = restricted.topk(min(TOP, restricted.shape[1])).indices
    hits = (best if allowed is None else allowed[best]) == labels[:, None]
    rank = torch.where(hits.any(dim=1), hits.int().argmax(dim=1), _NOT_AMONG_TOP)
    return torch.where(torch.isfinite(logits).all(dim=1), rank, _NOT_FINITE)
