"""A plain model's top-1 on a complete image set against the one that timm publishes."""

import numpy as np
import pandas as pd
import pytest

from tokbench.config import load_config
from tokbench.published.timm_accuracy import COMPLETE, published_top1, unlike_published
from tokbench.results import ImagesInfo, Plan
from tokbench.vit.models import full_name

SUITE = load_config().suite("imagenet", {})


def plan_with(model, name="imagenet", count=None):
    images = ImagesInfo(name, COMPLETE[name] if count is None else count)
    return Plan(SUITE, "cpu", images, (), models={model: full_name(model)})


def complete(model, top1, name="imagenet"):
    rows = [("none", top1), ("tome", 10.0)]
    table = pd.DataFrame(rows, columns=["method", "top1"]).assign(params="", regime="off-the-shelf")
    table = table.assign(model=model, images=COMPLETE[name])
    return table, plan_with(model, name)


def test_another_top1_than_the_published_one_is_reported():
    assert unlike_published(*complete("deit_small_patch16_224", 79.12)) == [
        "deit_small_patch16_224 has 79.12 % on imagenet, timm publishes 79.856 %: "
        "check that these are the right data and weights"
    ]


@pytest.mark.parametrize(("name", "top1"), [("imagenet-v2", 68.53), ("imagenet-a", 18.72), ("imagenet-r", 42.27)])
def test_each_known_set_has_its_own_figure(name, top1):
    assert unlike_published(*complete("deit_small_patch16_224", top1 + 0.09, name)) == []
    assert unlike_published(*complete("deit_small_patch16_224", top1 - 0.09, name)) == []
    assert len(unlike_published(*complete("deit_small_patch16_224", top1 + 0.11, name))) == 1
    assert len(unlike_published(*complete("deit_small_patch16_224", top1 - 0.11, name))) == 1


def test_batches_of_one_model_are_one_message():
    table, plan = complete("deit_tiny_patch16_224", 60.0)
    twice = pd.concat([table, table.assign(batch_size=256)], ignore_index=True)
    assert len(unlike_published(twice, plan)) == 1


def test_a_part_an_unknown_set_or_model_has_no_figure():
    table, plan = complete("deit_small_patch16_224", 60.0)
    assert unlike_published(table, Plan(SUITE, "cpu", None, ())) == []
    assert unlike_published(table, plan_with("deit_small_patch16_224", count=5000)) == []
    synsets = Plan(SUITE, "cpu", ImagesInfo("synsets", 50_000), (), models=plan.models)
    assert unlike_published(table, synsets) == []
    assert unlike_published(table.assign(images=49_999), plan) == []
    assert unlike_published(table.assign(top1=np.nan), plan) == []
    assert unlike_published(*complete("a_model_of_mine", 60.0)) == []


def test_the_tag_says_which_weights():
    assert full_name("deit_small_patch16_224") == "deit_small_patch16_224.fb_in1k"
    assert full_name("deit_small_patch16_224.mine") == "deit_small_patch16_224.mine"
    assert full_name("digits_deit") == "digits_deit"
    augreg = published_top1("imagenet", "vit_base_patch16_224.augreg_in1k")
    default = published_top1("imagenet", full_name("vit_base_patch16_224"))
    assert augreg is not None
    assert default is not None
    assert default > augreg + 1
    assert published_top1("imagenet", "vit_base_patch16_224.nobodys") is None


def test_every_published_figure_can_be_read():
    for name in COMPLETE:
        for model in ("deit_tiny_patch16_224", "deit_small_patch16_224", "deit_base_patch16_224"):
            top1 = published_top1(name, full_name(model))
            assert top1 is not None
            assert 5 < top1 < 100
