"""What training minimises: cross entropy with the labels, distance from the teacher, and the method's own term."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tokbench.finetune.recipes import Recipe
from tokbench.token_groups import gather_rows
from tokbench.tokens import Tokens
from tokbench.vit.backbone import DownsampledViT

_PRESENT = 0.5  # of a presence that may lie between 0 and 1


def loss_of(
    model: DownsampledViT,
    teacher: DownsampledViT | None,
    images: Tensor,
    targets: Tensor,
    image_ids: Tensor,
    recipe: Recipe,
) -> Tensor:
    """The loss of a batch.

    Args:
        model: In training mode.
        teacher: The plain model before training, in evaluation mode; None where the recipe needs none.
        images: (B, C, H, W).
        targets: (B,) int64 classes, or (B, classes) probabilities of mixed images.
        image_ids: (B,) int64, for the method's noise.
        recipe: Says the weights of the terms.

    Returns:
        A scalar, float32.
    """
    after: dict[int, Tokens] = {}
    last = model.encode(images, image_ids, after.__setitem__)
    logits = model.classify(last).float()
    smoothing = recipe.smoothing if targets.ndim == 1 else 0.0  # mixed targets have it already
    loss = recipe.classify * F.cross_entropy(logits, targets, label_smoothing=smoothing)
    if recipe.distills:
        assert teacher is not None
        with torch.no_grad():
            taught = teacher.encode(images, image_ids)
            answers, theirs = teacher.classify(taught).float(), _final(teacher, taught)
        if recipe.distill:
            loss = loss + recipe.distill * divergence(logits, answers)
        if recipe.distill_tokens:
            loss = loss + recipe.distill_tokens * token_distance(_final(model, last), theirs, last)
    method = model.downsampler
    own = None if method is None else method.loss([after[depth] for depth in model.depths])
    return loss if own is None else loss + own.float()


def divergence(logits: Tensor, answers: Tensor) -> Tensor:
    """The Kullback-Leibler divergence of a model's answers from the teacher's, mean over images.

    Args:
        logits: (B, classes), of the model.
        answers: (B, classes), of the teacher.
    """
    log_p, log_q = (values.log_softmax(dim=1) for values in (logits, answers))
    return F.kl_div(log_p, log_q, reduction="batchmean", log_target=True)


def token_distance(x: Tensor, taught: Tensor, tokens: Tokens) -> Tensor:
    """The mean squared difference of the final patch tokens from those of the teacher, over all channels.

    A token is compared with the teacher's token of each image patch that it represents. Patches that were dropped, or
    whose token is not present, do not count.

    Args:
        x: (B, P+N, D), the model's final tokens, normalised.
        taught: (B, P+N0, D), the teacher's.
        tokens: What the model's tokens represent.
    """
    owner = tokens.owner.clamp_min(0)
    counted = tokens.owner >= 0
    if tokens.presence is not None:
        counted = counted & (tokens.presence.gather(1, owner) > _PRESENT)
    own = gather_rows(x[:, tokens.n_prefix :], owner)
    theirs = taught[:, tokens.n_prefix :]
    each = (own.float() - theirs.float()).square().mean(dim=2)
    return (each * counted).sum() / counted.sum().clamp_min(1)


def _final(model: DownsampledViT, tokens: Tokens) -> Tensor:
    x: Tensor = model.vit.norm(tokens.x)
    return x
