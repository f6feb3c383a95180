"""The accuracy columns, the spread over seeds and the Pareto front, on made-up outcomes."""

import itertools

import numpy as np
import pandas as pd
import pytest

from tokbench.kinds.accuracy import accuracy_columns, seeds_spread, unbeaten
from tokbench.stats.proportions import mcnemar, tango, wilson


def outcomes(right, images=1000, shift=0):
    """Outcomes with so many right answers from an image on."""
    return "".join("0" if (i - shift) % images < right else "-" for i in range(images))


def paired_difference(first, second):
    """Tango's interval for two sequences of booleans, one per image."""
    pairs = list(zip(first, second, strict=True))
    return tango(pairs.count((False, True)), pairs.count((True, False)), len(pairs))


def rows(*changes):
    """A table: each row with its own compute and method."""
    settings = {
        "model": "m",
        "batch_size": 1,
        "mode": "eager",
        "dtype": "fp32",
        "params": "",
        "latency_ms": None,
        "regime": "off-the-shelf",
    }
    settings |= {"schedule": "stages(at=3)", "keep": 0.7, "site": "after_attention", "seed": None, "top1": 50.0}
    made = [{**settings, "method": f"method{i}", "gmacs": 1.0, **change} for i, change in enumerate(changes)]
    return pd.DataFrame(made)


def front(table, answers):
    return unbeaten(table, answers)["pareto"]


# One row


