"""Models whose predictors are so sure that the noise of training changes no decision."""

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tokbench import DownsampledViT, Downsampler, Schedule, Tokens

AT = (1, 2)
POOLINGS: list[dict[str, Any]] = [{}, {"global_pool": "avg"}, {"global_pool": "map", "class_token": False}]
MARGIN = 1e4  # a factor of the logits, which are then far from each other compared with Gumbel noise


def sure(vit: VisionTransformer, method: Downsampler, pixels: Tensor) -> DownsampledViT:
    """A model in float64 that keeps about half of the tokens at each of two depths, of some images."""
    torch.manual_seed(0)
    model = DownsampledViT(vit.double(), method, Schedule.stages(0.5, AT)).train()
    seen: list[Tensor] = []
    with torch.no_grad():
        DownsampledViT(vit)(pixels, observe=lambda _, tokens: seen.append(tokens.patches))
        for depth, predictor in zip(AT, method.predictors, strict=True):
            torch.nn.init.normal_(predictor.outer[4].weight, std=MARGIN)
            difference = predictor._logits(seen[depth - 1], None) @ torch.tensor([1.0, -1.0], dtype=torch.float64)
            predictor.outer[4].bias[1] += difference.median()
    return model


def trained_and_measured(model: DownsampledViT, other: Downsampler, image: Tensor) -> tuple[Tensor, Tensor, list[int]]:
    """The logits of one image in training, those of an evaluation that keeps as many tokens, and their numbers.

    Args:
        model: In training mode.
        other: A second method, for the evaluation.
        image: (C, H, W).
    """
    after: list[Tokens] = []
    trained = model(image[None], observe=lambda _, tokens: after.append(tokens))
    assert [tokens.n_patches for tokens in after] == [after[0].n_patches] * len(after)
    counts = [int(after[depth].presence.sum()) for depth in AT]
    measured = DownsampledViT(model.vit, other, Schedule.explicit(tuple(counts), AT))
    measured.load_state_dict(model.state_dict())
    left: list[int] = []
    logits = measured.eval()(image[None], observe=lambda _, tokens: left.append(tokens.n_patches))
    model.train()
    assert [left[depth] for depth in AT] == counts
    return trained, logits, counts
