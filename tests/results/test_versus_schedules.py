"""Each method against itself with another schedule."""

from pathlib import Path

import pytest
from made_answers import outcomes, row, write

from tokbench.errors import UserError
from tokbench.results import load
from tokbench.results.versus import check_versus
from tokbench.stats.proportions import mcnemar, tango

FEW, MANY = outcomes([i % 5 != 0 for i in range(100)]), outcomes([i % 10 != 0 for i in range(100)])


def test_a_method_is_compared_with_itself_at_the_same_budget(tmp_path: Path) -> None:
    directory = write(
        tmp_path / "x",
        row("none", MANY, 1.0),
        row("a", FEW, schedule="budget(0.7)", keep=0.6),
        row("a", MANY, schedule="searched(0.7)", keep=None),
        row("b", MANY, schedule="budget(0.7)", keep=0.65),
        row("b", MANY, schedule="searched(0.7)", keep=None),
        row("b", MANY, schedule="searched(0.7)", keep=None, site="after_block"),
        row("c", MANY, schedule="searched(0.7)", keep=None),
    )
    frame = load(directory).versus("budget(0.7)").set_index(["method", "site"])
    a, b = frame.loc["a", "after_attention"], frame.loc["b", "after_attention"]
    interval = tango(10, 0, 100)
    assert (a["gained"], a["lost"], a["delta_top1"], a["verdict"]) == (10, 0, 10, "better")
    assert (a["delta_lo"], a["delta_hi"]) == pytest.approx((100 * interval.lo, 100 * interval.hi))
    assert a["p"] == pytest.approx(mcnemar([c == "0" for c in FEW], [c == "0" for c in MANY]).p)
    assert (b["delta_top1"], b["verdict"], b["versus"]) == (0, "undecided", "budget(0.7)")
    # The same method at another site, and a method without this schedule, have nothing to be compared with.
    for other in (("b", "after_block"), ("c", "after_attention")):
        assert frame.loc[other, "verdict"] == "not comparable"
        assert frame.loc[other, "note"] == "not measured with budget(0.7)"
    assert "none" not in frame.index.get_level_values("method")


def test_of_several_keeps_the_one_of_nearest_compute_counts(tmp_path: Path) -> None:
    directory = write(
        tmp_path / "x",
        row("a", FEW, 0.71, schedule="every_block(r=8)", keep=None),
        *(row("a", MANY, gmacs, schedule="stages(at=3)", keep=keep) for gmacs, keep in ((0.9, 0.8), (0.7, 0.6))),
    )
    (found,) = load(directory).versus("stages(at=3)").to_dict("records")
    assert found["versus_gmacs"] == 0.7
    assert found["delta_top1"] == -10
    assert found["note"] == "1 % more MACs than stages(at=3): not at equal compute"


def test_parts_of_a_schedule_that_are_its_defaults_may_be_left_out(tmp_path: Path) -> None:
    directory = write(
        tmp_path / "x", row("a", FEW, schedule="stages(at=3-6-9)"), row("a", MANY, schedule="budget(0.7)")
    )
    for text in ("stages", "stages(at=3-6-9)", "stages(at=[3,6,9])"):
        (found,) = load(directory).versus(text).to_dict("records")
        assert found["delta_top1"] == 10


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("budget(0.5)", r"has no rows with the schedule budget\(0\.5\): it has budget\(0\.7\), stages\(at=3\)"),
        ("budget(2)", "must be between 0 and 1"),
    ],
)
def test_a_schedule_that_is_not_there_is_a_user_error(tmp_path: Path, text: str, message: str) -> None:
    directory = write(tmp_path / "x", row("a", FEW, schedule="budget(0.7)"), row("a", FEW))
    results = load(directory)
    with pytest.raises(UserError, match=message):
        results.versus(text)
    with pytest.raises(UserError, match=message):
        check_versus(results.plan, [text])
    check_versus(results.plan, ["budget(0.7)"])


def test_a_method_may_have_the_name_of_a_schedule(tmp_path: Path) -> None:
    results = load(write(tmp_path / "x", row("stages", FEW), row("a", MANY)))
    assert results.versus("stages")["method"].tolist() == ["a"]
