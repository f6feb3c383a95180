"""EViT's own checkpoints, against its description in plain tensor code."""

import math
from pathlib import Path

import pytest
import torch
from made_checkpoints import HEADS, PATCHES, images, random_vit, saved
from recognised_models import logits, model_of, recognised
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tokbench.errors import UserError

ARGS = {"model": "deit_small_patch16_shrink_base", "base_keep_rate": 0.7, "drop_loc": "(1, 3)", "fuse_token": True}


def reorganised(vit: VisionTransformer, image: Tensor, rate: float, at: tuple[int, ...], fuse: bool) -> Tensor:
    """Logits of one image: in the blocks `at`, the attentive tokens are kept, and the others fused or dropped."""
    x = vit.patch_embed(image[None])
    x = torch.cat([vit.cls_token, x], dim=1) + vit.pos_embed
    for depth, block in enumerate(vit.blocks):
        n, width = x.shape[1], x.shape[2]
        parts = block.attn.qkv(block.norm1(x)).reshape(n, 3, HEADS, width // HEADS).permute(1, 2, 0, 3)
        attention = (parts[0] @ parts[1].mT / math.sqrt(width // HEADS)).softmax(dim=-1)
        x = x + block.attn.proj((attention @ parts[2]).transpose(0, 1).reshape(1, n, width))
        if depth in at:
            a = attention[:, 0, 1:].mean(dim=0)
            ranking = a.argsort(descending=True)
            kept, others = ranking[: math.ceil(rate * (n - 1))], ranking[math.ceil(rate * (n - 1)) :]
            tokens = [x[:, :1], x[:, 1 + kept]]
            if fuse:
                tokens.append((a[others, None] * x[0, 1 + others]).sum(dim=0)[None, None])
            x = torch.cat(tokens, dim=1)
        x = x + block.mlp(block.norm2(x))
    return vit.head(vit.norm(x)[:, 0])


@pytest.mark.parametrize(("fuse", "counts"), [(True, "12-10"), (False, "12-9")])
def test_the_logits_agree_with_the_description(tmp_path: Path, fuse: bool, counts: str):
    vit = random_vit()
    trained = recognised(saved(tmp_path, vit.state_dict(), **{**ARGS, "fuse_token": fuse}))
    assert trained.method == ("evit" if fuse else "score_pruning")
    assert trained.schedule == f"explicit(counts={counts},at=1-3)"
    with torch.no_grad():
        wanted = torch.cat([reorganised(vit, image, 0.7, (1, 3), fuse) for image in images()])
    torch.testing.assert_close(logits(model_of(trained), images()), wanted, atol=1e-4, rtol=0)
    assert (logits(model_of(trained), images()) - vit(images())).abs().max() > 1e-2  # tokens were removed


def test_a_rate_of_one_removes_nothing(tmp_path: Path):
    vit = random_vit()
    trained = recognised(saved(tmp_path, vit.state_dict(), **{**ARGS, "base_keep_rate": 1.0}))
    assert trained.schedule == f"explicit(counts={PATCHES}-{PATCHES},at=1-3)"
    with torch.no_grad():
        torch.testing.assert_close(logits(model_of(trained), images()), vit(images()))


@pytest.mark.parametrize("written", ["3; import os", "(3, 'x')", "__import__('os')", "()", "3"])
def test_depths_that_are_no_block_numbers_are_refused(tmp_path: Path, written: str):
    with pytest.raises(UserError, match="not block numbers"):
        recognised(saved(tmp_path, random_vit().state_dict(), **{**ARGS, "drop_loc": written}))
