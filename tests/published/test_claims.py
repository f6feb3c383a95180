"""Published numbers: the file is complete and consistent, and each number is shown beside the right rows."""

import io
import math

import pandas as pd
import pytest
from rich.console import Console

from tokbench import Downsampler
from tokbench.config import load_config
from tokbench.downsampler import Claim
from tokbench.notation import parse_call
from tokbench.published.claims import BESIDE, DECIMALS, NUMBERS, TEXTS, VALIDATION_IMAGES, load_claims, published
from tokbench.published.claims import beside as beside_plan
from tokbench.registry import bind_parameters, discover
from tokbench.report.terminal.published import render_claims
from tokbench.results import COLUMNS, MethodInfo, Plan
from tokbench.results.columns import TYPES
from tokbench.run.method_info import infos, method_info
from tokbench.schedule import Schedule
from tokbench.vit.models import full_name

SMALL = "deit_small_patch16_224"
TOME = {"method": "tome", "params": "proportional=true", "schedule": "every_block(r=13)", "keep": None}


@pytest.fixture(scope="module")
def methods() -> dict[str, MethodInfo]:
    """What a plan says of every method that comes with tokbench."""
    return infos(discover()[0].values())


@pytest.fixture(scope="module")
def beside(methods):
    """`tokbench.published.claims.beside` with the plan that a comparison of these rows has."""

    def found(rows):
        models = {model: full_name(model) for model in rows["model"].unique()}
        return beside_plan(rows, Plan(load_config().suite("embedded", {}), "cpu", None, (), methods, models))

    return found


def table(*rows):
    """A comparison's table, from the values that matter in its rows."""
    usual = {
        **{"model": SMALL, "regime": "off-the-shelf", "site": "after_attention", "status": "ok", "params": ""},
        **{"batch_size": 1, "compiled": False, "pareto": False, "gmacs": 2.703},
        **{"top1": 78.9, "images": VALIDATION_IMAGES, "keep": 0.7, "schedule": "stages(at=3-6-9)"},
    }
    return pd.DataFrame([{**dict.fromkeys(COLUMNS), **usual, **row} for row in rows]).astype(TYPES)


def printed(render, frame, width=80):
    console = Console(file=io.StringIO(), width=width)
    render(frame, console)
    return console.file.getvalue()


def test_the_file_has_the_columns_and_every_row_its_regime_and_source() -> None:
    claims = load_claims()
    assert set(claims.columns) == {*TEXTS, *NUMBERS, DECIMALS, "year"}
    assert len(claims) == 336 + 8 + 23
    assert set(claims["regime"]) == {"off-the-shelf", "fine-tuned", "plain"}
    assert set(claims["read_from"]) == {"table", "figure", "text"}
    assert claims["source"].str.startswith("https://").all()
    assert (claims[["published_as", "published_model", "paper"]] != "").all(axis=None)
    assert claims["top1"].between(50, 100).all()
    assert not (claims["gmacs"] <= 0).any()
    assert claims["keep"].dropna().between(0, 1).all()
    assert not claims.duplicated().any()
    assert ((claims["regime"] == "plain") == (claims["method"] == "none")).all()


def test_methods_parameters_and_schedules_are_written_as_in_the_table() -> None:
    known, _ = discover()
    claims = load_claims()
    for row in claims[claims["method"].isin(known)].to_dict("records"):
        bind_parameters(row["method"], parse_call(f"{row['method']}({row['params']})").named)
        if row["schedule"]:
            keep = None if math.isnan(row["keep"]) else row["keep"]
            assert str(Schedule.parse(row["schedule"], keep)) == row["schedule"]


@pytest.mark.parametrize("name", ["token_pooling", "score_pruning", "random_selection", "tome", "evit"])
def test_methods_have_claims(name: str) -> None:
    if name not in discover()[0]:
        pytest.skip("not there")
    found = published({name: method_info(discover()[0][name])})
    own = found[found["method"] == name]
    assert len(own) > 0
    assert (own["top1"] > 50).all()
    assert (own["source"] != "").all()


