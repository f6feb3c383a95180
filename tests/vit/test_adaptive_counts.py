"""Counts that differ between images: padding changes nothing."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from toy_methods import SITES, Toy, close, images

from tokbench import Context, DownsampledViT, Schedule, Tokens

MakeViT = Callable[..., VisionTransformer]
N0, P = 16, 1  # of the tiny ViT


class Adaptive(Toy):
    """Keeps an image's tokens whose first channel is above the image's mean, or above a threshold.

    At least one stays; at most `keep` where that is the `bound`.
    """

    adaptive = True

    def __init__(self, kind: str = "select", threshold: float | None = None, bound: bool = False, **more: Any) -> None:
        super().__init__(kind, **more)
        self.threshold, self.bound = threshold, bound

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        self.given.append(tokens)
        self.contexts.append(context)
        score = context.received if self.needs else tokens.patches[..., 0]
        valid = torch.ones_like(tokens.size, dtype=torch.bool) if tokens.valid is None else tokens.valid
        threshold = self.threshold
        if threshold is None:
            threshold = (score * valid).sum(dim=1, keepdim=True) / valid.sum(dim=1, keepdim=True)
        score = score.masked_fill(~valid, -torch.inf)
        order = score.argsort(dim=1, descending=True)
        rank = order.argsort(dim=1)
        stays = ((score > threshold) & valid) | (rank == 0)
        if self.bound:
            stays &= rank < keep
        if self.kind == "mask":  # the model does all of the trimming
            return dataclasses.replace(tokens, valid=stays)
        if self.kind == "merge":  # the others are merged into the best token
            place = stays.cumsum(dim=1) - 1
            best = place.gather(1, order[:, :1])
            return dataclasses.replace(
                tokens.merge(torch.where(stays, place, best), int(stays.sum(dim=1).max())),
                valid=torch.arange(int(stays.sum(dim=1).max())) < stays.sum(dim=1, keepdim=True),
            )
        index = stays.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, : int(stays.sum(dim=1).max())]
        return dataclasses.replace(tokens.select(index), valid=stays.gather(1, index))


def together_and_alone(model: DownsampledViT, x: Tensor) -> tuple[list[Tokens], list[list[Tokens]]]:
    """The tokens after each block, in one batch and image by image; asserts that the logits agree."""
    together: list[Tokens] = []
    alone: list[list[Tokens]] = [[] for _ in x]
    with torch.no_grad():
        logits = model(x, observe=lambda _, tokens: together.append(tokens))
        for b, image in enumerate(x):
            one = model(image[None], torch.tensor([b]), observe=lambda _, tokens, into=alone[b]: into.append(tokens))
            assert close(one[0], logits[b])
    return together, alone


@pytest.mark.parametrize("pool", ["token", "avg"])
@pytest.mark.parametrize("kind", ["select", "merge"])
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("proportional", [False, True])
def test_an_image_has_the_same_logits_alone_and_in_a_batch(
    tiny_vit: MakeViT, kind: str, site: str, proportional: bool, pool: str
):
    model = DownsampledViT(
        tiny_vit(global_pool=pool),
        Adaptive(kind, proportional=proportional),
        Schedule.explicit((2, 1), (1, 2)),
        site=site,
    )
    together, alone = together_and_alone(model, images(4))
    for depth, tokens in enumerate(together):
        counts = [one[depth].n_patches for one in alone]
        assert tokens.n_patches == max(counts)  # trimmed to the longest
        if depth >= 1:
            assert min(counts) < max(counts)
            assert tokens.valid.sum(dim=1).tolist() == counts
        assert all(one[depth].valid is None for one in alone)


def test_padding_owns_no_patches(tiny_vit: MakeViT):
    model = DownsampledViT(tiny_vit(), Adaptive("select"), Schedule.explicit((2, 1), (1, 2)))
    together, alone = together_and_alone(model, images(4))
    for depth, tokens in enumerate(together):
        for b in range(4):
            assert tokens.owner[b].tolist() == alone[b][depth].owner[0].tolist()
            assert tokens.size[b].sum() == alone[b][depth].size.sum()  # padding has size 0


def test_a_method_may_leave_all_trimming_to_the_model(tiny_vit: MakeViT):
    model = DownsampledViT(tiny_vit(), Adaptive("mask"), Schedule.explicit((2, 1), (1, 2)))
    together, alone = together_and_alone(model, images(4))
    assert [tokens.n_patches for tokens in together] == [max(one[d].n_patches for one in alone) for d in range(4)]
    assert together[1].n_patches < N0


def test_padding_sends_no_attention(tiny_vit: MakeViT):
    # At the second reduction the batch has padding, whose queries must not count in `received`.
    method = Adaptive("select", needs=("received",))
    model = DownsampledViT(tiny_vit(), method, Schedule.explicit((2, 1), (1, 3)))
    x = images(4)
    with torch.no_grad():
        model(x)
        together, tokens = method.contexts[-1].received, method.given[-1]
        assert not tokens.valid.all()
        for b in range(4):
            model(x[b : b + 1])
            assert close(together[b, tokens.valid[b]], method.contexts[-1].received[0])


def test_a_fraction_bounds_the_images_count_not_the_batchs(tiny_vit: MakeViT):
    model = DownsampledViT(tiny_vit(), Adaptive("select", -0.5, bound=True), Schedule.stages(0.75, (1, 2)))
    _, alone = together_and_alone(model, images(6))
    assert len({one[1].n_patches for one in alone}) > 1


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_one_image_may_keep_all_tokens_while_another_does_not(tiny_vit: MakeViT, pool: str):
    vit = tiny_vit(global_pool=pool)
    x = images(4)
    with torch.no_grad():
        tokens = DownsampledViT(vit).embed(x)
    lowest = tokens.patches[..., 0].min(dim=1).values
    # All embedded tokens of one image are above the threshold; those of the others are not.
    threshold = float(lowest.sort().values[-2:].mean())
    model = DownsampledViT(vit, Adaptive("select", threshold), Schedule.explicit((1,), (0,)), site="before_block")
    together, alone = together_and_alone(model, x)
    assert together[0].n_patches == N0
    assert sorted(one[0].n_patches == N0 for one in alone) == [False, False, False, True]
