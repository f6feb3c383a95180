"""What a method is given: the attention that ran, the last update, and noise that depends on the image."""

from collections.abc import Callable

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from toy_methods import FIELDS, SITES, Toy, close, images, run_plainly

from tokbench import DownsampledViT, Schedule, Tokens
from tokbench.context import UndeclaredFieldError

MakeViT = Callable[..., VisionTransformer]


# The context


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    "needs", [(field,) for field in FIELDS] + [FIELDS, ("cls_attention", "received")], ids="+".join
)
@pytest.mark.parametrize("site", SITES)
def test_the_context_holds_the_attention_that_ran(tiny_vit: MakeViT, site: str, needs: tuple[str, ...], fused: bool):
    vit, keeps = tiny_vit(reg_tokens=1, init_values=0.5), {1: 9, 2: 5, 3: 2}
    for block in vit.blocks:
        block.attn.fused_attn = fused
    method = Toy("merge", proportional=True, needs=needs)
    with torch.no_grad():
        logits = DownsampledViT(vit, method, Schedule.explicit((9, 5, 2), (1, 2, 3)), site=site)(images())
        plain = [run_plainly(vit, image, site, keeps, "merge", True) for image in images()]
    assert close(logits, torch.stack([one[0] for one in plain]))
    assert [(c.depth, c.depths, c.stage) for c in method.contexts] == [
        (1, (1, 2, 3), 0),
        (2, (1, 2, 3), 1),
        (3, (1, 2, 3), 2),
    ]
    for context, tokens in zip(method.contexts, method.given, strict=True):
        n = tokens.n_patches
        for b in range(3):
            seen = plain[b][1][context.depth - (site == "before_block")]
            heads, queries, _ = seen.matrix.shape
            assert queries == n + 2
            expected = {
                "keys": sum(seen.keys[h, 2:] for h in range(heads)) / heads,
                "values": seen.values[:, 2:],
                "attention": seen.matrix,
                "cls_attention": sum(seen.matrix[h, 0, 2:] for h in range(heads)) / heads,
                "received": sum(seen.matrix[h, q, 2:] for h in range(heads) for q in range(queries)),
                "update": seen.updates[site][2:],
            }
            for field in needs:
                assert close(getattr(context, field)[b], expected[field]), field
        for field in set(FIELDS) - set(needs):
            with pytest.raises(
                UndeclaredFieldError,
                match=f"context.{field} is not available.*frozenset.*{field}.*pass {field}=",
            ):
                getattr(context, field)
        assert context.noise.shape == (3, n)


class Calls(TorchFunctionMode):
    """Records the masks in the calls of fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[tuple[int, ...] | None] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention:
            mask = (kwargs or {}).get("attn_mask")
            self.masks.append(None if mask is None else tuple(mask.shape))
        return function(*args, **(kwargs or {}))


def fused_calls(model: nn.Module) -> list[tuple[int, ...] | None]:
    with torch.no_grad(), Calls() as calls:
        model(images())
    return calls.masks


def test_no_bias_is_added_while_all_sizes_are_one(tiny_vit: MakeViT):
    vit, at = tiny_vit(), Schedule.stages(0.5, (1, 2))
    assert fused_calls(vit) == [None] * 4  # the calls that timm makes
    assert fused_calls(DownsampledViT(vit, Toy("merge"), at)) == [None] * 4
    assert fused_calls(DownsampledViT(vit, Toy("merge", True), at)) == [None, None, (3, 1, 1, 9), (3, 1, 1, 5)]


def test_fused_attention_is_used_unless_the_matrix_is_needed(tiny_vit: MakeViT):
    vit, at = tiny_vit(), Schedule.stages(0.5, (1, 2))
    for field in ("keys", "values", "cls_attention", "received", "update"):
        model = DownsampledViT(vit, Toy(needs=(field,)), at)
        assert fused_calls(model) == [None] * 4
        assert model.attention_kernel == "fused"
    model = DownsampledViT(vit, Toy(needs=("attention",)), at)
    assert len(fused_calls(model)) == 2
    assert model.attention_kernel == "fused+eager"
    for block in vit.blocks:
        block.attn.fused_attn = False
    assert model.attention_kernel == "eager"


def test_the_kernel_is_eager_if_every_block_needs_the_matrix(tiny_vit: MakeViT):
    model = DownsampledViT(tiny_vit(), Toy(needs=("attention",)), Schedule.every_block(r=2))
    assert fused_calls(model) == []
    assert model.attention_kernel == "eager"


def test_the_kernel_is_fused_if_the_method_never_acts(tiny_vit: MakeViT):
    model = DownsampledViT(tiny_vit(), Toy(needs=("attention",)), Schedule.stages(1, (1,)))
    assert fused_calls(model) == [None] * 4
    assert model.attention_kernel == "fused"


@pytest.mark.parametrize("site", SITES)
def test_the_context_is_computed_only_where_the_method_acts(tiny_vit: MakeViT, site: str):
    model = DownsampledViT(tiny_vit(), Toy(needs=FIELDS), Schedule.explicit((9, 9, 4), (1, 2, 3)), site=site)
    computed: list[int] = []
    model.probe.register_forward_hook(lambda _, given, __: computed.append(given[0].q.shape[2]))
    assert len(fused_calls(model)) == 2
    assert computed == [17, 10]


@pytest.mark.parametrize("site", SITES)
def test_reading_the_update_changes_nothing(tiny_vit: MakeViT, site: str):
    vit, at = tiny_vit(init_values=0.5), Schedule.stages(0.5, (1, 2))
    with torch.no_grad():
        expected = DownsampledViT(vit, Toy(), at, site=site)(images())
        assert torch.equal(DownsampledViT(vit, Toy(needs=("update",)), at, site=site)(images()), expected)


@pytest.mark.parametrize("site", SITES)
def test_the_tokens_minus_the_update_are_those_before_the_layer(tiny_vit: MakeViT, site: str):
    vit, method = tiny_vit(init_values=0.5), Toy(needs=("update",))
    seen: list[Tensor] = []
    norm = vit.blocks[2].norm1 if site == "after_attention" else vit.blocks[2 - (site == "before_block")].norm2
    norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        DownsampledViT(vit, method, Schedule.stages(0.5, (2,)), site=site)(images())
    before = method.given[0].patches - method.contexts[0].update
    assert close(before, seen[0][:, 1:])


# Randomness depends on the image


def test_an_image_is_reduced_the_same_way_in_any_batch(tiny_vit: MakeViT):
    vit = tiny_vit()
    model = DownsampledViT(vit, Toy("noise"), Schedule.stages(0.5, (1, 2)), seed=3)
    ids = torch.tensor([40, 7, 12345678901, 3])

    def owners(x: Tensor, ids: Tensor | None, model: DownsampledViT = model) -> Tensor:
        seen: list[Tokens] = []
        with torch.no_grad():
            model(x, ids, observe=lambda _, tokens: seen.append(tokens))
        return seen[-1].owner

    x = images(4)
    together = owners(x, ids)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(owners(x[order], ids[order]), together[order])
    for b in range(4):
        assert torch.equal(owners(x[b : b + 1], ids[b : b + 1])[0], together[b])
    assert len({tuple(row) for row in together.tolist()}) == 4
    assert torch.equal(owners(x, None), owners(x, torch.arange(4)))
    other_seed = DownsampledViT(vit, Toy("noise"), Schedule.stages(0.5, (1, 2)), seed=4)
    assert not torch.equal(owners(x, ids, other_seed), together)