def test_accuracy_counts_what_could_be_read():
    plain, after = "00004-?00-", "0-10-0?000"
    before = [mark == "0" for mark in plain if mark != "?"]
    now = [mark == "0" for mark in after if mark != "?"]
    top1, change, flips = wilson(6, 9), paired_difference(before, now), mcnemar(before, now)
    assert accuracy_columns(after, plain) == pytest.approx(
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
    found = accuracy_columns("?0000", "00?--")
    assert (found["images"], found["gained"], found["lost"]) == (4, 2, 0)
    assert found["delta_top1"] == pytest.approx(100 * 2 / 3)


def test_the_plain_model_is_as_good_as_itself():
    found = accuracy_columns("00-1", "00-1")
    assert (found["gained"], found["lost"], found["mcnemar_p"], found["delta_top1"]) == (0, 0, 1, 0)
    assert found["delta_lo"] < 0 < found["delta_hi"]


@pytest.mark.parametrize("nothing", [None, "", "???"])
def test_without_an_answer_there_is_no_accuracy(nothing):
    assert accuracy_columns(nothing, "000") == {}


def test_without_the_plain_model_there_is_no_difference():
    assert set(accuracy_columns("0-", None)) == {"top1", "top5", "images", "top1_lo", "top1_hi"}


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
    assert front(table, [outcomes(840), outcomes(800), outcomes(837)]).tolist() == [True, False, True]
    assert front(table, [outcomes(803), outcomes(800), outcomes(800)]).tolist() == [True, True, True]


def test_what_is_dearer_beats_nothing():
    assert front(rows({"gmacs": 2.0}, {"gmacs": 1.0}), [outcomes(900), outcomes(500)]).tolist() == [True, True]


def test_flips_both_ways_make_unsure():
    # 40 more right answers again, but 500 images flipped.
    assert front(rows({}, {}), [outcomes(540), outcomes(500, shift=270)]).tolist() == [True, True]
    assert front(rows({}, {}), [outcomes(540), outcomes(500)]).tolist() == [True, False]


def test_each_seed_must_be_surely_better_than_each():
    table = rows(
        {"method": "a", "seed": 0},
        {"method": "a", "seed": 1},
        {"method": "b", "seed": 0},
        {"method": "b", "seed": 1},
    )
    better = [outcomes(900), outcomes(890), outcomes(840), outcomes(850)]
    assert front(table, better).tolist() == [True, True, False, False]
    one_is_not = [outcomes(900), outcomes(851), outcomes(840), outcomes(850)]
    assert front(table, one_is_not).tolist() == [True] * 4


def test_models_batches_and_modes_have_their_own_fronts():
    table = rows({}, {"model": "n"}, {"batch_size": 8}, {"mode": "compile"}, {})
    assert front(table, [outcomes(900)] + [outcomes(500)] * 4).tolist() == [True, True, True, True, False]


def test_rows_without_a_number_are_not_marked_and_beat_none():
    table = rows({"gmacs": None}, {"gmacs": 1.0}, {"gmacs": 0.5}, {"gmacs": 2.0})
    table.index = pd.Index([5, 6, 7, 8])
    marked = front(table, [outcomes(990), outcomes(800), None, outcomes(799)])
    assert marked.index.equals(table.index)
    assert marked.tolist() == [False, True, False, True]
    assert not front(table, [None] * 4).any()


def test_unreadable_images_are_left_out_in_pairs():
    lost = "?" * 500
    assert front(rows({}, {}), [outcomes(500, 500) + lost, outcomes(440, 500) + lost]).tolist() == [True, False]
    # What one of the two has not read is no flip.
    assert front(rows({}, {}), [outcomes(500, 500) + outcomes(500, 500), lost + outcomes(499, 500)]).tolist() == [
        True,
        True,
    ]


def test_a_hundredth_more_compute_is_no_more():
    skills = [outcomes(900), outcomes(500)]
    for gmacs, beaten in ((1.009, True), (1.011, False)):
        assert front(rows({"gmacs": gmacs}, {"gmacs": 1.0}), skills).tolist() == [True, not beaten]


def test_the_plain_model_with_fewer_pixels_takes_part():
    table = rows({"method": "none"}, {"method": "none", "params": "img_size=192", "gmacs": 0.7}, {"gmacs": 0.7})
    assert front(table, [outcomes(950), outcomes(900), outcomes(500)]).tolist() == [True, True, False]


def test_time_has_a_front_of_its_own():
    table = rows(
        {"gmacs": 1.0, "latency_ms": 5.0}, {"gmacs": 2.0, "latency_ms": 4.0}, {"gmacs": 1.0, "latency_ms": None}
    )
    found = unbeaten(table, [outcomes(500), outcomes(900), outcomes(900)])
    assert found["pareto"].tolist() == [False, True, True]
    assert found["pareto_time"].tolist() == [False, True, False]


def test_the_best_are_those_that_no_other_of_equal_compute_surely_beats():
    table = rows({"gmacs": 0.7}, {"gmacs": 0.705}, {"gmacs": 0.695}, {"gmacs": 0.5}, {"gmacs": 0.3})
    found = unbeaten(table, [outcomes(800), outcomes(797), outcomes(700), outcomes(900), outcomes(100)])
    assert found["best_at_compute"].tolist() == [True, True, False, False, False]
    assert found["pareto"].tolist() == [False, False, False, True, True]


# Everything against loops over all pairs, from the answers themselves


def made_up(seed):
    """Rows of methods with costs that are close to each other, and their answers; some with several seeds."""
    rng = np.random.default_rng(seed)
    difficulty = rng.random(400)
    settings, answers = [], []
    for method in range(12):
        gmacs, latency = rng.choice([0.7, 0.704, 0.71, 1.0, 1.0101]), rng.choice([None, 5.0, 5.04, 6.0])
        for number in range(1 + 2 * (method % 3 == 0)):
            right = difficulty + rng.normal(0, 0.05, 400) < 0.6 + 0.02 * method
            marks = np.where(right, "0", "-")
            marks[rng.choice(400, 5)] = "?"
            answers.append("".join(marks))
            settings.append({"method": f"method{method}", "seed": number, "gmacs": gmacs, "latency_ms": latency})
    return rows(*settings), answers


def surely_beats(one, other):
    """Of two lists of answers, one for each seed."""
    gains = []
    for first, second in itertools.product(one, other):
        both = [(b == "0", a == "0") for a, b in zip(first, second, strict=True) if "?" not in (a, b)]
        gains.append(paired_difference(*zip(*both, strict=True)).lo)
    return min(gains) > 0


@pytest.mark.parametrize("seed", range(3))
def test_all_marks_against_the_intervals_themselves(seed):
    table, answers = made_up(seed)
    methods = {name: [answers[place] for place in places] for name, places in table.groupby("method").indices.items()}
    cost = table.groupby("method")[["gmacs", "latency_ms"]].first()
    expected = {"pareto": dict.fromkeys(methods, True), "pareto_time": cost["latency_ms"].notna().to_dict()}
    equals = {name: [] for name in methods}
    for a, b in itertools.permutations(methods, 2):
        beats = surely_beats(methods[a], methods[b])
        for mark, column in (("pareto", "gmacs"), ("pareto_time", "latency_ms")):
            expected[mark][b] &= not (cost[column][a] <= 1.01 * cost[column][b] and beats)
        if max(cost["gmacs"][a], cost["gmacs"][b]) <= 1.01 * min(cost["gmacs"][a], cost["gmacs"][b]):
            equals[b].append(beats)
    expected["best_at_compute"] = {name: bool(beaten) and not any(beaten) for name, beaten in equals.items()}
    for mark, found in unbeaten(table, answers).items():
        assert found.tolist() == table["method"].map(expected[mark]).tolist(), mark
        assert 1 < sum(expected[mark].values()) < 11
