"""One method against the others: from raw answers, with SciPy and a likelihood maximised here."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from made_answers import outcomes, row, write
from scipy import optimize, stats

from tokbench.errors import UserError
from tokbench.results import MethodInfo, Results, load
from tokbench.results.versus import COLUMNS

Z = 1.959963984540054
REFERENCE = Path(__file__).parents[1] / "stored/digits"
RNG = np.random.default_rng(0)
EASY = RNG.random(500)


def answers(skill: float, noise: float = 0.05) -> str:
    """Outcomes of a method on images of which some are harder."""
    return outcomes(EASY + RNG.normal(0, noise, EASY.size) < skill)


def one(results: Results | Path, *methods: str, **chosen: Any) -> dict[Any, Any]:
    """The only row against the methods, or the one with these values."""
    frame = (results if isinstance(results, Results) else load(results)).versus(*methods)
    for name, value in chosen.items():
        frame = frame[frame[name] == value]
    (only,) = frame.to_dict("records")
    return only


def tango_by_likelihood(gained: int, lost: int, n: int) -> tuple[float, float]:
    """Tango's interval: the nuisance parameter by maximising the likelihood, the ends by root finding."""

    def score(delta: float) -> float:
        def loss(q: float) -> float:
            return -float(
                stats.multinomial.logpmf([gained, lost, n - gained - lost], n, [q + delta, q, 1 - 2 * q - delta])
            )

        low, high = max(0.0, -delta) + 1e-12, (1 - delta) / 2 - 1e-12
        q = optimize.minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-13}).x
        return float((gained - lost - n * delta) / math.sqrt(n * (2 * q + delta * (1 - delta))))

    observed = (gained - lost) / n
    ends = (
        optimize.brentq(lambda delta: score(delta) - Z, -0.99, observed),
        optimize.brentq(lambda delta: score(delta) + Z, observed, 0.99),
    )
    return float(ends[0]), float(ends[1])


@pytest.mark.parametrize("versus", ["grid_pooling", "score_pruning(score=cls)"])
def test_real_answers_against_scipy(versus: str) -> None:
    results = load(REFERENCE)
    frame, raw = results.versus(versus), results.answers
    compared = frame[frame["method"] != "none"].query("seeds == 1 and keep != 0.7")
    assert len(compared) >= 8
    method, _, params = versus.removesuffix(")").partition("(")
    for found in compared.to_dict("records"):
        here = raw[raw["keep"] == found["keep"]].set_index("image")
        mine = here[(here["method"] == found["method"]) & (here["params"] == found["params"])]["top1"]
        theirs = here[(here["method"] == method) & here["params"].str.contains(params)]["top1"].reindex(mine.index)
        gained, lost = int((mine & ~theirs).sum()), int((~mine & theirs).sum())
        assert (found["images"], found["gained"], found["lost"]) == (1000, gained, lost)
        assert found["delta_top1"] == pytest.approx(100 * (mine.mean() - theirs.mean()))
        assert found["p"] == pytest.approx(stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1)
        if gained and lost:
            ends = tango_by_likelihood(gained, lost, 1000)
            assert [found["delta_lo"], found["delta_hi"]] == pytest.approx([100 * end for end in ends], abs=1e-3)
        decided = "better" if found["delta_lo"] > 0 else "worse" if found["delta_hi"] < 0 else "undecided"
        assert found["verdict"] == decided


def test_seeds_of_real_answers_are_no_images() -> None:
    results = load(REFERENCE)
    found = one(results, "random_selection", method="importance_sampling", keep=0.5)
    raw = results.answers.query("keep == 0.5")
    mean = raw.groupby(["method", "image"], observed=True)["top1"].mean()
    differences = mean["importance_sampling"] - mean["random_selection"]
    assert (found["seeds"], found["images"]) == (3, 1000)
    assert found["delta_top1"] == pytest.approx(100 * differences.mean())
    usual = stats.t(999, differences.mean(), stats.sem(differences)).interval(0.95)
    assert [found["delta_lo"], found["delta_hi"]] == pytest.approx([100 * end for end in usual], abs=0.15)
    assert (found["gained"], found["lost"]) == ((differences > 0).sum(), (differences < 0).sum())


