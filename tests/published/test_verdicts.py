"""Published numbers are judged as anyone would by hand: hand-made claims, counts and runs with known answers."""

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_answers import row, write

from tokbench.names import PLAIN
from tokbench.published.claims import VALIDATION_IMAGES, load_claims
from tokbench.published.counted import Counted, load_counted, setting
from tokbench.published.measured import differences, measured_rows, nearest
from tokbench.published.verdicts import (
    COLUMNS,
    CONTAINED,
    EXPLAINED,
    NOT_CONTAINED,
    NOT_MEASURED,
    NOT_TESTABLE,
    OTHER_IMAGES,
    REPRODUCED,
    UNEXPLAINED,
    VERDICTS,
    compare_claims,
    count_verdicts,
    judge,
)
from tokbench.results import MethodInfo, Results

SMALL = "deit_small_patch16_224"  # its public weights have 79.856 %
TOME = MethodInfo(defaults={"proportional": "true"})
R13 = {"model": SMALL, "params": "proportional=true", "schedule": "every_block(r=13)", "keep": None}


def claims(*changes: dict[str, Any]) -> pd.DataFrame:
    """Claims like the one of ToMe in DeiT-S, r=13, with these differences; sources with one decimal of compute."""
    known = load_claims()
    usual = known[known["paper"] == "ToMe issue 11 (user)"].iloc[0].to_dict()
    rows = [{**usual, "gmacs": math.nan, "decimals": 1, "top1": math.nan, **change} for change in changes]
    return pd.DataFrame(rows).astype(known.dtypes)


def verdict(claim: dict[str, Any], runs: list[Results] | None = None, counted: Counted | None = None) -> dict[Any, Any]:
    """The only line that one claim with one number gives."""
    made = claims(claim)
    counts = {setting(made.iloc[0].to_dict()): counted} if counted else {}
    (line,) = judge(made, measured_rows(runs or []), counts).to_dict("records")
    return line


def run(directory: Path, plain: float, tome: float, images: int = VALIDATION_IMAGES, **settings: Any) -> list[Results]:
    """A run with these accuracies in percent, of the plain model and of ToMe."""
    answers = ["0" * round(images * top1 / 100) for top1 in (plain, tome)]
    rows = [
        row(PLAIN, answers[0].ljust(images, "-"), 4.6, model=SMALL),
        row("tome", answers[1].ljust(images, "-"), 2.7, **{**R13, **settings}),
    ]
    return [Results(write(directory / "made", *rows, tome=TOME))]


@pytest.mark.parametrize(
    ("published", "decimals", "counted", "expected"),
    [
        (2.7, 1, 2.7499, REPRODUCED),
        (2.7, 1, 2.6501, REPRODUCED),
        (2.7, 1, 2.7501, UNEXPLAINED),
        (2.70, 2, 2.7499, UNEXPLAINED),
        (31, 0, 31.49, REPRODUCED),
        (2.905, 3, 2.9107, UNEXPLAINED),
    ],
)
def test_compute_agrees_to_half_of_the_last_printed_digit(
    published: float, decimals: int, counted: float, expected: str
) -> None:
    line = verdict({"gmacs": published, "decimals": decimals}, counted=Counted(counted, 0, 0))
    assert line["verdict"] == expected
    assert line["difference"] == pytest.approx(counted - published)


def test_a_number_off_a_figure_may_be_two_percent_off() -> None:
    figure = {"gmacs": 2.0, "decimals": 3, "read_from": "figure"}
    assert verdict(figure, counted=Counted(2.039, 0, 0))["verdict"] == REPRODUCED
    assert verdict(figure, counted=Counted(2.041, 0, 0))["verdict"] == UNEXPLAINED


@pytest.mark.parametrize(
    ("counted", "named"),
    [
        (Counted(2.80, 0.1, 0.03), "without the method's own operations"),
        (Counted(2.62, 0.0, 0.05), "with LayerNorm"),
        (Counted(2.80, 0.2, 0.1), "with LayerNorm, without the method's own operations"),
    ],
)
def test_compute_is_explained_by_the_convention_that_gives_it(counted: Counted, named: str) -> None:
    line = verdict({"gmacs": 2.7}, counted=counted)
    assert (line["verdict"], line["reason"]) == (EXPLAINED, "counting")
    assert f"the source counts {named}: " in line["why"]


