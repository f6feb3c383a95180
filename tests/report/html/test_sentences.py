"""The headline of each method: a sentence with a saving, a loss and a speedup."""

import pytest
from curve_rows import TIMES, one, row, sentence, spread, table

from tokbench.report.html.headlines import headlines


def test_headlines_of_the_photographs(photographs):
    found = {headline.method: headline for headline in headlines(photographs)}
    expected = {
        "tome": "keeps top-1 within 0.5 points with 35 % [4, 39] fewer MACs, 1.63x [1.61, 1.87] faster at batch 32",
        "tofu": "keeps top-1 within 0.5 points with 17 % [5, 30] fewer MACs, "
        "not surely faster (1.28x [1.16, 1.37]) at batch 32",
        "token_pooling": "keeps top-1 within 0.5 points with 13 % [5, 22] fewer MACs, "
        "not surely faster (0.98x [0.92, 1.01]) at batch 32",
        "gtp": "already loses 0.6 points [-0.7, 2.1] with 12 % fewer MACs, same speed (1.04x [0.99, 1.10]) at batch 32",
        "grid_pooling": "already loses 7.4 points [4.7, 10.5] with 19 % fewer MACs, "
        "1.36x [1.27, 1.54] faster at batch 32",
    }
    assert {method: found[method].text.replace(TIMES, "x") for method in expected} == expected
    assert found["tome"].speedup.estimate == pytest.approx(1.628615 + (0.1 / 9.8) * (2.200107 - 1.628615), abs=1e-5)
    assert found["tome"].delta.estimate == pytest.approx(-0.5)
    # One for each method that ran, in the table's order; those that need fine-tuned weights were skipped.
    ran = photographs.query("status == 'ok' and method != 'none'")
    assert list(found) == list(dict.fromkeys(ran["method"]))


WITHIN = (row(0.9, 10.0, 0.0, 1.1), row(0.7, 30.0, -2.0, 1.5), row(0.5, 50.0, -6.0, 2.0))
KEEPS = "keeps top-1 within 0.5 points with "


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        (WITHIN, KEEPS + "15 % [5, 25] fewer MACs, 1.20x [1.14, 1.26] faster at batch 8"),
        # Within the limit down to the lowest keep, with certainty and without.
        (
            [row(0.9, 10.0, 0.2, 1.1, wide=0.1), row(0.5, 60.0, -0.2, 2.0, wide=0.1)],
            KEEPS + "at least 60 % fewer MACs, 2.00x [1.90, 2.10] faster at batch 8",
        ),
        (
            [row(0.9, 10.0, 0.2, 1.1), row(0.5, 60.0, -0.2, 2.0)],
            KEEPS + "at least 60 % [6, 60 or more] fewer MACs, 2.00x [1.90, 2.10] faster at batch 8",
        ),
        (
            [row(0.9, 10.0, 0.0, 1.1), row(0.5, 60.0, -1.0, 2.0)],
            KEEPS + "35 % [5, 60 or more] fewer MACs, 1.55x [1.47, 1.63] faster at batch 8",
        ),
        (
            [row(0.5, 60.0, 0.0, 2.0, wide=0.2)],
            KEEPS + "at least 60 % fewer MACs, 2.00x [1.90, 2.10] faster at batch 8",
        ),
        # Outside the limit already at the highest keep; nothing was measured between it and the plain model.
        (
            [row(0.9, 9.0, -3.1, 1.2), row(0.5, 60.0, -9.0, 2.0)],
            "already loses 3.1 points [2.1, 4.1] with 9 % fewer MACs, 1.20x [1.14, 1.26] faster at batch 8",
        ),
        (
            [row(0.9, -9.0, -3.1, 0.8, "SLOWER")],
            "already loses 3.1 points [2.1, 4.1] with 9 % more MACs, 1.25x [1.19, 1.32] slower at batch 8",
        ),
        ([row(0.9, 0.3, -3.1, None)], "already loses 3.1 points [2.1, 4.1] with the same MACs"),
        ([row(0.9, -3.0, 0.1, None)], "keeps top-1 within 0.5 points, but with 3 % more MACs"),
        (
            [row(0.9, -3.0, 0.0, None), row(0.7, 5.0, -8.0, None)],
            "already loses 8.0 points [7.0, 9.0] with 5 % fewer MACs",
        ),
        # Without accuracies, times or MACs: the lowest keep.
        (
            [row(0.7, 30.0, None, 1.2), row(0.5, 52.0, None, 1.4)],
            "52 % fewer MACs, 1.40x [1.33, 1.47] faster at keep 0.5, batch 8",
        ),
        ([row(0.5, 52.0, None, None)], "52 % fewer MACs at keep 0.5"),
        ([row(0.5, None, None, 1.4)], "1.40x [1.33, 1.47] faster at keep 0.5, batch 8"),
        ([row(None, None, None, 1.4)], "1.40x [1.33, 1.47] faster at batch 8"),
        ([row(0.5, None, -3.1, None)], "loses 3.1 points [2.1, 4.1] at keep 0.5"),
        ([row(0.5, None, 0.4, None)], "gains 0.4 points [-0.6, 1.4] at keep 0.5"),
        ([row(0.9, 10.0, 0.0, None), row(0.7, 30.0, -2.0, None)], KEEPS + "15 % [5, 25] fewer MACs"),
    ],
)
def test_the_sentence_of_each_case(rows, text):
    assert sentence(*rows) == text


