"""Models that pool by attention: sizes count in the pooling query, and its attention takes the class token's place."""

from collections.abc import Callable

import pytest
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from toy_methods import Toy, images

from tokbench import DownsampledViT, Schedule, Tokens
from tokbench.errors import UserError

MakeViT = Callable[..., VisionTransformer]


def pooling(tiny_vit: MakeViT, kind: str) -> nn.Module:
    """A SigLIP-like model without prefix tokens, or one that also pools its class token and a register."""
    if kind == "patches":
        return tiny_vit(global_pool="map", class_token=False)
    torch.manual_seed(0)
    vit = Eva(img_size=32, patch_size=8, embed_dim=32, depth=4, num_heads=2, num_classes=10, global_pool="map")
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return vit.eval()


def logits_of_copies(vit: nn.Module, tokens: Tokens) -> Tensor:
    """The model's own head on tokens that stand once for each of their patches, image by image."""
    rows = []
    for x, size in zip(tokens.x, tokens.size.long(), strict=True):
        copies = torch.cat([torch.ones(tokens.n_prefix, dtype=torch.int64), size])
        rows.append(vit.forward_head(vit.norm(x.repeat_interleave(copies, dim=0)[None])))
    return torch.cat(rows)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", ["patches", "class token and patches"])
def test_a_proportional_method_pools_a_token_as_often_as_it_has_patches(tiny_vit: MakeViT, kind: str, fused: bool):
    vit = pooling(tiny_vit, kind)
    vit.attn_pool.fused_attn = fused
    model = DownsampledViT(vit, Toy("merge", proportional=True), Schedule.explicit((7, 3), (1, 2)))
    with torch.inference_mode():
        tokens = model.through(model.embed(images()), range(4), torch.arange(3))
        assert sorted(set(tokens.size[0].tolist())) != [1.0]
        assert torch.allclose(model.classify(tokens), logits_of_copies(vit, tokens), atol=1e-5)


def test_a_method_that_is_not_proportional_pools_each_token_once(tiny_vit: MakeViT):
    vit = pooling(tiny_vit, "patches")
    model = DownsampledViT(vit, Toy("merge"), Schedule.explicit((7, 3), (1, 2)))
    with torch.inference_mode():
        tokens = model.through(model.embed(images()), range(4), torch.arange(3))
        assert torch.allclose(model.classify(tokens), vit.forward_head(vit.norm(tokens.x)), atol=1e-6)


def test_padding_is_not_pooled(tiny_vit: MakeViT):
    vit = pooling(tiny_vit, "patches")
    model = DownsampledViT(vit, Toy("merge"), Schedule.explicit((7,), (1,)))
    x = torch.randn(2, 6, 32)
    sizes, owner = torch.ones(2, 6), torch.full((2, 16), -1)
    valid = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    with torch.inference_mode():
        logits = model.classify(Tokens(x, sizes, owner, (4, 4), valid=valid))
        for image, count in ((0, 6), (1, 4)):
            alone = vit.forward_head(vit.norm(x[image : image + 1, :count]))
            assert torch.allclose(logits[image : image + 1], alone, atol=1e-6)


def test_without_a_class_token_its_attention_is_that_of_the_pooling_query(tiny_vit: MakeViT):
    vit, method = pooling(tiny_vit, "patches"), Toy("merge", proportional=True, needs=("cls_attention",))
    model = DownsampledViT(vit, method, Schedule.explicit((7, 3), (1, 2)))
    with torch.no_grad():
        model(images())
    pool = vit.attn_pool.requires_grad_(False)
    vit.norm.requires_grad_(False)
    for context, tokens in zip(method.contexts, method.given, strict=True):
        for image in range(3):
            x = vit.norm(tokens.x[image])
            rows = []
            for head in range(2):
                part = slice(16 * head, 16 * head + 16)
                query = pool.q(pool.latent[0])[0, part]
                keys = (x @ pool.kv.weight[:32].T + pool.kv.bias[:32])[:, part]
                logits = torch.tensor([float(key @ query) / 4 for key in keys]) + tokens.size[image].log()
                rows.append(logits.exp() / logits.exp().sum())
            assert torch.allclose(context.cls_attention[image], sum(rows) / 2, atol=1e-5)


def test_a_model_with_neither_class_token_nor_attention_pooling_is_refused(tiny_vit: MakeViT):
    vit = tiny_vit(global_pool="avg", class_token=False)
    with pytest.raises(UserError, match="no class token and pools by the mean"):
        DownsampledViT(vit, Toy(needs=("cls_attention",)), Schedule.explicit((7,), (1,)))
