"""The MACs of adaptive methods, on batches and per image."""

import dataclasses
import json
from typing import Any

import pytest
import torch
from counted_work import K, by_hand, image
from torch import Tensor

from tokbench import Context, DownsampledViT, Downsampler, Schedule, Tokens, create
from tokbench.measure.ledger import count_tokens
from tokbench.measure.macs import count_by_routes, count_macs, disagreement, spread_of_macs


def test_average_pooling_is_counted(tiny_vit: Any):
    vit = tiny_vit(global_pool="avg", class_token=False, fc_norm=True)
    for model in (DownsampledViT(vit), DownsampledViT(vit, create("tome"), Schedule.stages(0.6, (1, 2)))):
        assert disagreement(count_by_routes(model.eval(), image()).backbone.values()) < 1e-4


class ByBrightness(Downsampler):
    """Keeps 4 tokens of a dark image and all K of a bright one."""

    adaptive = True

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        bright = tokens.patches[:, 0, 0] > 0
        kept = tokens.select(torch.arange(keep).expand(len(tokens.x), keep))
        return dataclasses.replace(kept, valid=(torch.arange(keep) < 4) | bright[:, None])


@pytest.fixture
def adaptive(tiny_vit: Any) -> DownsampledViT:
    vit = tiny_vit()
    with torch.no_grad():  # the first channel of the tokens has the sign of the image's brightness
        vit.patch_embed.proj.weight.fill_(1.0)
        vit.pos_embed.zero_()
    return DownsampledViT(vit, ByBrightness(), Schedule.explicit((K,), at=(1,)), site="before_block").eval()


def uniform_images(*bright: bool) -> Tensor:
    return torch.stack([torch.full((3, 32, 32), 1.0 if one else -1.0) for one in bright])


def test_tokens_are_counted_per_image_without_padding(adaptive: DownsampledViT):
    ledger = count_tokens(adaptive, uniform_images(False, True, False))
    assert ledger.images == ((16, 4, 4, 4), (16, 8, 8, 8), (16, 4, 4, 4))
    assert ledger.leaving == (16, 8, 8, 8)
    assert ledger.attention == ledger.mlp == (17, 9, 9, 9)
    assert count_tokens(adaptive, uniform_images(False)).leaving == (16, 4, 4, 4)


def test_macs_over_batches_include_padding(adaptive: DownsampledViT):
    spread = spread_of_macs(
        adaptive, [uniform_images(False, True, False), uniform_images(False, False, False), uniform_images(True)]
    )
    long, short = by_hand([17, 9, 9, 9], [17, 9, 9, 9]), by_hand([17, 5, 5, 5], [17, 5, 5, 5])
    for macs, expected in zip(spread.batches, (long, short, long), strict=True):
        assert macs.total == pytest.approx(expected, rel=1e-4)  # the padding mask itself adds a little
        assert macs.method == 0
    assert spread.total == pytest.approx((4 * long + 3 * short) / 7, rel=1e-4)  # the mean over images, not over batches
    assert spread.total_lo == pytest.approx(short + 0.1 * (long - short), rel=1e-4)
    assert spread.total_hi == pytest.approx(long, rel=1e-4)
    assert spread.tokens == (16, 5, 5, 5)  # (5 * 4 + 2 * 8) / 7 = 5.14


def test_batch_has_the_macs_of_its_longest_image(tiny_vit: Any):
    model = DownsampledViT(tiny_vit(std=0.5), create("ats"), Schedule.stages(0.8, (1, 2))).eval()
    alone = spread_of_macs(model, [image(seed) for seed in range(6)]).batches
    together = spread_of_macs(model, [torch.cat([image(seed) for seed in range(6)])])
    lengths = [macs.ledger.leaving for macs in alone]
    assert len(set(lengths)) > 1
    assert together.batches[0].ledger.images == tuple(lengths)
    assert together.batches[0].ledger.leaving == tuple(map(max, zip(*lengths, strict=True)))
    assert together.total >= max(macs.total for macs in alone)


def test_spread_can_be_written_as_json(adaptive: DownsampledViT):
    for value in (count_macs(adaptive, uniform_images(True)), spread_of_macs(adaptive, [uniform_images(True, False)])):
        assert json.loads(json.dumps(dataclasses.asdict(value), allow_nan=False))["total"] == value.total
