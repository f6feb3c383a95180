"""Checks of times: compared by speedup, within the noise of both sessions, on one machine only."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from result_changes import Json, edit_json, edit_plan, edit_records, flip, outcomes_of, set_speedup, times

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("speedup", "spread", "outcome", "expected"),
    [
        (0.85, 0.002, ["regressed"], 1),
        (0.97, 0.002, [], 0),  # within the 5 % that sessions may differ by
        (1.2, 0.002, ["improved"], 0),
        (0.95, 0.1, ["ambiguous"], 3),
        (1.05, 0.1, [], 0),  # not surely faster, but not slower either
    ],
)
def test_times_are_compared_by_speedup(
    check: Callable[..., Any], new: Path, speedup: float, spread: float, outcome: list[str], expected: int
) -> None:
    set_speedup(new, speedup, spread)
    code, report = check()
    assert code == expected
    assert outcomes_of(report, "speedup") == [("grid_pooling", one) for one in outcome]


def test_the_noise_of_both_sessions_is_tolerated(check: Callable[..., Any], old: Path, new: Path) -> None:
    set_speedup(new, 0.87)
    assert check()[0] == 1

    def disturb(name: str, value: Json) -> None:
        value["blocks"] = [times(block, 1.06, 0.0) for block in range(5)]

    for directory in (old, new):  # 5 % and twice 6 %
        edit_records(directory, "noise", disturb)
    assert check()[0] == 0


@pytest.mark.parametrize("setting", ["device", "device_name", "cpus", "threads"])
def test_times_of_different_machines_are_not_compared(check: Callable[..., Any], new: Path, setting: str) -> None:
    set_speedup(new, 0.5)
    edit_json(new / "environment.json", lambda environment: environment.update({setting: "another"}))
    code, report = check()
    assert code == 0
    assert any(note.startswith("times are not compared") and setting in note for note in report["notes"])
    code, report = check("--require-times")
    assert code == 4
    assert outcomes_of(report, "times") == [("", "invalid")]


def test_milliseconds_alone_do_not_matter(check: Callable[..., Any], new: Path) -> None:
    def change(name: str, value: Json) -> None:
        value.update({side: [2 * second for second in value[side]] for side in ("base_s", "other_s")})

    edit_records(new, "latency", change)
    code, report = check()
    assert (code, report["findings"]) == (0, [])


def test_regressed_outranks_ambiguous_and_invalid_outranks_both(check: Callable[..., Any], new: Path) -> None:
    set_speedup(new, 0.95, 0.1)
    assert check()[0] == 3
    flip(new, "grid_pooling", lose=1)
    assert check()[0] == 1
    edit_plan(new, lambda content: content["rows"].pop())
    assert check()[0] == 4
