"""The pass over all images: how each model classifies each image, and how close it stays to the plain model.

Each image is decoded once for all models with the same preprocessing, and the blocks that models share run once (see
`measure.shared_blocks`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from tokbench.data.labelling import IMAGENET_CLASSES
from tokbench.data.loading import Batch, Unreadable
from tokbench.data.sets import ImageSet
from tokbench.downsampler import DownsamplerError
from tokbench.isolation import alive
from tokbench.measure.agreement import Comparison, Prediction, Predictions, compare, difference
from tokbench.measure.allocator import keep_freed_memory
from tokbench.measure.image_streams import Loading, image_ids, open_streams
from tokbench.measure.shared_blocks import SharedBlocks
from tokbench.outcomes import TOP, UNREADABLE, WRONG
from tokbench.vit.adapters import TimmViT
from tokbench.vit.backbone import DownsampledViT

# How an image comes out on the device: how many classes ranked before the right one, or one of these.
_NOT_AMONG_TOP, _NOT_FINITE = TOP, TOP + 1


@dataclass(frozen=True)
class Answers:
    """A model's answers to the images of a shard.

    Attributes:
        outcomes: One character per position; see `tokbench.outcomes`.
        comparison: With the plain model's answers; None where these were not asked for.
    """

    outcomes: str
    comparison: Comparison | None


Attempt = Callable[[str, range, Callable[[], Answers]], bool]
"""Gets a model's key, a shard, and what computes the model's answers there; says whether that worked."""


@dataclass(frozen=True)
class Progress:
    """How far a pass over the images is.

    Attributes:
        unreadable: Images of the shard that could not be decoded.
        count: How many of the wanted answers this settles.
    """

    unreadable: tuple[Unreadable, ...] = ()
    count: int = 0


def classify(
    models: Mapping[str, DownsampledViT],
    images: ImageSet,
    todo: Mapping[range, Sequence[str]],
    loading: Loading,
    attempt: Attempt,
    plain: Mapping[str, DownsampledViT] | None = None,
) -> Iterator[Progress]:
    """Classify an image set with several models, shard by shard.

    Args:
        models: By key, in evaluation mode on their device.
        images: The set.
        todo: For each shard, in order and without gaps, the keys of the models that are to classify it.
        loading: How images are decoded.
        attempt: Called with each model and shard. A model that fails is left out of the shards that follow.
        plain: By key, the plain model whose answers a model's are compared with, for those that are compared.

    Yields:
        The images of a shard that could not be read, before the shard's answers; and a count after each answer.

    Raises:
        UserError: The cache cannot be written.
    """
    every = list(todo)
    first = next((number for number, shard in enumerate(every) if todo[shard]), None)
    if first is None:
        return
    plain = plain or {}
    able, ids = dict(models), image_ids(images.names)
    positions = range(every[first].start, every[-1].stop)
    streams = open_streams(list(plain.values()), list(models.values()), images, positions, loading)
    with keep_freed_memory():
        for shard in every[first:]:
            keys = [key for key in todo[shard] if key in able]
            compared = {plain[key].vit: plain[key] for key in keys if key in plain}
            yield Progress(count=len(todo[shard]) - len(keys))  # of models that failed before
            predictions: dict[TimmViT, Predictions | Exception] = {}
            for stream in streams:
                # The plain models come first: what reads other images is compared with them.
                own = {key: able[key] for key in keys if stream.reads(able[key].vit)}
                groups = stream.open_shard(own, compared, ids)
                yield from (Progress(unreadable=lost) for lost in stream.decode(groups) if stream is streams[0])
                while groups:
                    shared, several = groups.pop(0)  # so that its memory is free for the next
                    vit = shared.vit
                    if vit in compared:
                        start = min([one.start for one in several.values()], default=0)
                        predictions[vit] = _predict_or_fail(compared[vit], shared, start)
                    for key, model in several.items():
                        found = predictions.get(vit) if model.downsampler is None else None
                        known = None if isinstance(found, Exception) else found
                        reference = predictions[plain[key].vit] if key in plain else None
                        work = partial(evaluate, model, shared, shard, images.classes, known, reference)
                        if not attempt(key, shard, work):
                            del able[key]
                        yield Progress(count=1)


def evaluate(
    model: DownsampledViT,
    shared: SharedBlocks,
    shard: range,
    classes: Sequence[int] | None,
    known: Predictions | None = None,
    plain: Predictions | Exception | None = None,
) -> Answers:
    """Classify a shard of an image set.

    Args:
        model: In evaluation mode; its ViT is the one of `shared`.
        shared: The shard's images.
        shard: The positions of the shard in the set.
        classes: Logits are restricted to these; None for all.
        known: What it predicts, where that is known already.
        plain: What the plain model predicts for the same images, to compare with, or why it predicts nothing; None for
            no comparison.

    Returns:
        Its answers.

    Raises:
        DownsamplerError: A logit is not a finite number, or the plain model's are not.
        Exception: The plain model's.
    """
    if isinstance(plain, Exception):
        raise plain
    device = model.vit.patch_embed.proj.weight.device
    # `ImageSet.classes` are some of ImageNet's
    fits = classes is not None and model.vit.num_classes == IMAGENET_CLASSES
    allowed = torch.tensor(classes, device=device) if fits else None
    ranks, differences = [], []
    for number, batch in _read(shared):
        found = known[number] if known else _predict_batch(model, shared, number, model.start)
        ranks.append(_rank(found.logits, batch.labels.to(device), allowed))
        if plain is not None:
            differences.append(difference(plain[number], found, allowed))
    outcomes = [UNREADABLE] * len(shard)
    # Only once the last batch is under way, because reading a result waits for a GPU.
    for (_, batch), rank in zip(_read(shared), ranks, strict=True):
        for position, place in zip(batch.index.tolist(), rank.tolist(), strict=True):
            if place == _NOT_FINITE:
                raise DownsamplerError("the logits are not finite (NaN or infinity)")
            outcomes[position - shard.start] = WRONG if place == _NOT_AMONG_TOP else str(place)
    positions = [position - shard.start for _, batch in _read(shared) for position in batch.index.tolist()]
    comparison = (
        None if plain is None else compare(differences, positions, len(shard), has_classes=bool(model.vit.num_classes))
    )
    if comparison is not None and not math.isfinite(comparison.cosine + (comparison.kl or 0.0)):
        raise DownsamplerError("the plain model's logits or features are not finite (NaN or infinity)")
    return Answers("".join(outcomes), comparison)


def predict(plain: DownsampledViT, shared: SharedBlocks, start: int) -> Predictions:
    """What a plain model predicts for a shard.

    Args:
        plain: In evaluation mode; its ViT is the one of `shared`.
        shared: The shard's images.
        start: The block from which on it runs by itself, so that `shared` can still serve what acts there.
    """
    return {number: _predict_batch(plain, shared, number, start) for number, _ in _read(shared)}


def _predict_or_fail(plain: DownsampledViT, shared: SharedBlocks, start: int) -> Predictions | Exception:
    """What a plain model predicts, or the error, which then is that of each row that is compared with it."""
    try:
        return predict(plain, shared, start)
    except Exception as error:
        return error


def _read(shared: SharedBlocks) -> list[tuple[int, Batch]]:
    """The batches that have images, with their numbers."""
    return [(number, batch) for number, batch in enumerate(shared.batches) if len(batch.index)]


def _predict_batch(model: DownsampledViT, shared: SharedBlocks, number: int, start: int) -> Prediction:
    """Predictions for a batch; without shared tokens where the device has no memory for both."""
    alive()
    try:
        return _run(model, shared, number, start)
    except torch.OutOfMemoryError:
        if not shared.stop_holding():
            raise
    return _run(model, shared, number, start)


@torch.inference_mode()
def _run(model: DownsampledViT, shared: SharedBlocks, number: int, start: int) -> Prediction:
    tokens = shared.tokens_at(start, number)
    left = model.through(tokens, range(start, len(model.vit.blocks)), shared.ids(number))
    return Prediction(model.classify(left), model.pool(left))


def _rank(logits: Tensor, labels: Tensor, allowed: Tensor | None) -> Tensor:
    """(B,) how many of the allowed classes ranked before the right one, from logits (B, classes)."""
    restricted = logits if allowed is None else logits[:, allowed]
    best = restricted.topk(min(TOP, restricted.shape[1])).indices
    hits = (best if allowed is None else allowed[best]) == labels[:, None]
    rank = torch.where(hits.any(dim=1), hits.int().argmax(dim=1), _NOT_AMONG_TOP)
    return torch.where(torch.isfinite(logits).all(dim=1), rank, _NOT_FINITE)
