"""The reduced forward pass against a simple reference, image by image."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from toy_methods import FIELDS, SITES, Toy, close, images, run_plainly

from tokbench import DownsampledViT, Geometry, Schedule, Tokens

MakeViT = Callable[..., VisionTransformer]


# The reduced forward pass


@pytest.mark.parametrize("proportional", [False, True])
@pytest.mark.parametrize("kind", ["select", "merge"])
@pytest.mark.parametrize("site", SITES)
def test_the_reduced_logits_equal_the_reference(tiny_vit: MakeViT, site: str, kind: str, proportional: bool):
    vit, keeps = tiny_vit(), {0: 11, 1: 7, 3: 3}
    model = DownsampledViT(
        vit, Toy(kind, proportional), Schedule.explicit(tuple(keeps.values()), tuple(keeps)), site=site
    )
    with torch.no_grad():
        logits = model(images())
        expected = [run_plainly(vit, image, site, keeps, kind, proportional)[0] for image in images()]
        other = [run_plainly(vit, image, site, {}, kind, proportional)[0] for image in images()]
    assert close(logits, torch.stack(expected))
    assert not close(logits, torch.stack(other))


VARIANTS: list[dict[str, Any]] = [
    {"qk_norm": True},
    {"qkv_bias": False},
    {"init_values": 1e-5},
    {"reg_tokens": 3},
    {"reg_tokens": 2, "class_token": False, "global_pool": "avg"},
    {"global_pool": "avg"},
    {"global_pool": "avg", "pool_include_prefix": True},
    {"class_token": False, "global_pool": "avg"},
    {"global_pool": "token", "fc_norm": True},
    {"pre_norm": True},
    {"scale_attn_norm": True},
    {"scale_mlp_norm": True},
    {"no_embed_class": True},
]


@pytest.mark.parametrize("kind", ["select", "merge"])
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_the_reduced_logits_equal_the_reference_for_other_models(tiny_vit: MakeViT, changes: dict[str, Any], kind: str):
    vit, keeps = tiny_vit(**changes), {1: 7, 2: 3}
    for fused in (True, False):
        for block in vit.blocks:
            block.attn.fused_attn = fused
        model = DownsampledViT(vit, Toy(kind, True), Schedule.explicit((7, 3), (1, 2)))
        with torch.no_grad():
            expected = [run_plainly(vit, image, "after_attention", keeps, kind, True)[0] for image in images()]
            assert close(model(images()), torch.stack(expected))


def test_the_mlp_receives_only_the_remaining_tokens(tiny_vit: MakeViT):
    vit = tiny_vit(reg_tokens=2)
    for site, attention, mlp in (
        ("before_block", [16, 8, 4, 4], [16, 8, 4, 4]),
        ("after_attention", [16, 16, 8, 4], [16, 8, 4, 4]),
        ("after_block", [16, 16, 8, 4], [16, 16, 8, 4]),
    ):
        seen: dict[str, list[int]] = {"qkv": [], "mlp": []}
        hooks = [
            module.register_forward_hook(lambda _, given, __, into=seen[name]: into.append(given[0].shape[1] - 3))
            for block in vit.blocks
            for name, module in (("qkv", block.attn.qkv), ("mlp", block.mlp))
        ]
        leaving: list[tuple[int, int]] = []
        with torch.no_grad():
            DownsampledViT(vit, Toy(), Schedule.stages(0.5, (1, 2)), site=site)(
                images(), observe=lambda depth, tokens, into=leaving: into.append((depth, tokens.n_patches))
            )
        for hook in hooks:
            hook.remove()
        assert seen == {"qkv": attention, "mlp": mlp}
        assert leaving == [(0, 16), (1, 8), (2, 4), (3, 4)]


def test_setup_receives_the_model_and_the_plan(tiny_vit: MakeViT):
    method = Toy()
    DownsampledViT(tiny_vit(), method, Schedule.stages(0.5, (1, 2)))
    assert method.geometries == [
        Geometry(dim=32, heads=2, depths=(1, 2), grid=(4, 4), counts=(8, 4), targets=(8, 4), blocks=4)
    ]


def test_a_rectangular_image_keeps_its_grid(tiny_vit: MakeViT):
    vit, method = tiny_vit(img_size=(16, 32)), Toy()
    with torch.no_grad():
        DownsampledViT(vit, method, Schedule.stages(0.5, (1,)))(images()[:, :, :16])
    assert method.given[0].grid == method.given[0].layout == (2, 4)


def test_observed_tokens_record_where_each_patch_is(tiny_vit: MakeViT):
    seen: list[Tokens] = []
    with torch.no_grad():
        DownsampledViT(tiny_vit(), Toy("merge"), Schedule.stages(0.5, (1, 2)))(
            images(), observe=lambda _, tokens: seen.append(tokens)
        )
    assert [tokens.owner[0].tolist() for tokens in seen[1:3]] == [
        [i // 2 for i in range(16)],
        [i // 4 for i in range(16)],
    ]
    assert seen[-1].size.tolist() == [[4.0] * 4] * 3


# Precision and training


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["select", "merge"])
def test_half_precision_is_close_to_float32(tiny_vit: MakeViT, dtype: torch.dtype, kind: str):
    x = images()
    schedule = Schedule.stages(0.5, (1, 2))
    with torch.no_grad():
        exact = DownsampledViT(tiny_vit(std=0.05), Toy("merge", True, FIELDS), schedule)(x)
        method = Toy(kind, proportional=True, needs=FIELDS)
        logits = DownsampledViT(tiny_vit(std=0.05).to(dtype), method, schedule)(x.to(dtype))
    assert logits.dtype == dtype
    assert logits.isfinite().all()
    for context in method.contexts:
        assert all(getattr(context, field).isfinite().all() for field in FIELDS)
    if kind == "merge":
        assert (logits - exact).abs().max() < 40 * torch.finfo(dtype).eps * exact.abs().max()


def test_gradients_reach_the_pixels_and_every_parameter(tiny_vit: MakeViT):
    vit = tiny_vit()
    x = images().requires_grad_()
    DownsampledViT(vit, Toy("merge", True, FIELDS), Schedule.stages(0.5, (1, 2)))(x).square().sum().backward()
    assert x.grad.isfinite().all()
    assert (x.grad != 0).flatten(1).any(dim=1).all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vit.parameters())


def test_training_and_evaluation_mode_follow_the_model(tiny_vit: MakeViT):
    vit = tiny_vit().train()
    method = Toy()
    assert DownsampledViT(vit, method, Schedule.stages(0.5, (1,))).training
    assert method.training
    assert not DownsampledViT(vit.eval(), method, Schedule.stages(0.5, (1,))).training
    assert not method.training
