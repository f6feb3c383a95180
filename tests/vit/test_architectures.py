"""Every architecture that timm lists for the supported families: the same logits to the bit, or refused with a reason.

Each is built with its own structure, but two narrow blocks and a few patches.
"""

import re
from functools import cache
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import tokbench
from tokbench import DownsampledViT
from tokbench.vit.adapters import ADAPTERS, adapter_of
from tokbench.vit.architectures import architectures
from tokbench.vit.attention import attend
from tokbench.vit.supported import UnsupportedModelError, check_supported

NAMES = [name for adapter in ADAPTERS for module in adapter.modules for name in timm.list_models(module=module)]
REFUSED = {  # by a part of the name: the reason
    r"_18x2_": "block 0 is ParallelThingsBlock",
    r"_xp_|_pwee_": "block 0 is ParallelScalingBlock",
    r"_dpwee_": "block 0 is DiffParallelScalingBlock",
    r"_dlittle_|_dwee_": "DiffAttention, which mixes tokens in another way",
}


@cache
def smallest(name: str) -> nn.Module:
    """An architecture with random weights, of which every parameter differs from its initial value."""
    patch = re.search(r"patch(\d+)", name)
    settings: dict[str, Any] = {"embed_dim": 96, "num_heads": 3, "depth": 2, "num_classes": 7}
    if "_18x2_" in name:
        settings.pop("depth")
    if "sapiens2" in name:
        settings["num_kv_heads"] = 1
    torch.manual_seed(0)
    vit = timm.create_model(name, img_size=4 * int(patch[1] if patch else 16), **settings).eval()
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return vit


def pixels(vit: nn.Module) -> Tensor:
    side = vit.patch_embed.img_size[0]
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))


def reason_of(name: str) -> str:
    return next((reason for part, reason in REFUSED.items() if re.search(part, name)), "")


@pytest.mark.parametrize("name", NAMES)
def test_an_architecture_is_run_to_the_bit_or_refused_with_the_reason(name: str):
    vit = smallest(name)
    if reason := reason_of(name):
        with pytest.raises(UnsupportedModelError, match=reason):
            check_supported(vit)
        return
    images = pixels(vit)
    with torch.inference_mode():
        assert torch.equal(DownsampledViT(vit)(images), vit(images))
        for method, params in (("tome", {}), ("score_pruning", {"score": "received"})):
            model = tokbench.reduce(vit, method, 0.5, schedule="stages(at=0-1)", **params).eval()
            logits = model(images)
            assert logits.shape == vit(images).shape
            assert logits.isfinite().all()
            assert model.counts == (8, 4)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", [name for name in NAMES if not reason_of(name)][::5])
def test_attention_that_is_taken_apart_gives_the_same_output(name: str, fused: bool):
    vit = smallest(name)
    adapter = adapter_of(vit)
    assert adapter is not None
    for block in vit.blocks:
        block.attn.fused_attn = fused
    with torch.inference_mode():
        tokens = adapter.embed(vit, pixels(vit))
        rotation = adapter.rotation(vit, tokens, "mean")
        for depth, block in enumerate(vit.blocks):
            rotary = None if rotation is None else rotation.rows(depth)
            x = adapter.attention_input(block, tokens.x)
            whole = adapter.attention(block, x, rotary)
            assert torch.equal(attend(block.attn, x, adapter.project(block.attn, x, rotary))[0], whole)


def test_the_list_of_architectures_says_which_are_supported():
    found = {one.name: one for one in architectures()}
    assert list(found) == NAMES
    assert {name for name, one in found.items() if one.refusal} == {name for name in NAMES if reason_of(name)}
    chosen = found["vit_small_patch16_rope_224"], found["eva02_tiny_patch14_336"], found["vit_base_patch16_siglip_224"]
    assert [(one.family, one.positions, one.pooling, one.classes) for one in chosen] == [
        ("Eva", "rotary", "class token", 1000),
        ("Eva", "absolute + rotary", "mean", 1000),
        ("VisionTransformer", "absolute", "attention", 0),
    ]