def test_repeating_a_seed_adds_no_certainty(tmp_path: Path) -> None:
    mine, theirs = answers(0.72), answers(0.70)
    once = write(tmp_path / "once", row("a", mine, seed=0), row("b", theirs))
    often = write(tmp_path / "often", *(row("a", mine, seed=seed) for seed in range(5)), row("b", theirs))
    single, several = one(once, "b"), one(often, "b")
    assert several["seeds"] == 5
    for name in ("images", "gained", "lost", "verdict", "images_needed", "delta_top1"):
        assert several[name] == single[name], name
    widths = [found["delta_hi"] - found["delta_lo"] for found in (several, single)]
    assert widths[0] == pytest.approx(widths[1], rel=0.05)


def test_an_undecided_difference_says_how_many_images_would_do(tmp_path: Path) -> None:
    mine = "0" * 6 + "-" * 4 + "0" * 90
    theirs = "-" * 6 + "0" * 94
    found = one(write(tmp_path / "x", row("a", mine), row("b", theirs)), "b")
    assert (found["gained"], found["lost"], found["verdict"]) == (6, 4, "undecided")
    needed = found["images_needed"]
    assert 0.02 * needed > Z * math.sqrt(0.1 * needed)
    assert not 0.02 * (needed - 1) > Z * math.sqrt(0.1 * (needed - 1))
    same = one(write(tmp_path / "same", row("a", theirs), row("b", theirs)), "b")
    assert (same["delta_top1"], same["p"], same["verdict"]) == (0, 1, "undecided")
    assert pd.isna(same["images_needed"])
    better = one(write(tmp_path / "better", row("a", "0" * 100), row("b", "-" * 30 + "0" * 70)), "b")
    assert better["verdict"] == "better"
    assert pd.isna(better["images_needed"])


def test_rows_are_paired_at_the_same_keep_and_model(tmp_path: Path) -> None:
    texts = {(model, method, keep): answers(keep) for model in "mn" for method in "ab" for keep in (0.7, 0.5)}
    rows = [row(method, text, keep=keep, model=model) for (model, method, keep), text in texts.items()]
    results = load(write(tmp_path / "x", *rows))
    frame = results.versus("b")
    assert frame[["model", "method", "keep"]].to_numpy().tolist() == [
        [model, "a", keep] for model in "mn" for keep in (0.7, 0.5)
    ]
    for found in frame.to_dict("records"):
        mine, theirs = (texts[found["model"], method, found["keep"]] for method in "ab")
        assert found["gained"] == sum(pair == ("0", "-") for pair in zip(mine, theirs, strict=True))
    assert list(frame) == list(COLUMNS)
    both = results.versus("b", "a")
    assert both["versus"].tolist() == ["b"] * 4 + ["a"] * 4
    assert both["delta_top1"].tolist()[:4] == pytest.approx((-both["delta_top1"]).tolist()[4:])
    assert results.versus().empty


def test_a_budget_is_the_setting_whatever_the_keep(tmp_path: Path) -> None:
    at = {"schedule": "budget(0.7)"}
    directory = write(
        tmp_path / "x",
        row("a", answers(0.7), 0.703, keep=0.71, **at),
        row("b", answers(0.7), 0.700, keep=0.75, **at),
        row("b", answers(0.7), 0.500, keep=0.71, schedule="budget(0.5)"),
    )
    found = one(directory, "b")
    assert (found["versus_gmacs"], found["note"]) == (0.7, "")
    assert found["images"] == 500


def test_other_schedules_and_keeps_are_named_and_not_compared(tmp_path: Path) -> None:
    directory = write(
        tmp_path / "x",
        row("a", answers(0.7), schedule="every_block(r=3)", keep=None),
        row("a", answers(0.7), keep=0.9),
        row("b", answers(0.7)),
    )
    frame = load(directory).versus("b")
    assert frame["verdict"].tolist() == ["not comparable"] * 2
    assert frame["delta_top1"].isna().all()
    assert frame["note"][0] == "b has another schedule, stages(at=3): not comparable at equal compute"
    assert frame["note"][1] == "b was not measured at this keep"


@pytest.mark.parametrize(
    ("gmacs", "note"),
    [
        (0.706, ""),
        (0.694, ""),
        (0.77, "10 % more MACs than b: not at equal compute"),
        (0.63, "10 % fewer MACs than b: not at equal compute"),
        (None, "MACs were not counted: may not be at equal compute"),
    ],
)
def test_unequal_compute_is_said(tmp_path: Path, gmacs: float | None, note: str) -> None:
    found = one(write(tmp_path / "x", row("a", answers(0.7), gmacs), row("b", answers(0.7), 0.7)), "b")
    assert found["note"] == note
    assert found["images"] == 500


