"""A method against the others, on terminals of several widths."""

import io

import pandas as pd
import pytest
from rich.console import Console

from tokbench.report.terminal.versus import render_versus
from tokbench.results.versus import COLUMNS, TYPES


def row(**given):
    values = {
        **{"model": "deit", "method": "tome", "params": "", "regime": "off-the-shelf", "site": "after_attention"},
        **{"schedule": "stages(at=3)", "keep": 0.7, "seeds": 1, "versus": "evit", "gmacs": 0.7, "versus_gmacs": 0.7},
        **{"images": 500, "delta_top1": 1.2, "delta_lo": -0.31, "delta_hi": 2.74, "gained": 12, "lost": 6, "p": 0.238},
        **{"verdict": "undecided", "images_needed": 961, "note": ""},
    }
    return values | given


def frame(*rows):
    return pd.DataFrame([*rows], columns=list(COLUMNS)).astype(TYPES)


def printed(*rows, width=120):
    file = io.StringIO()
    render_versus(frame(*rows), Console(file=file, width=width, highlight=False))
    lines = [line.rstrip() for line in file.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    return lines


def cells(lines, start):
    """The words of the only line that starts with this."""
    (found,) = (line for line in lines if line.startswith(start))
    return found.split()


def test_a_comparison_is_one_line():
    lines = printed(row())
    assert lines[0] == "deit · against evit · stages(at=3) · 500 images"
    expected = ["tome", "0.7", "1.2", "[-0.3,", "2.7]", "12/6", "0.238", "undecided", "~970"]
    assert cells(lines, "tome") == expected
    assert "GMACs" not in "".join(lines)


@pytest.mark.parametrize(
    ("needed", "text"),
    [(3, "~3"), (99, "~99"), (101, "~110"), (3901, "~4,000"), (123_456, "~130,000"), (None, "never")],
)
def test_how_many_images_are_needed_is_rounded_up(needed, text):
    assert cells(printed(row(images_needed=needed)), "tome")[-1] == text


def test_a_decided_comparison_needs_no_images():
    decided = row(verdict="better", images_needed=None, p=3e-5, delta_lo=0.4)
    assert cells(printed(decided), "tome")[-2:] == ["<0.001", "better"]


def test_unequal_compute_is_shown_at_every_width():
    rows = [row(gmacs=0.756, method="importance_sampling"), row()]
    for width in (80, 100, 120):
        lines = printed(*rows, width=width)
        assert "0.756 / 0.700" in "\n".join(lines)
        assert "0.700 / 0.700" not in "\n".join(lines)
        assert any("importance_sampling" in line for line in lines)
        assert any(line.startswith("unequal GMACs: of the method / of evit") for line in lines)


def test_a_narrow_terminal_leaves_out_the_test_before_the_interval():
    rows = [row(method="importance_sampling", gmacs=0.756, delta_top1=-12.3, delta_lo=-15.4, delta_hi=-9.2)]
    wide, narrow = printed(*rows), printed(*rows, width=80)
    assert "0.238" in "".join(wide)
    assert "0.238" not in "".join(narrow)
    assert "[-15.4, -9.2]" in "".join(narrow)


def test_keeps_of_budgets_and_of_the_plain_model_are_not_shown():
    budget = {"schedule": "budget(0.7)"}
    assert "0.7539" not in "\n".join(printed(row(keep=0.7539, **budget), row(keep=0.6, method="atc", **budget)))
    assert cells(printed(row(method="none", keep=1.0, schedule="")), "none")[1] == "1.2"


def test_what_cannot_be_compared_is_named_once_for_each_reason():
    missing = dict.fromkeys(("images", "delta_top1", "delta_lo", "delta_hi", "gained", "lost", "p", "images_needed"))
    other = {"verdict": "not comparable", "note": "evit has another schedule", "schedule": "every_block", **missing}
    lines = printed(row(), row(keep=0.9, method="atc", **other), row(keep=0.7, method="atc", **other), width=200)
    assert "not compared: atc every_block keep 0.9, 0.7 — evit has another schedule" in lines
    alone = printed(row(method="atc", **other), width=200)
    assert alone == ["deit · against evit", "", "not compared: atc every_block keep 0.7 — evit has another schedule"]


def test_models_and_methods_have_blocks_of_their_own():
    lines = printed(row(), row(model="vit"), row(versus="atc"))
    titles = [line for line in lines if " · against " in line]
    assert [title.partition(" · stages")[0] for title in titles] == [
        "deit · against evit",
        "vit · against evit",
        "deit · against atc",
    ]


def test_seeds_are_explained_where_there_are_several():
    assert not [line for line in printed(row()) if line.startswith("several seeds")]
    assert [line for line in printed(row(seeds=3)) if line.startswith("several seeds")]


def test_budgets_are_named_instead_of_the_keeps_solved_for_them():
    budgets = [row(schedule=f"budget({fraction})", keep=keep) for fraction, keep in ((0.7, 0.4678), (0.5, 0.21))]
    lines = printed(*budgets, row(method="dct", schedule="budget(0.7)", keep=0.46))
    assert lines[0] == "deit · against evit · 500 images"
    assert [line.split()[1] for line in lines if line.startswith(("tome", "dct"))] == ["budget(0.7)", "budget(0.7)"]
    assert sum("budget(0.5)" in line for line in lines) == 1
    assert "0.4678" not in "".join(lines)
