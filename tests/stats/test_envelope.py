"""Compute at equal accuracy, against loops over points, a case worked out by hand, and properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench.stats.envelope import least_compute, saved_compute

POINTS = st.lists(st.tuples(st.integers(1, 20), st.integers(0, 10)), min_size=1, max_size=8)


def by_hand(points, target):
    """The envelope as a list of the points that no other beats, and the line through them."""
    front = sorted(
        point for point in set(points) if not any(a <= point[0] and b >= point[1] for a, b in set(points) - {point})
    )
    if target > front[-1][1]:
        return np.inf
    compute, accuracy = zip(*front, strict=True)
    return np.interp(target, accuracy, compute)


@settings(deadline=None)  # a busy machine is slow
@given(POINTS, st.integers(-2, 24))
def test_an_envelope_is_the_line_through_the_points_that_no_other_beats(points, halves):
    compute, accuracy = zip(*points, strict=True)
    assert least_compute(compute, accuracy, halves / 2) == pytest.approx(by_hand(points, halves / 2))


@settings(deadline=None)  # a busy machine is slow
@given(POINTS, st.data())
def test_several_envelopes_are_read_at_once(points, data):
    compute, accuracy = zip(*points, strict=True)
    levels = [accuracy, *(data.draw(st.permutations(accuracy)) for _ in range(3))]
    targets = [3.0, 0.5, 7.5, 10.0]
    one_by_one = [least_compute(compute, level, target) for level, target in zip(levels, targets, strict=True)]
    np.testing.assert_array_equal(least_compute(compute, levels, targets), one_by_one)


@pytest.mark.parametrize(("compute", "accuracy", "target"), [([], [], 0), ([1, 2], [3], 1), ([1], [[3]], [1, 2])])
def test_shapes_that_do_not_fit_are_refused(compute, accuracy, target):
    with pytest.raises(ValueError, match="got compute"):
        least_compute(compute, accuracy, target)


def answers(*right, images=100):
    """Answers of which the first so many are right."""
    return np.arange(images) < np.array(right)[:, None]


def test_a_case_worked_out_by_hand():
    """The small model needs 4 for 60 %. The large one, reduced, goes from 50 % at 2 to 70 % at 4: 60 % at 3."""
    small, large = saved_compute([4, 10], answers(60, 90), [2, 4], answers(50, 70))
    assert small.estimate == pytest.approx(1 - 3 / 4)
    assert large.estimate == 0
    assert small.lo <= small.estimate <= small.hi


def test_a_method_whose_cheapest_point_is_more_accurate_saves_up_to_that_point():
    (small, _) = saved_compute([4, 10], answers(60, 90), [3], answers(80))
    assert small.estimate == pytest.approx(1 / 4)
    assert (small.lo, small.hi) == (small.estimate, small.estimate)  # the images that it gets right include the others


def test_no_method_and_a_useless_method_save_nothing():
    for compute, right in (([], np.empty((0, 100))), ([5, 9], answers(10, 40))):
        for saved in saved_compute([4, 10], answers(60, 90), compute, right):
            assert (saved.estimate, saved.lo, saved.hi) == (0, 0, 0)


def test_a_method_can_reach_the_accuracy_of_the_largest_model_only_by_matching_it():
    right = answers(60, 90, 90, 91)
    _, same = saved_compute([4, 10], right[:2], [7], right[2:3])
    assert same.estimate == pytest.approx(0.3)
    _, better = saved_compute([4, 10], right[:2], [7], right[3:])
    assert better.estimate == pytest.approx(1 - (4 + 3 * 30 / 31) / 10)


def test_the_interval_agrees_with_resampled_images():
    """The oracle draws images one by one and reads each resample's envelopes off a list of points."""
    rng = np.random.default_rng(5)
    right = rng.random((6, 300)) < np.array([0.7, 0.9, 0.6, 0.72, 0.8, 0.88])[:, None]
    compute = np.array([3, 10, 2, 4, 5, 8])
    found = saved_compute(compute[:2], right[:2], compute[2:], right[2:])
    for model, interval in enumerate(found):
        drawn = []
        for _ in range(1000):
            top1 = right[:, rng.integers(0, 300, 300)].mean(axis=1)
            points = list(zip(compute, top1, strict=True))
            drawn.append(1 - by_hand(points, top1[model]) / by_hand(points[:2], top1[model]))
        np.testing.assert_allclose((interval.lo, interval.hi), np.percentile(drawn, (2.5, 97.5)), atol=0.04)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_neither_the_order_of_points_nor_of_images_nor_the_unit_matters(seed):
    rng = np.random.default_rng(seed)
    right, compute = rng.random((5, 60)) < 0.7, rng.random(5)
    first = saved_compute(compute[:2], right[:2], compute[2:], right[2:], resamples=50)
    images, points = rng.permutation(60), rng.permutation(3)
    moved = right[:, images]
    again = saved_compute(8 * compute[:2], moved[:2], 8 * compute[2:][points], moved[2:][points], resamples=50)
    for one, other in zip(first, again, strict=True):
        assert one.estimate == pytest.approx(other.estimate)
    same = saved_compute(compute[:2], right[:2], compute[2:], right[2:], resamples=50)
    assert first == same


def test_shapes_of_answers_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="rows of answers"):
        saved_compute([1, 2], answers(5, 6), [1, 2], answers(5))