def test_the_plain_model_and_fewer_pixels_are_compared_with_all(tmp_path: Path) -> None:
    small = answers(0.6)
    directory = write(
        tmp_path / "x",
        row("none", answers(0.8), 1.0),
        row("none", small, 0.7, params="img_size=192"),
        row("a", answers(0.7), 0.7),
        row("a", answers(0.7), 0.5, schedule="budget(0.5)"),
    )
    results = load(directory)
    assert results.versus("none")["method"].tolist() == ["none", "a", "a"]
    frame = results.versus("none(img_size=192)")
    assert frame["params"].tolist() == ["", "", ""]
    assert frame["images"].tolist() == [500, 500, 500]
    right = [(100 * text.count("0") / 500) for text in (results.outcomes(row) for row in results.plan.rows) if text]
    assert frame["delta_top1"].tolist() == pytest.approx(
        [right[0] - right[1], right[2] - right[1], right[3] - right[1]]
    )
    # With a method, the rows of the plain model are left to the main table.
    assert results.versus("a")["method"].tolist() == []


def test_images_that_one_could_not_read_are_left_out(tmp_path: Path) -> None:
    directory = write(tmp_path / "x", row("a", "00?-0"), row("b", "-?000"), row("c", "?????"))
    found = one(directory, "b", method="a")
    assert (found["images"], found["gained"], found["lost"]) == (3, 1, 1)
    assert one(directory, "b", method="c")["note"] == "no image was read by both"


def test_batch_sizes_and_modes_share_their_answers(tmp_path: Path) -> None:
    mine, theirs = answers(0.7), answers(0.6)
    directory = write(
        tmp_path / "x",
        *(row("a", mine, batch_size=batch, mode=mode) for batch in (1, 8) for mode in ("eager", "compile")),
        *(row("b", theirs, batch_size=batch, mode=mode) for batch in (1, 8) for mode in ("eager", "compile")),
    )
    assert one(directory, "b")["seeds"] == 1


def test_unfinished_rows_are_said_to_be(tmp_path: Path) -> None:
    directory = write(tmp_path / "x", row("a", None), row("b", answers(0.7)), row("c", answers(0.7)))
    assert one(directory, "b", method="a")["note"] == "not measured"
    with pytest.raises(UserError, match="has no answers of a yet"):
        load(directory).versus("a")


# Which rows a text means

PRUNING = [row("p", answers(0.7), params=f"score={score},soft=false") for score in ("cls", "received")]


@pytest.mark.parametrize("text", ["p(score=cls)", "p(soft=False,score=cls)", "p(score='cls')"])
def test_parameters_choose_a_variant(tmp_path: Path, text: str) -> None:
    frame = load(write(tmp_path / "x", *PRUNING, row("a", answers(0.7)))).versus(text)
    assert frame["params"].tolist() == ["score=received,soft=false", ""]


def test_the_variant_with_the_defaults_needs_no_parameters(tmp_path: Path) -> None:
    info = MethodInfo(defaults={"score": "received", "soft": "false"})
    results = load(write(tmp_path / "x", *PRUNING, row("a", answers(0.7)), p=info))
    assert results.versus("p")["params"].tolist() == ["score=cls,soft=false", ""]
    assert results.versus("p(score=cls)")["params"].tolist() == ["score=received,soft=false", ""]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("evti", r"has no method 'evti': did you mean 'evit'\?"),
        ("p", r"has several p: choose 'p\(score=cls\)' or 'p\(score=received\)'"),
        ("p(soft=false)", r"has several p\(soft=false\): choose 'p\(score=cls\)' or 'p\(score=received\)'"),
        ("p(score=sum)", r"has no p\(score=sum\): choose 'p\(score=cls\)' or 'p\(score=received\)'"),
        ("evit(keep=1)", r"has no evit\(keep=1\): choose evit$"),
        ("p(cls)", "name its parameters"),
        ("p(", "expected name or name"),
    ],
)
def test_a_wrong_method_is_a_user_error(tmp_path: Path, text: str, message: str) -> None:
    results = load(write(tmp_path / "x", *PRUNING, row("evit", answers(0.7))))
    with pytest.raises(UserError, match=message):
        results.versus(text)
