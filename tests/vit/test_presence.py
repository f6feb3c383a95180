"""Training with all tokens in place: absent tokens have no influence, and their presence has a gradient."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.eva import Eva
from torch import Tensor, nn
from toy_methods import images

from tokbench import Context, DownsampledViT, Downsampler, Schedule, Tokens
from tokbench.downsampler import DownsamplerError
from tokbench.vit.presence import present_softmax, seen_by_itself

MakeViT = Callable[..., Any]
AT = (1, 2)


class Halved(Downsampler):
    """Keeps the tokens with the largest first channel, and drops the others or merges each into the largest."""

    name = "halved"

    def __init__(self, merge: bool = False, proportional: bool = False) -> None:
        super().__init__()
        self.merge, self.proportional = merge, proportional
        self.keeps: list[int] = []

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        self.keeps.append(keep)
        order = tokens.patches[..., 0].argsort(dim=1, descending=True)
        kept = order[:, :keep].sort(dim=1).values
        if not self.merge:
            return tokens.select(kept)
        place = torch.arange(keep).expand_as(kept)
        host = torch.full_like(order, 0).scatter(1, kept, place).gather(1, order[:, :1]).expand_as(order)
        return tokens.merge(host.scatter(1, kept, place), keep)

    def relaxed(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        self.keeps.append(keep)
        before = torch.ones_like(tokens.size) if tokens.presence is None else tokens.presence
        value = tokens.patches[..., 0].masked_fill(before == 0, -torch.inf)
        order = value.argsort(dim=1, descending=True)
        presence = torch.zeros_like(before).scatter(1, order[:, :keep], 1)
        own = torch.arange(tokens.n_patches).expand_as(order)
        if not self.merge:
            return tokens.stay(own.masked_fill(presence == 0, -1), presence)
        owner = torch.where(presence > 0, own, order[:, :1]).masked_fill(before == 0, -1)
        means = tokens.merge(owner, tokens.n_patches).patches
        patches = torch.where(presence[..., None] > 0, means, tokens.patches)
        return tokens.stay(owner, presence).replace(patches=patches)


def rotary_vit(shake: Callable[..., nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    settings = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 4, "num_heads": 2, "num_classes": 10}
    return shake(Eva(**settings, global_pool="token", use_abs_pos_emb=False, use_rot_pos_emb=True), 0.2)


def trained_and_measured(vit: nn.Module, method: Downsampler, **options: Any) -> tuple[Tensor, Tensor]:
    """The logits in training mode, and in evaluation mode, in float64."""
    model = DownsampledViT(vit.double(), method, Schedule.stages(0.5, AT), **options)
    pixels = images().double()
    with torch.no_grad():
        return model.train()(pixels), model.eval()(pixels)


POOLINGS = [{}, {"global_pool": "avg"}, {"global_pool": "map", "class_token": False}, {"reg_tokens": 3}]


@pytest.mark.parametrize("settings", POOLINGS, ids=str)
@pytest.mark.parametrize("site", ["before_block", "after_attention", "after_block"])
@pytest.mark.parametrize("merge", [False, True])
def test_absent_tokens_have_no_influence(settings: dict[str, Any], site: str, merge: bool, tiny_vit: MakeViT):
    method = Halved(merge, proportional=merge)
    trained, measured = trained_and_measured(tiny_vit(**settings), method, site=site)
    torch.testing.assert_close(trained, measured, rtol=1e-10, atol=1e-10)
    assert method.keeps == [8, 4, 8, 4]  # all 16 tokens are there in training, but the plan is the same


@pytest.mark.parametrize("position", ["mean", "destination", "rotation", "none"])
@pytest.mark.parametrize("merge", [False, True])
def test_rotary_positions_are_those_of_the_merged_tokens(merge: bool, position: Any, shake: Callable[..., nn.Module]):
    trained, measured = trained_and_measured(rotary_vit(shake), Halved(merge), position=position)
    torch.testing.assert_close(trained, measured, rtol=1e-10, atol=1e-10)


def test_by_default_training_removes_tokens_as_evaluation_does(tiny_vit: MakeViT):
    class Plain(Halved):
        relaxed = Downsampler.relaxed

    counts: list[int] = []
    model = DownsampledViT(tiny_vit(), Plain(), Schedule.stages(0.5, AT)).train()
    model(images(), observe=lambda _, tokens: counts.append(tokens.n_patches))
    assert counts == [16, 8, 4, 4]


# The attention


def plain_softmax(logits: list[float], weights: list[float]) -> list[float]:
    parts = [weight * math.exp(logit) for logit, weight in zip(logits, weights, strict=True)]
    return [part / sum(parts) for part in parts]


def random_logits(seed: int, *shape: int) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_softmax_is_that_of_the_formula():
    logits = random_logits(0, 2, 3, 5, 5)
    presence = torch.tensor([[1.0, 0.0, 0.3, 1.0, 1e-12], [1.0, 0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    attention = present_softmax(logits, seen_by_itself(presence[:, None, None]))
    for b in range(2):
        for h in range(3):
            for i in range(5):
                weights = [1.0 if i == j else float(presence[b, j]) for j in range(5)]
                expected = plain_softmax(logits[b, h, i].tolist(), weights)
                assert attention[b, h, i].tolist() == pytest.approx(expected, rel=1e-12, abs=0)


def test_the_gradient_is_that_of_finite_differences_also_for_absent_keys():
    logits = random_logits(1, 1, 2, 4, 4).requires_grad_()
    present = torch.tensor([[[[1.0, 0.4, 0.8, 0.1]]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, p: present_softmax(a, seen_by_itself(p)), (logits, present))

    absent = torch.tensor([[[[1.0, 0.0, 0.8, 0.0]]]], dtype=torch.float64, requires_grad=True)
    target = random_logits(2, 1, 2, 4, 4)

    def loss(presence: Tensor) -> Tensor:
        return (present_softmax(logits.detach(), seen_by_itself(presence)) * target).sum()

    (gradient,) = torch.autograd.grad(loss(absent), absent)
    for key in (1, 3):
        step = torch.zeros_like(absent)
        step[..., key] = 1e-7
        assert gradient[..., key].item() == pytest.approx(
            ((loss(absent + step) - loss(absent)) / 1e-7).item(), rel=1e-4
        )
        assert gradient[..., key] != 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_extreme_logits_give_finite_values_and_gradients(dtype: torch.dtype):
    logits = torch.tensor([[[[0.0, 6e4, -6e4, 5.0]] * 4]], dtype=dtype, requires_grad=True)
    for values in ([1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1e-30, 0.0], [1e-30, 0.0, 1e-38, 0.5]):
        presence = torch.tensor([[[values]]], requires_grad=True)
        attention = present_softmax(logits, seen_by_itself(presence))
        assert attention.dtype == torch.float32
        torch.testing.assert_close(attention.sum(dim=3), torch.ones(1, 1, 4))
        gradients = torch.autograd.grad((attention * torch.arange(4.0)).sum(), (logits, presence))
        assert all(gradient.isfinite().all() for gradient in gradients)


# The contract


def run(vit: nn.Module, method: Downsampler, *, training: bool = True) -> None:
    DownsampledViT(vit, method, Schedule.stages(0.5, AT)).train(training)(images())


def test_a_method_that_loses_the_presence_is_an_error(tiny_vit: MakeViT):
    class Forgetful(Halved):
        def relaxed(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
            after = super().relaxed(tokens, keep, context)
            return after if tokens.presence is None else dataclasses.replace(after, presence=None)

    with pytest.raises(DownsamplerError, match="presence is lost"):
        run(tiny_vit(), Forgetful())


def test_presence_comes_with_all_tokens(tiny_vit: MakeViT):
    class Both(Halved):
        def relaxed(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
            after = self(tokens, keep, context)
            return dataclasses.replace(after, presence=torch.ones_like(after.size))

    with pytest.raises(DownsamplerError, match="expected all of them"):
        run(tiny_vit(), Both())


def test_evaluation_removes_tokens(tiny_vit: MakeViT):
    class Masked(Halved):
        forward = Halved.relaxed

    with pytest.raises(DownsamplerError, match="for training only"):
        run(tiny_vit(), Masked(), training=False)


def test_presence_has_one_number_for_each_token(tiny_vit: MakeViT):
    class Wrong(Halved):
        def relaxed(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
            return dataclasses.replace(tokens, presence=torch.ones(3, 17))

    with pytest.raises(DownsamplerError, match="presence is"):
        run(tiny_vit(), Wrong())
