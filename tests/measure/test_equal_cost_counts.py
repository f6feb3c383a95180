"""Counts of a given cost: their cost is what is counted, and a direction meets its budget or is refused."""

import itertools
from collections.abc import Callable

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from tokbench import DownsampledViT, Schedule, create
from tokbench.measure.budget import OutOfReachError
from tokbench.measure.equal_cost_counts import Backbone, nearest, solve
from tokbench.measure.known_shapes import NOTHING, known_shapes
from tokbench.measure.macs import count_macs, spread_of_macs
from tokbench.names import SITES
from tokbench.schedule import Explicit

MakeVit = Callable[..., VisionTransformer]


def backbone_of(vit: VisionTransformer, name: str, site: str | None = None) -> Backbone:
    method = create(name)
    return Backbone(DownsampledViT(vit).eval(), method, site or method.site)


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("name", ["score_pruning", "evit", "tome", "grid_pooling"])
def test_the_backbones_cost_from_counts_is_what_is_counted(tiny_vit: MakeVit, name: str, site: str) -> None:
    vit = tiny_vit()
    backbone, image = backbone_of(vit, name, site), torch.randn(1, 3, 32, 32)
    plain = count_macs(backbone.plain, image).total
    for counts in [(16, 12, 12, 3), (16, 9, 4, 4), (16, 15, 15, 1)]:
        schedule = backbone.schedule(counts)
        assert schedule is not None
        macs = count_macs(DownsampledViT(vit, create(name), schedule, site=site).eval(), image)
        assert backbone.fraction(counts) == pytest.approx((macs.total - macs.method) / plain, abs=1e-12)


def test_only_blocks_in_which_something_is_removed_are_in_the_schedule(tiny_vit: MakeVit) -> None:
    assert backbone_of(tiny_vit(), "score_pruning").schedule((16, 9, 9, 4)) == Explicit(None, (9, 4), (1, 3))
    assert backbone_of(tiny_vit(), "score_pruning").schedule((16,) * 4) is None
    # ToMe merges pairs, so that half is the least that it can leave.
    assert backbone_of(tiny_vit(), "tome").schedule((16, 1, 1, 1)) == Explicit(None, (8,), (1,))
    assert backbone_of(tiny_vit(), "grid_pooling").schedule((15, 15, 7, 7)) == Explicit(None, (12, 6), (0, 2))
    # EViT adds a token, so that nothing is left of removing one.
    assert backbone_of(tiny_vit(), "evit").schedule((16, 15, 9, 9)) == Explicit(None, (9,), (2,))


@pytest.mark.parametrize("name", ["tome", "evit", "score_pruning", "gtp", "dpc_knn"])
@pytest.mark.parametrize("target", [0.7, 0.5])
def test_every_direction_meets_the_budget_or_is_refused(tiny_vit: MakeVit, name: str, target: float) -> None:
    vit = tiny_vit(img_size=112, depth=6)
    backbone, image = backbone_of(vit, name), torch.randn(1, 3, 112, 112)
    plain = count_macs(backbone.plain, image).total
    generator, met = torch.Generator().manual_seed(0), 0
    for _ in range(8):
        direction = (torch.rand(6, generator=generator) * 2 - 1).tolist()
        asked: list[Explicit] = []

        def counted(schedule: Explicit, asked: list[Explicit] = asked) -> float:
            asked.append(schedule)
            return spread_of_macs(DownsampledViT(vit, create(name), schedule).eval(), [image]).total / plain

        try:
            found = solve(direction, target, backbone, counted)
        except OutOfReachError:
            pass
        else:
            met += 1
            model = DownsampledViT(vit, create(name), found.schedule).eval()
            assert count_macs(model, image).total / plain == pytest.approx(target, rel=0.01)
            assert all(direction[depth] > 0 for depth in found.schedule.at or ())
            assert all(k > n for k, n in itertools.pairwise(found.schedule.counts))
        assert len(asked) <= 8
    assert met >= 4


@pytest.mark.parametrize("extra", [0.0, -0.6, 0.3])
def test_a_cost_that_follows_the_plan_only_in_part_is_met_all_the_same(tiny_vit: MakeVit, extra: float) -> None:
    backbone = backbone_of(tiny_vit(img_size=112), "score_pruning")

    def counted(schedule: Explicit) -> float:
        (left,) = schedule.counts
        return 0.2 + 0.4 * backbone.fraction((196, left, left, left))

    found = solve((NOTHING, 1.0, NOTHING, NOTHING), 0.5, backbone, counted, extra)
    assert counted(found.schedule) == pytest.approx(0.5, rel=0.01)
    assert found.fraction == counted(found.schedule)


def test_a_reduction_in_one_block_alone_stays_in_it(tiny_vit: MakeVit) -> None:
    counts = nearest((NOTHING, 1.0, NOTHING, NOTHING), 0.7, backbone_of(tiny_vit(img_size=64), "score_pruning"))
    assert counts[0] == 64
    assert counts[1] == counts[2] == counts[3] < 64


def test_equal_shares_keep_equal_fractions(tiny_vit: MakeVit) -> None:
    vit = tiny_vit(img_size=112)
    counts = nearest((1.0,) * 4, 0.6, backbone_of(vit, "score_pruning"))
    keeps = [k / n for n, k in itertools.pairwise((196, *counts))]
    assert max(keeps) - min(keeps) < 2 / counts[-1]


def test_what_is_out_of_reach_is_refused(tiny_vit: MakeVit) -> None:
    backbone = backbone_of(tiny_vit(), "score_pruning")
    with pytest.raises(OutOfReachError, match=r"has 0\.3 of the MACs"):
        solve((NOTHING, NOTHING, NOTHING, 1.0), 0.3, backbone, lambda schedule: 0.8)
    with pytest.raises(OutOfReachError, match="nothing is removed"):
        solve((NOTHING,) * 4, 0.3, backbone, lambda schedule: 0.8)


def test_what_reads_the_block_before_does_not_act_in_the_first(tiny_vit: MakeVit) -> None:
    backbone = backbone_of(tiny_vit(), "evit", "before_block")
    assert backbone.first == 1
    assert all(shape[0] <= 0 or nearest(shape, 0.6, backbone)[0] == 16 for shape in known_shapes(backbone, 0.6))
    assert backbone_of(tiny_vit(), "dpc_knn").first == 0  # it acts before a block, and reads no attention


def test_the_known_shapes_have_the_methods_own_schedule_where_it_fits(tiny_vit: MakeVit) -> None:
    fits = backbone_of(tiny_vit(depth=12), "diffrate")  # its counts are for 12 blocks of 196 tokens
    other = backbone_of(tiny_vit(depth=12), "score_pruning")
    assert len(known_shapes(fits, 0.6)) == len(known_shapes(other, 0.6)) + 1
    assert len(known_shapes(backbone_of(tiny_vit(), "diffrate"), 0.6)) > 3
    for shape in known_shapes(other, 0.6):
        assert len(shape) == 12
        assert max(shape) == 1
    assert Schedule.parse(str(fits.method.schedule)).depths(12)
