"""The accuracy columns, the front and the look at the plain model, on made-up outcomes."""

import itertools

import numpy as np
import pandas as pd
import pytest

from tokbench.published.timm_accuracy import COMPLETE, full_name, published_top1
from tokbench.results.answers import accuracy, front, seeds_spread, unlike_published
from tokbench.stats.proportions import mcnemar, tango, wilson


def said(right, images=1000, shift=0):
    """Outcomes with so many right answers from an image on."""
    return "".join("0" if (i - shift) % images < right else "-" for i in range(images))


def paired_difference(first, second):
    """Tango's interval for two sequences of booleans, one per image."""
    pairs = list(zip(first, second, strict=True))
    return tango(pairs.count((False, True)), pairs.count((True, False)), len(pairs))


def rows(*changes):
    """A table: each row with its own compute and method."""
    settings = {"model": "m", "batch_size": 1, "mode": "eager", "params": "", "regime": "off-the-shelf"}
    settings |= {"schedule": "stages(at=3)", "keep": 0.7, "site": "after_attention", "seed": None, "top1": 50.0}
    made = [{**settings, "method": f"method{i}", "gmacs": 1.0, **change} for i, change in enumerate(changes)]
    return pd.DataFrame(made)


# One row


def test_accuracy_counts_what_could_be_read():
    plain, after = "00004-?00-", "0-10-0?000"
    before = [mark == "0" for mark in plain if mark != "?"]
    now = [mark == "0" for mark in after if mark != "?"]
    top1, change, flips = wilson(6, 9), paired_difference(before, now), mcnemar(before, now)
    assert accuracy(after, plain) == pytest.approx(
        {
            "top1": 100 * 6 / 9,
            "top5": 100 * 7 / 9,
            "images": 9,
            "top1_lo": 100 * top1.lo,
            "top1_hi": 100 * top1.hi,
            "delta_top1": 100 * change.estimate,
            "delta_lo": 100 * change.lo,
            "delta_hi": 100 * change.hi,
            "gained": flips.gained,
            "lost": flips.lost,
            "mcnemar_p": flips.p,
        }
    )
    assert (flips.gained, flips.lost) == (2, 2)


def test_only_images_that_both_have_are_paired():
    found = accuracy("?0000", "00?--")
    assert (found["images"], found["gained"], found["lost"]) == (4, 2, 0)
    assert found["delta_top1"] == pytest.approx(100 * 2 / 3)


def test_the_plain_model_is_as_good_as_itself():
    found = accuracy("00-1", "00-1")
    assert (found["gained"], found["lost"], found["mcnemar_p"], found["delta_top1"]) == (0, 0, 1, 0)
    assert found["delta_lo"] < 0 < found["delta_hi"]


@pytest.mark.parametrize("nothing", [None, "", "???"])
def test_without_an_answer_there_is_no_accuracy(nothing):
    assert accuracy(nothing, "000") == {}


def test_without_the_plain_model_there_is_no_difference():
    assert set(accuracy("0-", None)) == {"top1", "top5", "images", "top1_lo", "top1_hi"}


# Seeds


def test_the_spread_is_over_the_seeds_of_one_setting():
    table = rows(
        {"method": "a", "seed": 0, "top1": 80.0},
        {"method": "a", "seed": 1, "top1": 82.0},
        {"method": "a", "seed": 2, "top1": None},
        {"method": "a", "seed": 0, "top1": 70.0, "keep": None},
        {"method": "b", "top1": 90.0},
        {"method": "a", "seed": 0, "top1": 60.0, "params": "x=1"},
        {"method": "a", "seed": 1, "top1": 60.0, "params": "x=1"},
    )
    table.index = pd.Index(range(10, 17))
    spread = seeds_spread(table)
    assert spread.index.equals(table.index)
    expected = [2**0.5] * 3 + [np.nan, np.nan, 0.0, 0.0]
    assert spread.to_numpy() == pytest.approx(expected, nan_ok=True)


# The front


def test_a_sure_loss_at_no_less_cost_takes_the_mark():
    table = rows({"gmacs": 1.0}, {"gmacs": 2.0}, {"gmacs": 1.0})
    # 40 of 1,000 images more, and none less: sure. 3 more: within what chance does.
    assert front(table, [said(840), said(800), said(837)]).tolist() == [True, False, True]
    assert front(table, [said(803), said(800), said(800)]).tolist() == [True, True, True]


def test_what_is_dearer_beats_nothing():
    assert front(rows({"gmacs": 2.0}, {"gmacs": 1.0}), [said(900), said(500)]).tolist() == [True, True]