def test_a_row_is_shown_beside_published_numbers_of_the_same_setting(beside) -> None:
    found = beside(table(TOME))
    assert list(found.columns) == list(BESIDE)
    assert list(found["paper"]) == ["ToMe issue 11 (user)"]  # not the trained one, not those without a schedule
    line = found.iloc[0]
    assert line["difference"] == pytest.approx(78.9 - 78.826)
    assert (line["claimed_gmacs"], line["not_comparable"], line["note"]) == (2.7, "", "")


@pytest.mark.parametrize(
    "change",
    [
        {"params": "proportional=false"},
        {"schedule": "every_block(r=12)"},
        {"schedule": "stages(at=3-6-9)", "keep": 0.7},
        {"model": "deit_tiny_patch16_224"},
        {"model": "digits_deit"},
        {"regime": "fine-tuned", "model": "deit_base_patch16_224"},
        {"method": "of_a_plugin_that_is_gone"},
        {"status": "failed"},
    ],
)
def test_a_row_that_differs_in_one_setting_matches_nothing(beside, change: dict[str, object]) -> None:
    assert beside(table({**TOME, **change})).empty


def test_keep_and_parameters_select_the_claim(beside) -> None:
    cls = {"method": "score_pruning", "params": "score=cls"}
    found = beside(table({**cls, "keep": 0.5, "top1": 73.0}, {**cls, "params": "score=received"}))
    assert list(found["claimed_top1"]) == [73.8]


def test_the_top1_of_seeds_is_averaged(beside) -> None:
    found = beside(table(*({**TOME, "seed": seed, "top1": 78 + seed} for seed in range(3))))
    assert list(found["top1"]) == [79]


@pytest.mark.parametrize(
    ("images", "top1", "reason", "line"),
    [
        (1000, 78.9, "1000 images", "Published numbers are not comparable: 1000 images"),
        (None, None, "not measured", "no Δ"),
    ],
)
def test_the_claim_is_shown_without_a_difference_on_other_images(
    beside, images: int | None, top1: float | None, reason: str, line: str
) -> None:
    found = beside(table({**TOME, "images": images, "top1": top1}))
    assert reason in found.iloc[0]["not_comparable"]
    assert found["difference"].isna().all()
    assert list(found["claimed_top1"]) == [78.826]
    text = " ".join(printed(render_claims, found).split())
    assert line in text
    assert ("Published ·" in text) == (top1 is None)


def test_the_note_says_if_the_paper_has_another_plain_model(beside) -> None:
    found = beside(table({"method": "none", "schedule": "", "keep": 1.0, "site": "", "top1": 79.856}))
    notes = dict(zip(found["paper"], found["note"], strict=True))
    assert notes["Token Pooling (2110.03860)"] == "its plain model has 81.2 %, the public weights 79.856 %"
    assert notes["DynamicViT"] == notes["timm results"] == ""


def test_a_model_without_a_tag_has_timms_default_weights(beside) -> None:
    tome = {**TOME, "model": "vit_small_patch16_224"}
    assert list(beside(table(tome))["claimed_top1"]) == [79.3]
    assert beside(table({**tome, "model": "vit_small_patch16_224.augreg_in1k"})).empty


def test_the_claims_of_a_plugin_class_are_added() -> None:
    class Claiming(Downsampler):
        name = "a_claiming_plugin"
        claims = (Claim(SMALL, "off-the-shelf", 2.9, 79.0, "https://example.org/paper"),)

    found = published({"a_claiming_plugin": method_info(Claiming)})
    assert list(found["method"]).count("a_claiming_plugin") == 1
    row = found.iloc[-1]
    assert (row["method"], row["model"], row["gmacs"], row["top1"], row["schedule"], row["source"]) == (
        "a_claiming_plugin",
        f"{SMALL}.fb_in1k",
        2.9,
        79,
        "",
        "https://example.org/paper",
    )


def test_measured_and_published_numbers_fit_80_columns(beside) -> None:
    plain = {"method": "none", "schedule": "", "keep": 1.0, "site": "", "top1": 79.856, "gmacs": 4.599}
    text = printed(render_claims, beside(table(plain, TOME)))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for part in (SMALL, "tome", "78.826", "+0.07", "its plain model has 81.2 %", "facebookresearch/ToMe/issues/11"):
        assert part in text


def test_nothing_is_printed_without_published_numbers(beside) -> None:
    assert printed(render_claims, beside(table({"method": "random_selection"}))) == ""