def test_one_convention_must_fit_all_numbers_of_a_source() -> None:
    two = claims({"gmacs": 2.7}, {"gmacs": 2.3, "schedule": "every_block(r=16)"})
    keys = [setting(claim) for claim in two.to_dict("records")]
    fits_one = {keys[0]: Counted(2.8, 0.1, 0), keys[1]: Counted(2.4, 0.0, 0.0)}
    fits_both = {keys[0]: Counted(2.8, 0.1, 0), keys[1]: Counted(2.4, 0.1, 0.0)}
    agrees_already = {keys[0]: Counted(2.8, 0.1, 0), keys[1]: Counted(2.3, 0.0, 0.0)}
    assert list(judge(two, [], fits_one)["verdict"]) == [UNEXPLAINED, UNEXPLAINED]
    assert list(judge(two, [], fits_both)["verdict"]) == [EXPLAINED, EXPLAINED]
    assert list(judge(two, [], agrees_already)["verdict"]) == [EXPLAINED, REPRODUCED]
    of_two_sources = two.assign(paper=["one", "other"])
    assert list(judge(of_two_sources, [], fits_one)["verdict"]) == [EXPLAINED, UNEXPLAINED]


def test_compute_that_was_not_counted_may_have_been_measured(tmp_path: Path) -> None:
    runs = run(tmp_path, 79.9, 78.8)
    line = verdict({"gmacs": 2.7}, runs)
    assert (line["verdict"], line["measured"], line["run"]) == (REPRODUCED, 2.7, "made")
    assert verdict({"gmacs": 2.7, "schedule": ""}, runs)["verdict"] == NOT_TESTABLE


@pytest.mark.parametrize(
    ("change", "reason", "why"),
    [
        ({"method": "", "published_as": "AS-ViT"}, "method", "tokbench has no AS-ViT"),
        ({"model": "", "published_model": "LV-ViT-S"}, "weights", "timm has no weights of LV-ViT-S"),
        ({"schedule": ""}, "schedule", "token counts unknown"),
    ],
)
def test_what_cannot_be_counted_or_measured_says_why(change: dict[str, Any], reason: str, why: str) -> None:
    for number in ({"gmacs": 2.7}, {"top1": 78.8}):
        line = verdict({**change, **number})
        assert (line["verdict"], line["reason"]) == (NOT_TESTABLE, reason)
        assert why in line["why"]
        assert math.isnan(line["difference"])


def test_a_top1_that_only_needs_the_images_comes_with_its_command() -> None:
    line = verdict({"top1": 78.826})
    assert line["verdict"] == NOT_MEASURED
    assert line["command"] == (
        f"tokbench compare imagenet --data IMAGENET --models {SMALL}.fb_in1k --methods tome "
        "--schedule 'every_block(r=13)'"
    )


def test_a_plain_model_of_the_authors_own_is_not_testable() -> None:
    own = {"method": PLAIN, "regime": "plain", "schedule": "", "keep": 1.0, "top1": 81.2, "baseline_top1": 81.2}
    line = verdict(own)
    assert (line["verdict"], line["reason"]) == (NOT_TESTABLE, "baseline")
    assert line["why"] == "its plain model has 81.2 %, the public weights 79.856 %"


@pytest.mark.parametrize(
    ("plain", "tome", "change", "expected", "reason"),
    [
        (79.86, 78.90, {}, REPRODUCED, ""),
        (79.86, 78.50, {}, UNEXPLAINED, ""),
        (79.56, 78.53, {"baseline_top1": 79.86}, EXPLAINED, "baseline"),
        (79.56, 78.90, {"baseline_top1": 79.86}, REPRODUCED, ""),
        (79.86, 78.50, {"regime": "fine-tuned"}, EXPLAINED, "regime"),
        (79.86, 78.50, {"schedule": "every_block(r=16)"}, EXPLAINED, "schedule"),
        (79.86, 78.50, {"params": "proportional=false"}, EXPLAINED, "parameters"),
        (79.86, 78.90, {"regime": "fine-tuned"}, NOT_TESTABLE, "regime"),
        (79.86, 78.65, {"read_from": "figure"}, REPRODUCED, ""),
    ],
)
def test_a_top1_on_all_validation_images(
    tmp_path: Path, plain: float, tome: float, change: dict[str, Any], expected: str, reason: str
) -> None:
    line = verdict({"top1": 78.826, **change}, run(tmp_path, plain, tome))
    assert (line["verdict"], line["reason"]) == (expected, reason)
    assert line["measured"] == pytest.approx(tome)
    if reason and expected == EXPLAINED:
        assert f"{plain - 79.86 if reason == 'baseline' else tome - 78.826:+.2f} points" in line["why"]


