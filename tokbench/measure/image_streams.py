"""The images of a set in batches, one stream for each preprocessing, and the models that read them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from timm.data.config import resolve_data_config
from torch import Tensor

from tokbench.data.cache import open_cache
from tokbench.data.loading import Batch, Unreadable, batches
from tokbench.data.preprocessing import Preprocessing, preprocessing_of
from tokbench.data.sets import ImageSet
from tokbench.measure.shared_blocks import SharedBlocks
from tokbench.outcomes import SHARD
from tokbench.vit.adapters import TimmViT
from tokbench.vit.backbone import DownsampledViT

MIB = 2**20
NICENESS = 10  # of processes that decode on the cores that the models run on


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

    def divided(self, streams: int) -> Loading:
        """The same for each of several streams of images that are decoded at once."""
        workers = self.workers and max(1, self.workers // streams)
        return replace(self, workers=workers, memory=max(1, self.memory // streams))

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


@dataclass(frozen=True, eq=False)
class Stream:
    """A set's images in batches, for the models that have one preprocessing.

    Attributes:
        preprocessing: The models'.
        vits: The models.
        batches: All images of the pass in order, and what could not be read.
        room: Bytes of tokens to hold.
    """

    preprocessing: Preprocessing
    vits: Collection[TimmViT]
    batches: Iterator[tuple[Batch, tuple[Unreadable, ...]]]
    room: int

    def reads(self, vit: TimmViT) -> bool:
        """Whether a model reads these images."""
        return vit in self.vits

    def open_shard(
        self, models: Mapping[str, DownsampledViT], compared: Collection[TimmViT], ids: Tensor
    ) -> list[tuple[SharedBlocks, dict[str, DownsampledViT]]]:
        """The models grouped by plain model, each group with room for a shard; first those whose method acts first."""
        groups: dict[TimmViT, dict[str, DownsampledViT]] = {vit: {} for vit in compared if self.reads(vit)}
        for key, model in sorted(models.items(), key=lambda item: item[1].start):
            groups.setdefault(model.vit, {})[key] = model
        return [
            (SharedBlocks(DownsampledViT(vit).eval(), ids, self.preprocessing, self.room), several)
            for vit, several in groups.items()
        ]

    def decode(
        self, groups: Sequence[tuple[SharedBlocks, dict[str, DownsampledViT]]]
    ) -> Iterator[tuple[Unreadable, ...]]:
        """Decode a shard for these groups; yields what could not be read."""
        for batch, lost in islice(self.batches, SHARD):
            for shared, _ in groups:
                shared.add(batch)
            if groups:  # the first model's blocks run while the next images are decoded
                shared, several = groups[0]
                shared.advance(min((one.start for one in several.values()), default=0), len(shared.batches) - 1)
            if lost:
                yield lost


def open_streams(
    plain: Sequence[DownsampledViT],
    models: Sequence[DownsampledViT],
    images: ImageSet,
    wanted: range,
    loading: Loading,
) -> list[Stream]:
    """The images of a set, for each preprocessing that some of the models have.

    Args:
        plain: The models that others are compared with: their streams, which others may share, come first.
        models: All that read the images.
        images: The set.
        wanted: Positions, from the beginning of a batch.
        loading: How images are decoded.
    """
    groups: dict[tuple[bool, str], dict[TimmViT, None]] = {}
    first = {model.vit for model in plain}
    for model in (*plain, *models):
        place = (model.vit not in first, str(resolve_data_config({}, model=model.vit)))
        groups.setdefault(place, {})[model.vit] = None
    share = loading.divided(len(groups))
    streams = []
    for _, vits in sorted(groups.items(), key=lambda group: group[0][0]):
        preprocessing = preprocessing_of(next(iter(vits)))
        loaded = share.batches(images, preprocessing, wanted)
        streams.append(Stream(preprocessing, vits.keys(), loaded, loading.memory * MIB))
    return streams


def image_ids(names: Sequence[str]) -> Tensor:
    """(len(names),) int64: an identity of each image that depends on its name alone, for `Context.noise`."""
    hashes = (hashlib.sha256(name.encode()).digest()[:8] for name in names)
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in hashes], dtype=torch.int64)
