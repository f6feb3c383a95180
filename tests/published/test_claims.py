"""Published numbers: the file holds what it should, and stands beside the right rows."""

import io
import math

import pandas as pd
import pytest
from rich.console import Console

from tokbench import Downsampler, register
from tokbench.downsampler import Claim
from tokbench.notation import parse_call
from tokbench.published.claims import (
    BESIDE,
    NUMBERS,
    TEXTS,
    VALIDATION_IMAGES,
    beside,
    claims_for,
    load_claims,
    published,
)
from tokbench.registry import bind_parameters, discover
from tokbench.report.terminal.published import render_claims, render_published
from tokbench.results.table import COLUMNS
from tokbench.schedule import Schedule

SMALL = "deit_small_patch16_224"
TOME = {"method": "tome", "params": "proportional=true", "schedule": "every_block(r=13)", "keep": None}


def table(*rows):
    """A comparison's table from what matters of its rows."""
    usual = {
        **{"model": SMALL, "regime": "off-the-shelf", "site": "after_attention", "status": "ok", "params": ""},
        **{"batch_size": 1, "compiled": False, "pareto": False, "gmacs": 2.703},
        **{"top1": 78.9, "images": VALIDATION_IMAGES, "keep": 0.7, "schedule": "stages(at=3-6-9)"},
    }
    return pd.DataFrame([{**dict.fromkeys(COLUMNS), **usual, **row} for row in rows]).astype(COLUMNS)


def printed(render, frame, width=80):
    console = Console(file=io.StringIO(), width=width)
    render(frame, console)
    return console.file.getvalue()


def test_the_file_has_the_columns_and_every_row_its_regime_and_source() -> None:
    claims = load_claims()
    assert set(claims.columns) == {*TEXTS, *NUMBERS, "year"}
    assert len(claims) == 336 + 23
    assert set(claims["regime"]) == {"off-the-shelf", "fine-tuned", "plain"}
    assert set(claims["read_from"]) == {"table", "figure", "text"}
    assert claims["source"].str.startswith("https://").all()
    assert (claims[["published_as", "published_model", "paper"]] != "").all(axis=None)
    assert claims["top1"].between(50, 100).all()
    assert not (claims["gmacs"] <= 0).any()
    assert claims["keep"].dropna().between(0, 1).all()
    assert not claims.duplicated().any()
    assert ((claims["regime"] == "plain") == (claims["method"] == "none")).all()


def test_methods_parameters_and_schedules_are_ours_as_the_table_writes_them() -> None:
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
    assert all(claim.top1 > 50 and claim.source for claim in claims_for(name))
    assert claims_for(name)


def test_a_row_stands_beside_what_was_published_of_the_same() -> None:
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
def test_what_differs_in_one_thing_is_something_else(change: dict[str, object]) -> None:
    assert beside(table({**TOME, **change})).empty


def test_keep_and_parameters_choose_among_a_methods_claims() -> None:
    cls = {"method": "score_pruning", "params": "score=cls"}
    found = beside(table({**cls, "keep": 0.5, "top1": 73.0}, {**cls, "params": "score=received"}))
    assert list(found["claimed_top1"]) == [73.8]


def test_seeds_count_by_their_mean() -> None:
    found = beside(table(*({**TOME, "seed": seed, "top1": 78 + seed} for seed in range(3))))
    assert list(found["top1"]) == [79]


@pytest.mark.parametrize(
    ("images", "top1", "reason", "line"),
    [
        (1000, 78.9, "1000 images", "Published numbers are not comparable: 1000 images"),
        (None, None, "not measured", "no Δ"),
    ],
)
def test_other_data_show_the_claim_without_a_difference(
    images: int | None, top1: float | None, reason: str, line: str
) -> None:
    found = beside(table({**TOME, "images": images, "top1": top1}))
    assert reason in found.iloc[0]["not_comparable"]
    assert found["difference"].isna().all()
    assert list(found["claimed_top1"]) == [78.826]
    text = " ".join(printed(render_claims, found).split())
    assert line in text
    assert ("Published ·" in text) == (top1 is None)


def test_a_paper_with_another_plain_model_says_so() -> None:
    found = beside(table({"method": "none", "schedule": "", "keep": 1.0, "site": "", "top1": 79.856}))
    notes = dict(zip(found["paper"], found["note"], strict=True))
    assert notes["Token Pooling (2110.03860)"] == "its plain model has 81.2 %, the public weights 79.856 %"
    assert notes["DynamicViT"] == notes["timm results"] == ""


def test_timms_default_weights_are_meant_where_no_tag_is_written() -> None:
    tome = {**TOME, "model": "vit_small_patch16_224"}
    assert list(beside(table(tome))["claimed_top1"]) == [79.3]
    assert beside(table({**tome, "model": "vit_small_patch16_224.augreg_in1k"})).empty


def test_a_plugins_own_claims_are_merged_in() -> None:
    @register("a_claiming_plugin")
    class Claiming(Downsampler):
        claims = (Claim(SMALL, "off-the-shelf", 2.9, 79.0, "https://example.org/paper"),)

    assert claims_for("a_claiming_plugin") == Claiming.claims
    row = published(["a_claiming_plugin"]).iloc[-1]
    assert (row["method"], row["model"], row["top1"], row["schedule"]) == (
        "a_claiming_plugin",
        f"{SMALL}.fb_in1k",
        79,
        "",
    )


def test_a_comparison_is_readable_at_80_columns() -> None:
    plain = {"method": "none", "schedule": "", "keep": 1.0, "site": "", "top1": 79.856, "gmacs": 4.599}
    text = printed(render_claims, beside(table(plain, TOME)))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for part in (SMALL, "tome", "78.826", "+0.07", "its plain model has 81.2 %", "facebookresearch/ToMe/issues/11"):
        assert part in text


def test_the_list_is_readable_at_80_columns_and_complete() -> None:
    claims = load_claims()
    text = printed(render_published, published(["tome", "score_pruning"]))
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    for top1 in claims.loc[claims["method"].isin(["tome", "score_pruning", "none"]), "top1"]:
        assert f"{top1:g}" in text
    assert "token_pooling" not in text


def test_nothing_to_show_prints_nothing() -> None:
    assert printed(render_claims, beside(table({"method": "random_selection"}))) == ""