@pytest.mark.parametrize(("tome", "expected"), [(88.0, CONTAINED), (80.0, NOT_CONTAINED)])
def test_on_other_images_only_the_loss_is_set_beside(tmp_path: Path, tome: float, expected: str) -> None:
    """The published loss is 78.826 - 79.856 = -1.03 points."""
    line = verdict({"top1": 78.826}, run(tmp_path, 89.0, tome, images=500))
    assert (line["verdict"], line["reason"]) == (OTHER_IMAGES, expected)
    assert math.isnan(line["measured"])
    assert math.isnan(line["difference"])
    assert f"published -1.0 points on ImageNet; here {tome - 89:+.1f} [" in line["why"]
    assert "on 500 other images" in line["why"]


@pytest.mark.parametrize(("gmacs", "expected"), [(2.75, OTHER_IMAGES), (2.9, NOT_TESTABLE)])
def test_a_row_stands_in_for_unknown_token_counts_only_at_nearly_the_same_compute(
    tmp_path: Path, gmacs: float, expected: str
) -> None:
    made = claims({"top1": 78.8, "gmacs": gmacs, "schedule": ""})
    lines = judge(made, measured_rows(run(tmp_path, 89, 88, images=500)), {})
    assert list(lines["verdict"]) == [NOT_TESTABLE, expected]


def test_the_nearest_row_differs_in_the_fewest_settings_then_in_compute(tmp_path: Path) -> None:
    answers = "0-" * 10
    settings = [("every_block(r=13)", 2.7), ("every_block(r=16)", 2.3), ("every_block(r=8)", 3.3)]
    rows = [row(PLAIN, answers, 4.6, model=SMALL)]
    rows += [row("tome", answers, gmacs, **{**R13, "schedule": text}) for text, gmacs in settings]
    found = measured_rows([Results(write(tmp_path / "made", *rows, tome=TOME))])
    exact = claims({"gmacs": 3.3}).iloc[0].to_dict()
    assert [str(nearest(exact, found)), differences(exact, nearest(exact, found))] == ["tome every_block(r=13)", {}]
    unknown = {**exact, "schedule": ""}
    assert str(nearest(unknown, found)) == "tome every_block(r=8)"
    assert nearest({**exact, "method": "tofu"}, found) is None


def test_seeds_are_averaged_and_their_intervals_joined(tmp_path: Path) -> None:
    rows = [row(PLAIN, "0" * 100, 4.6, model=SMALL)]
    rows += [row("tome", "0" * n + "-" * (100 - n), 2.7, **{**R13, "seed": n}) for n in (80, 90)]
    made = Results(write(tmp_path / "made", *rows, tome=TOME))
    (found,) = [one for one in measured_rows([made]) if one.method == "tome"]
    assert (found.top1, found.delta, found.images) == (85, -15, 100)
    table = made.table[made.table["method"] == "tome"]
    assert (found.delta_lo, found.delta_hi) == (table["delta_lo"].min(), table["delta_hi"].max())


def test_runs_on_other_classes_are_left_out() -> None:
    digits = Results(Path(__file__).parents[2] / "results/reference/embedded")
    assert measured_rows([digits]) == []


def test_every_published_number_has_one_line_and_one_verdict() -> None:
    known = load_claims()
    found = compare_claims([], known)
    assert list(found.columns) == list(COLUMNS)
    assert len(found) == known["gmacs"].notna().sum() + known["top1"].notna().sum()
    counts = count_verdicts(found)
    assert list(counts.index) == list(VERDICTS)
    assert counts.to_numpy().sum() == len(found)
    needing_why = found["verdict"].isin([EXPLAINED, UNEXPLAINED, NOT_TESTABLE, NOT_MEASURED])
    assert (found.loc[needing_why, "why"] != "").all()


def test_the_counts_that_come_with_tokbench_are_those_of_the_settings_that_can_be_counted() -> None:
    """Those of the plain DeiTs are known from the closed form: 12 blocks of 4·N·D² + 2·N²·D + 8·N·D², and the ends."""
    counted = load_counted()
    for model, dim in (("deit_tiny", 192), ("deit_small", 384), ("deit_base", 768)):
        n = 197
        blocks = 12 * (4 * n * dim**2 + 2 * n**2 * dim + 8 * n * dim**2)
        ends = 196 * 3 * 16 * 16 * dim + 1000 * dim
        plain = counted[f"{model}_patch16_224", PLAIN, "", "", 1.0]
        assert plain.gmacs == pytest.approx((blocks + ends) / 1e9, rel=1e-5)
        assert plain.norm == pytest.approx(25 * 5 * n * dim / 1e9, rel=1e-5)
    found = compare_claims([], load_claims())
    assert not found["why"].str.contains("not counted yet").any()
