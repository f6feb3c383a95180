"""`tokbench list claims`: short without a filter, and what is not comparable stands there with the reason."""

import json
import shlex
from collections.abc import Callable

import pytest
from made_answers import row, write

from tokbench.names import PLAIN
from tokbench.published.claims import load_claims
from tokbench.published.verdicts import VERDICTS

Run = Callable[..., tuple[int, str, str]]

SMALL = "deit_small_patch16_224"


def listed(run: Run, options: str) -> str:
    code, out, err = run("list", "claims", *shlex.split(options))
    assert (code, err) == (0, "")
    return out


def words(text: str) -> str:
    """The text with its lines joined, to look for sentences that the width breaks."""
    return " ".join(text.split())


def test_without_a_filter_there_is_a_line_for_each_method(run: Run) -> None:
    claims = load_claims()
    lines = listed(run, "").splitlines()
    assert len(lines) <= 40
    for method, rows in claims[claims["method"] != ""].groupby("method"):
        (line,) = [line for line in lines if line.startswith("plain model" if method == PLAIN else f"{method} ")]
        assert line.split()[-5] == str(len(rows))


def test_a_method_and_a_model_give_what_is_comparable_and_the_nearest_of_the_others(run: Run) -> None:
    out = listed(run, f"--method tome --model {SMALL}")
    assert len(out.splitlines()) <= 40
    comparable, _, others = out.partition("Not comparable")
    assert "78.826" in comparable
    assert "79.36" not in comparable
    assert "the nearest 8 of 18" in others
    first = others.index("79.36")  # trained: it differs in one thing only, at the same compute
    assert "fine-tuned" in others[first:]
    assert first < others.index("token counts unknown")
    assert "https://github.com/facebookresearch/ToMe/issues/11" in out


@pytest.mark.parametrize("options", ["--method token_pooling", "--models DeiT-Ti", "--method tome,evit --model DeiT-B"])
def test_every_line_that_is_not_comparable_has_a_reason(run: Run, options: str) -> None:
    out = listed(run, options)
    assert len(out.splitlines()) <= 90
    assert "why not" in out
    assert max(map(len, out.splitlines())) <= 100


def test_both_spellings_are_the_same_option(run: Run) -> None:
    assert listed(run, "--methods evit --models DeiT-S") == listed(run, "--method evit --model DeiT-S")


@pytest.mark.parametrize("width", ["80", "160"])
def test_nothing_is_cut(run: Run, monkeypatch: pytest.MonkeyPatch, width: str) -> None:
    out = listed(run, "--method tome")  # resets COLUMNS
    monkeypatch.setenv("COLUMNS", width)
    narrow = listed(run, "--method tome")
    assert max(map(len, narrow.splitlines())) <= int(width)
    assert "…" not in narrow
    assert sorted(narrow.replace("─", "").replace(" ", "").replace("\n", "")) == sorted(
        out.replace("─", "").replace(" ", "").replace("\n", "")
    )


def test_measured_numbers_are_set_beside(run: Run, tmp_path_factory: pytest.TempPathFactory) -> None:
    tome = {"model": SMALL, "params": "", "schedule": "every_block(r=13)", "keep": None}
    rows = [row(PLAIN, "0" * 45 + "-" * 5, 4.6, model=SMALL), row("tome", "0" * 44 + "-" * 6, 2.7, **tome)]
    made = write(tmp_path_factory.mktemp("runs") / "mine", *rows)
    options = f"--method tome --model {SMALL} --measured {made}"
    out = listed(run, options)
    for verdict in VERDICTS:
        assert f"\n{verdict} " in f"\n{out}"
    assert "published -1.0 points on ImageNet at 2.7 GMACs; here -2.0 [" in words(out)
    lines = json.loads(listed(run, f"{options} --json"))
    of_issue = [line for line in lines if line["paper"] == "ToMe issue 11 (user)"]
    assert [line["verdict"] for line in of_issue] == ["reproduced", "other images"]
    assert {line["run"] for line in of_issue} == {"mine"}


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ("--method tone", "did you mean 'tome'?"),
        ("--method atc", "there are no published numbers of 'atc'"),
        ("--model DeiTS", "did you mean 'DeiT-S'?"),
        ("--measured nowhere", "no results in nowhere"),
    ],
)
def test_mistakes_are_one_line(run: Run, options: str, part: str) -> None:
    code, out, err = run("list", "claims", *shlex.split(options))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert part in err


def test_the_options_are_for_claims_only(run: Run) -> None:
    code, _, err = run("list", "methods", "--measured", "x")
    assert code == 2
    assert "are for claims: tokbench list claims" in err
