"""Models, combinations and results of methods that the downsampled ViT rejects."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from toy_methods import Toy, images

from tokbench import Context, DownsampledViT, Downsampler, Schedule, Tokens
from tokbench.context import UndeclaredFieldError
from tokbench.downsampler import DownsamplerError
from tokbench.errors import UserError
from tokbench.vit.supported import UnsupportedModelError, check_supported

MakeViT = Callable[..., VisionTransformer]


# Unsupported models


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("vit_base_patch16_xp_224", {}, "block 0 is ParallelScalingBlock"),
        ("resnet18", {}, "not a timm VisionTransformer or Eva"),
        ("beit_base_patch16_224", {}, "not a timm VisionTransformer or Eva"),
        ("vit_tiny_patch16_224", {"global_pool": "max"}, "its pooling is 'max'"),
        ("vit_tiny_patch16_224", {"global_pool": ""}, "its pooling is ''"),
        ("vit_tiny_patch16_224", {"patch_drop_rate": 0.3}, "drops random patches"),
        ("eva02_tiny_patch14_224", {"patch_drop_rate": 0.3}, "drops random patches"),
        ("vit_dlittle_patch16_reg1_gap_256", {}, "DiffAttention"),
        ("vit_tiny_r_s16_p8_224", {}, "HybridEmbed"),
    ],
)
def test_unsupported_models_are_rejected_with_the_reason(name: str, changes: dict[str, Any], reason: str):
    with torch.device("meta"):  # the structure alone decides
        model = timm.create_model(name, pretrained=False, **changes)
    for reject in (check_supported, DownsampledViT):
        with pytest.raises(UnsupportedModelError) as caught:
            reject(model)
        assert reason in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


# Invalid combinations


def refusal(*arguments, **named) -> str:
    with pytest.raises(UserError) as caught:
        DownsampledViT(*arguments, **named)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_invalid_combinations_are_rejected_in_one_line(tiny_vit: MakeViT):
    vit = tiny_vit()
    stages = Schedule.stages(0.5, (0, 2))
    assert "depth 0" in refusal(vit, Toy(needs=("keys",)), stages, site="before_block")
    assert "depth 4" in refusal(vit, Toy(), Schedule.stages(0.5, (4,)))
    assert "nowhere" in refusal(vit, Toy(), stages, site="nowhere")
    only = Toy()
    only.sites = ("after_block",)
    assert "after_block" in refusal(vit, only, stages, site="after_attention")
    without = tiny_vit(class_token=False, global_pool="avg")
    assert "class token" in refusal(without, Toy(needs=("cls_attention",)), stages)
    DownsampledViT(vit, Toy(), stages, site="before_block")  # depth 0 is allowed, since nothing is read


@pytest.mark.parametrize("given", [{"downsampler": Toy()}, {"schedule": Schedule.stages(0.5)}])
def test_method_and_schedule_must_be_given_together(tiny_vit: MakeViT, given: dict[str, Any]):
    with pytest.raises(ValueError, match="together"):
        DownsampledViT(tiny_vit(), **given)


def test_an_unknown_field_in_needs_is_an_error_of_the_method(tiny_vit: MakeViT):
    with pytest.raises(DownsamplerError, match=r"'queries'.*keys, keys_unrotated, values"):
        DownsampledViT(tiny_vit(), Toy(needs=("queries",)), Schedule.stages(0.5, (1,)))


# Methods that violate the interface


class Wrong(Downsampler):
    """Returns the given result."""

    def __init__(self, result: Callable[[Tokens, int], Any]) -> None:
        super().__init__()
        self.name = "wrongdoer"
        self.result = result

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        return self.result(tokens, keep)


def first(tokens: Tokens, count: int) -> Tokens:
    return tokens.select(torch.arange(count).expand(tokens.x.shape[0], count))


WRONGS: dict[str, Callable[[Tokens, int], Any]] = {
    "one token more": lambda tokens, keep: first(tokens, keep + 1),
    "one token less": lambda tokens, keep: first(tokens, keep - 1),
    "nothing removed": lambda tokens, keep: tokens,
    "another dtype": lambda tokens, keep: dataclasses.replace(first(tokens, keep), x=first(tokens, keep).x.double()),
    "nothing at all": lambda tokens, keep: None,
    "a tensor": lambda tokens, keep: first(tokens, keep).x,
    "a narrower x": lambda tokens, keep: dataclasses.replace(first(tokens, keep), x=first(tokens, keep).x[..., :-1]),
    "x without prefix": lambda tokens, keep: dataclasses.replace(first(tokens, keep), x=first(tokens, keep).patches),
    "fewer images": lambda tokens, keep: dataclasses.replace(first(tokens, keep), x=first(tokens, keep).x[:1]),
    "owners of fewer patches": lambda tokens, keep: dataclasses.replace(first(tokens, keep), owner=tokens.owner[:, 1:]),
    "sizes of one image": lambda tokens, keep: dataclasses.replace(first(tokens, keep), size=tokens.size[:1, :keep]),
    "sizes of another dtype": lambda tokens, keep: dataclasses.replace(
        first(tokens, keep), size=tokens.size[:, :keep].half()
    ),
    "owners of another dtype": lambda tokens, keep: dataclasses.replace(
        first(tokens, keep), owner=tokens.owner.float()
    ),
    "a mask of another shape": lambda tokens, keep: dataclasses.replace(
        first(tokens, keep), valid=torch.ones(3, keep + 1, dtype=torch.bool)
    ),
    "a mask, though not adaptive": lambda tokens, keep: dataclasses.replace(
        first(tokens, keep), valid=torch.arange(keep).expand(3, keep) < keep - 1
    ),
    "a layout that is not of that count": lambda tokens, keep: dataclasses.replace(first(tokens, keep), layout=(4, 4)),
}


@pytest.mark.parametrize("wrong", list(WRONGS))
def test_a_violation_names_method_and_depth(tiny_vit: MakeViT, wrong: str):
    model = DownsampledViT(tiny_vit(), Wrong(WRONGS[wrong]), Schedule.stages(0.5, (2,)))
    with torch.no_grad(), pytest.raises(DownsamplerError) as caught:
        model(images())
    assert re.search(r"wrongdoer at depth 2: \S", str(caught.value))


def test_an_undeclared_field_is_an_error_with_the_fix(tiny_vit: MakeViT):
    class Curious(Toy):
        def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
            return tokens.select(context.received.topk(keep).indices)

    model = DownsampledViT(tiny_vit(), Curious(needs=("keys",)), Schedule.stages(0.5, (2,)))
    with (
        torch.no_grad(),
        pytest.raises(UndeclaredFieldError, match=r"context\.received .*needs = frozenset\({'received'}\)"),
    ):
        model(images())