@pytest.mark.parametrize(
    ("lost", "start"),
    [
        (0.0, "loses no top-1 with 10 % [0, 20] fewer MACs"),
        (1.0, "keeps top-1 within 1 point with 20 % [10, 30] fewer MACs"),
        (2.0, "keeps top-1 within 2 points with 30 % [20, 35] fewer MACs"),
    ],
)
def test_a_sentence_names_its_limit(lost, start):
    assert sentence(*WITHIN, lost=lost).startswith(start)


@pytest.mark.parametrize(
    ("verdicts", "speedups", "floor", "said"),
    [
        (("FASTER", "FASTER"), (1.2, 1.68), 0.0, "1.32x [1.25, 1.39] faster"),
        # The nearest keep decides, unless the interpolated speedup is within the margin.
        (("FASTER", "AMBIGUOUS"), (1.2, 1.68), 0.0, "1.32x [1.25, 1.39] faster"),
        (("AMBIGUOUS", "FASTER"), (1.2, 1.68), 0.0, "not surely faster (1.32x [1.25, 1.39])"),
        (("FASTER", "FASTER"), (1.2, 1.68), 30.0, "not surely faster (1.32x [1.25, 1.39])"),
        (("AMBIGUOUS", "AMBIGUOUS"), (1.2, 1.68), 0.0, "not surely faster (1.32x [1.25, 1.39])"),
        (("SAME", "AMBIGUOUS"), (1.2, 1.68), 0.0, "not surely faster (1.32x [1.25, 1.39])"),
        (("SAME", "SAME"), (1.0, 1.0), 0.0, "same speed (1.00x [0.95, 1.05])"),
        (("SLOWER", "FASTER"), (0.8, 1.6), 0.0, "not surely faster (1.00x [0.95, 1.05])"),
        (("FASTER", "SLOWER"), (1.1, 0.7), 0.0, "not surely faster (1.00x [0.95, 1.05])"),
        (("SLOWER", "SLOWER"), (0.8, 0.8), 0.0, "1.25x [1.19, 1.32] slower"),
        (("SLOWER", "AMBIGUOUS"), (0.8, 0.84), 0.0, "1.23x [1.18, 1.30] slower"),
    ],
)
def test_the_wording_of_times_follows_the_verdicts(verdicts, speedups, floor, said):
    near, far = (
        row(keep, saved, delta, speedup, verdict, noise_floor=floor)
        for keep, saved, delta, speedup, verdict in zip(
            (0.9, 0.7), (10.0, 30.0), (0.0, -2.0), speedups, verdicts, strict=True
        )
    )
    assert sentence(near, far).endswith(f" fewer MACs, {said} at batch 8")


@pytest.mark.parametrize(("verdicts", "faster"), [(("AMBIGUOUS", "FASTER"), True), (("FASTER", "AMBIGUOUS"), False)])
def test_the_nearest_keep_decides_about_the_verdict(verdicts, faster):
    near, far = row(0.9, 10.0, 0.0, 1.2, verdicts[0]), row(0.7, 30.0, -2.0, 1.6, verdicts[1])
    assert ("not surely faster" not in sentence(near, far, lost=1.5)) == faster


def test_times_are_for_the_largest_batch_and_eager_mode():
    def found(*settings_):
        (headline,) = headlines(table(*(row(0.7, 30.0, 0.0, **{"speedup": 1.5} | own) for own in settings_)))
        return headline.batch_size, headline.mode, headline.text.partition(" at ")[2].partition(" at ")[2]

    small, large = {"batch_size": 1}, {"batch_size": 256}
    assert found(small, large) == (256, "eager", "batch 256")
    assert found(small, large | {"speedup": None}) == (1, "eager", "batch 1")
    assert found({"mode": "cudagraph"} | large, large) == (256, "eager", "batch 256")
    assert found({"mode": "cudagraph"} | large, small) == (256, "cudagraph", "batch 256, cudagraph")
    assert found({"mode": "compile"} | large, {"mode": "cudagraph"} | large)[1] == "compile"
    (untimed,) = headlines(table(row(0.7, 30.0, 0.0, None, batch_size=256)))
    assert untimed.batch_size is None
    assert untimed.speedup is None


def test_headlines_include_the_numbers():
    (found,) = headlines(table(*WITHIN))
    assert (found.model, found.method) == ("deit", "tome")
    read = one(*WITHIN)
    for numbers, name in ((found.gmacs_saved, "saved_at_equal_accuracy"), (found.speedup, "speedup_at_equal_accuracy")):
        assert [numbers.lo, numbers.estimate, numbers.hi] == pytest.approx(spread(read, name))
    assert found.delta.estimate == pytest.approx(-0.5)
    (open_,) = headlines(table(row(0.5, 60.0, 0.0, 2.0)))
    assert (open_.gmacs_saved.estimate, open_.gmacs_saved.hi) == (None, None)