def test_flips_both_ways_make_unsure():
    # 40 more right answers again, but 500 images flipped.
    assert front(rows({}, {}), [said(540), said(500, shift=270)]).tolist() == [True, True]
    assert front(rows({}, {}), [said(540), said(500)]).tolist() == [True, False]


def test_each_seed_must_be_surely_better_than_each():
    table = rows(
        {"method": "a", "seed": 0},
        {"method": "a", "seed": 1},
        {"method": "b", "seed": 0},
        {"method": "b", "seed": 1},
    )
    better = [said(900), said(890), said(840), said(850)]
    assert front(table, better).tolist() == [True, True, False, False]
    one_is_not = [said(900), said(851), said(840), said(850)]
    assert front(table, one_is_not).tolist() == [True] * 4


def test_models_batches_and_modes_have_their_own_fronts():
    table = rows({}, {"model": "n"}, {"batch_size": 8}, {"mode": "compile"}, {})
    assert front(table, [said(900)] + [said(500)] * 4).tolist() == [True, True, True, True, False]


def test_rows_without_a_number_are_not_marked_and_beat_none():
    table = rows({"gmacs": None}, {"gmacs": 1.0}, {"gmacs": 0.5}, {"gmacs": 2.0})
    table.index = pd.Index([5, 6, 7, 8])
    marked = front(table, [said(990), said(800), None, said(799)])
    assert marked.index.equals(table.index)
    assert marked.tolist() == [False, True, False, True]
    assert not front(table, [None] * 4).any()


def test_unreadable_images_are_left_out_in_pairs():
    lost = "?" * 500
    assert front(rows({}, {}), [said(500, 500) + lost, said(440, 500) + lost]).tolist() == [True, False]
    # What one of the two has not read is no flip.
    assert front(rows({}, {}), [said(500, 500) + said(500, 500), lost + said(499, 500)]).tolist() == [True, True]


def test_the_front_against_the_intervals_themselves():
    rng = np.random.default_rng(0)
    difficulty = rng.random(400)
    costs = rng.integers(1, 5, 12).astype(float)
    marks = [np.where(difficulty + rng.normal(0, 0.05, 400) < 0.6 + 0.02 * skill, "0", "-") for skill in range(12)]
    for row in marks:
        row[rng.choice(400, 5)] = "?"
    kept = [True] * 12
    for a, b in itertools.permutations(range(12), 2):
        both = (marks[a] != "?") & (marks[b] != "?")
        gain = paired_difference(marks[b][both] == "0", marks[a][both] == "0")
        kept[b] &= not (costs[a] <= costs[b] and gain.lo > 0)
    assert 1 < sum(kept) < 11
    assert front(rows(*({"gmacs": cost} for cost in costs)), ["".join(row) for row in marks]).tolist() == kept


# The plain model and what is published of it


def complete(model, top1, name="imagenet", **changes):
    table = rows(
        {"model": model, "method": "none", "top1": top1, "images": COMPLETE[name], **changes},
        {"model": model, "top1": 10.0, "images": COMPLETE[name]},
    )
    return table, {"images": {"name": name, "count": COMPLETE[name]}}


def test_another_top1_than_the_published_one_is_told():
    assert unlike_published(*complete("deit_small_patch16_224", 79.12)) == [
        "deit_small_patch16_224 has 79.12 % on imagenet where timm's table has 79.856 %: "
        "the data or the weights are not what they seem"
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
    assert unlike_published(table, {"images": None}) == []
    assert unlike_published(table, {"images": {"name": "imagenet", "count": 5000}}) == []
    assert unlike_published(table, {"images": {"name": "synsets", "count": 50_000}}) == []
    assert unlike_published(table.assign(images=49_999), plan) == []
    assert unlike_published(table.assign(top1=np.nan), plan) == []
    assert unlike_published(*complete("a_model_of_mine", 60.0)) == []


def test_the_tag_says_which_weights():
    assert full_name("deit_small_patch16_224") == "deit_small_patch16_224.fb_in1k"
    assert full_name("deit_small_patch16_224.mine") == "deit_small_patch16_224.mine"
    assert full_name("digits_deit") == "digits_deit"
    augreg = published_top1("imagenet", "vit_base_patch16_224.augreg_in1k")
    default = published_top1("imagenet", "vit_base_patch16_224")
    assert augreg is not None
    assert default is not None
    assert default > augreg + 1
    assert published_top1("imagenet", "vit_base_patch16_224.nobodys") is None


def test_the_published_figures_are_whole():
    for name in COMPLETE:
        for model in ("deit_tiny_patch16_224", "deit_small_patch16_224", "deit_base_patch16_224"):
            top1 = published_top1(name, model)
            assert top1 is not None
            assert 5 < top1 < 100
