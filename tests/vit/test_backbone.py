"""The downsampled ViT against timm, bit for bit, and against a simple reference forward pass, image by image."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from toy_methods import FIELDS, SITES, Toy, images

from tokbench import DownsampledViT, Schedule

MakeViT = Callable[..., VisionTransformer]


REAL: list[tuple[str, dict[str, Any]]] = [
    ("deit_tiny_patch16_224", {}),
    ("deit_small_patch16_224", {}),
    ("deit_base_patch16_224", {}),
    ("deit_tiny_distilled_patch16_224", {}),
    ("deit3_small_patch16_224", {}),
    ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", {}),
    ("vit_small_patch14_reg4_dinov2", {"img_size": 112, "num_classes": 10}),
    ("vit_base_patch32_clip_224", {}),
    ("vit_tiny_patch16_224", {"global_pool": "avg"}),
    ("vit_wee_patch16_reg1_gap_256", {}),
]


# Eager attention is the same code for all models, so the tiny ones are enough.
BOTH_KERNELS = [(*one, True) for one in REAL] + [(*one, False) for one in REAL if "tiny" in one[0]]


@pytest.mark.parametrize(("name", "changes", "fused"), BOTH_KERNELS, ids=lambda value: str(value or ""))
def test_the_plain_models_logits_are_bit_identical_to_timm(name: str, changes: dict[str, Any], fused: bool, shake):
    torch.manual_seed(0)
    vit = shake(timm.create_model(name, pretrained=False, **changes))
    for block in vit.blocks:
        block.attn.fused_attn = fused
    x = images(1 if "base" in name else 2, vit.patch_embed.img_size[0])
    with torch.no_grad():
        expected = vit(x)
        assert torch.equal(DownsampledViT(vit)(x), expected)
        idle = Toy("merge", proportional=True, needs=FIELDS if vit.cls_token is not None else ("received",))
        assert torch.equal(DownsampledViT(vit, idle, Schedule.stages(1))(x), expected)
    assert idle.contexts == []
    assert expected.std() > 0.01  # the model is not degenerate


@pytest.mark.parametrize("site", SITES)
def test_a_method_is_not_called_if_there_is_nothing_to_remove(tiny_vit: MakeViT, site: str):
    vit, method = tiny_vit(), Toy("select")
    model = DownsampledViT(vit, method, Schedule.explicit((16, 99, 9), (1, 2, 3)), site=site)
    with torch.no_grad():
        model(images())
    assert method.keeps == [9]
    assert [context.depth for context in method.contexts] == [3]


def test_the_model_is_shared_and_not_changed(tiny_vit: MakeViT):
    vit = tiny_vit()
    before = {name: value.clone() for name, value in vit.state_dict().items()}
    classes = [type(module) for module in vit.modules()]
    with torch.no_grad():
        expected = vit(images())
        model = DownsampledViT(vit, Toy("merge", True, FIELDS), Schedule.stages(0.5, (1, 2)))
        model(images())
        assert model.vit is vit
        assert torch.equal(vit(images()), expected)
    assert all(torch.equal(value, before[name]) for name, value in vit.state_dict().items())
    assert [type(module) for module in vit.modules()] == classes
