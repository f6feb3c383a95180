"""Mixed precision: the model runs as inside torch.autocast, at every call."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

import tokbench
from tokbench.embedded.images import image_set
from tokbench.measure.precision import AUTOCAST, DTYPES, mixed_precision
from tokbench.measure.sample_images import decoded
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.models import load_model

CPU = torch.device("cpu")


@pytest.mark.parametrize("dtype", ["amp-bf16", "amp-fp16"])
def test_logits_are_those_of_autocast(dtype: str, tiny_vit: Callable[..., VisionTransformer]) -> None:
    vit = tiny_vit()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        with torch.autocast("cpu", AUTOCAST[dtype]):  # type: ignore[index]
            expected = vit(images)
        with mixed_precision(dtype, CPU):  # type: ignore[arg-type]
            found = [DownsampledViT(vit)(images) for _ in range(2)]
    assert expected.dtype == AUTOCAST[dtype]  # type: ignore[index]
    assert all(torch.equal(logits, expected) for logits in found)


def test_other_types_are_left_alone(tiny_vit: Callable[..., VisionTransformer]) -> None:
    with mixed_precision("fp32", CPU):
        assert not torch.is_autocast_enabled("cpu")
        assert tiny_vit()(torch.zeros(1, 3, 32, 32)).dtype == torch.float32
    assert set(DTYPES) - set(AUTOCAST) == {"fp32", "bf16", "fp16"}


def test_a_comparison_answers_as_autocast_does() -> None:
    limit = 60
    table = tokbench.compare(
        models="digits_deit",
        methods="none",
        baselines="none",
        dtype="amp-bf16",
        limit=limit,
        only="accuracy",
        progress=False,
    )
    vit = load_model("digits_deit").vit
    right = 0
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        for batch in decoded(vit, image_set().head(limit)):
            right += int((vit(batch.images).argmax(dim=1) == batch.labels).sum())
    assert table["top1"].item() == pytest.approx(100 * right / limit)
    assert table["dtype"].item() == "amp-bf16"
