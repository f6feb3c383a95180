"""Accuracy: what a model says of each image, kept image by image."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from tokbench.backbone import DownsampledViT
from tokbench.data.loading import Batch
from tokbench.downsampler import DownsamplerError

TOP = 5
WRONG = "-"  # not among the first five
UNREADABLE = "?"


def image_ids(names: Sequence[str]) -> Tensor:
    """(len(names),) int64: an identity of each image that depends on its name alone, for `Context.noise`."""
    hashes = (hashlib.sha256(name.encode()).digest()[:8] for name in names)
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in hashes], dtype=torch.int64)


def evaluate(
    model: DownsampledViT,
    batches: Sequence[Batch],
    ids: Tensor,
    span: range,
    classes: Sequence[int] | None,
) -> str:
    """Classify a stretch of an image set.

    Args:
        model: In evaluation mode.
        batches: The stretch's images.
        ids: (images of the whole set,) int64, each image's identity.
        span: The positions of the stretch in the set.
        classes: Logits are restricted to these; None for all.

    Returns:
        One character a position: `0` to `4`, how many classes came before the right one; `-` where five or more did;
        `?` where the image could not be read.

    Raises:
        DownsamplerError: A logit is not a finite number.
    """
    weight = model.vit.patch_embed.proj.weight
    allowed = None if classes is None else torch.tensor(classes, device=weight.device)
    outcomes = [UNREADABLE] * len(span)
    for batch in batches:
        if len(batch.index) == 0:
            continue
        with torch.inference_mode():
            logits = model(batch.images.to(weight), ids[batch.index].to(weight.device))
        if not torch.isfinite(logits).all():
            raise DownsamplerError("the logits are not finite (NaN or infinity)")
        if allowed is None:
            best = logits.topk(min(TOP, logits.shape[1])).indices
        else:
            best = allowed[logits[:, allowed].topk(TOP).indices]
        hits = (best.cpu() == batch.labels[:, None]).int()
        for position, hit in zip(batch.index.tolist(), hits, strict=True):
            outcomes[position - span.start] = str(int(hit.argmax())) if hit.any() else WRONG
    return "".join(outcomes)
