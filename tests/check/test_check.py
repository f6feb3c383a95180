"""`tokbench check NEW --baseline OLD`: real results, then copies in which one thing was made worse on purpose."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from rich.progress import Progress

from tokbench.check.finding import Finding, Outcome, Report, Row
from tokbench.check.github import summary_markdown, workflow_commands
from tokbench.check.junit import junit
from tokbench.config import load_config
from tokbench.registry import discover
from tokbench.results.store import Store
from tokbench.results.table import write_plan, write_results
from tokbench.run.measure import run as measure
from tokbench.run.plan import plan
from tokbench.run.prepare import prepare

IMAGES = 100
ROUNDS = 40

Run = Callable[..., tuple[int, str, str]]
Json = dict[str, Any]


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small real comparison with random times, so that no verdict depends on the load of this machine."""
    directory = tmp_path_factory.mktemp("measured") / "results"
    settings = load_config()
    chosen = {"methods": ["grid_pooling", "random_selection"], "keep": [0.5], "seeds": [0, 1]}
    suite = settings.suite("embedded", {**chosen, "limit": IMAGES, "only": ["macs", "accuracy"], "device": "cpu"})
    prepared = prepare(plan(suite, settings, list(discover()[0])), suite)
    store = Store(directory)
    write_plan(prepared, store)
    measure(prepared, store, Progress(disable=True))
    write_results(store)
    written = read(directory / "plan.json")
    written["suite"]["only"].append("latency")
    for row in written["rows"]:
        row["keys"]["latency"] = f"time of {row['method']}"
    (directory / "plan.json").write_text(json.dumps(written))
    for number, method in enumerate(("none", "grid_pooling", "random_selection")):
        store.add("latency", f"time of {method}", times(number, 1.0))
    store.add("noise", "session", {"blocks": [times(10 + block, 1.0) for block in range(5)]})
    return directory


@pytest.fixture
def old(measured: Path, tmp_path: Path) -> Path:
    shutil.copytree(measured, tmp_path / "old")
    return tmp_path / "old"


@pytest.fixture
def new(measured: Path, tmp_path: Path) -> Path:
    shutil.copytree(measured, tmp_path / "new")
    return tmp_path / "new"


@pytest.fixture
def check(run: Run, old: Path, new: Path) -> Callable[..., tuple[int, Json]]:
    """Check `new` against `old`; gives the exit code and what `--json` prints."""

    def checked(*flags: str) -> tuple[int, Json]:
        code, out, err = run("check", "new", "--baseline", "old", "--json", *flags)
        assert err == ""
        report = json.loads(out)
        assert report["exit_code"] == code
        return code, report

    return checked


def times(seed: int, speedup: float, spread: float = 0.002) -> Json:
    """A latency record whose log-ratios have the log of the speedup as median."""
    noise = np.random.default_rng(seed).normal(0, spread, ROUNDS)
    other = 0.01 * np.exp(np.median(noise) - noise) / speedup
    return {
        "base_s": [0.01] * ROUNDS,
        "other_s": other.tolist(),
        "half_width": 0.001,
        "other_load": 0.0,
        "session": "session",
        "gpu": [],
    }


def read(path: Path) -> Json:
    content: Json = json.loads(path.read_text())
    return content


def edit(path: Path, change: Callable[[Json], object]) -> None:
    content = read(path)
    change(content)
    path.write_text(json.dumps(content))


def records(directory: Path, kind: str, change: Callable[[str, Json], object]) -> None:
    """Apply a function to the keys and values of all records of a kind."""
    lines = [json.loads(line) for line in (directory / "records.jsonl").read_text().splitlines()]
    for line in lines:
        if line["kind"] == kind:
            change(line["key"], line["value"])
    (directory / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def drop(directory: Path, gone: Callable[[Json], bool]) -> None:
    lines = [json.loads(line) for line in (directory / "records.jsonl").read_text().splitlines()]
    (directory / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines if not gone(line)))


def key(directory: Path, kind: str, method: str, seed: int | None = None) -> str:
    rows = read(directory / "plan.json")["rows"]
    return next(str(row["keys"][kind]) for row in rows if (row["method"], row["seed"]) == (method, seed))


def set_macs(directory: Path, method: str, **values: Any) -> None:
    wanted = key(directory, "macs", method, 0 if method == "random_selection" else None)

    def change(name: str, value: Json) -> None:
        if name == wanted:
            value["tokens"] = values.get("tokens", value["tokens"])
            value["total"] += values.get("more", 0)

    records(directory, "macs", change)


def flip(directory: Path, method: str, *, lose: int = 0, gain: int = 0, seed: int | None = None) -> None:
    """Make right answers wrong and wrong ones right, in the records and image by image."""
    wanted = key(directory, "accuracy", method, seed)
    changed: list[int] = []

    def change(name: str, value: Json) -> None:
        if name.partition("/")[0] == wanted:
            said = list(value["outcomes"])
            right = [n for n, mark in enumerate(said) if mark == "0"][:lose]
            wrong = [n for n, mark in enumerate(said) if mark != "0"][:gain]
            assert (len(right), len(wrong)) == (lose, gain)
            for n in (*right, *wrong):
                said[n] = "1" if said[n] == "0" else "0"
            value["outcomes"] = "".join(said)
            changed.extend((*right, *wrong))

    records(directory, "accuracy", change)
    answers = pd.read_parquet(directory / "correctness.parquet")
    own = (answers["method"] == method) & (answers["seed"].isna() if seed is None else answers["seed"] == seed)
    places = answers.index[own][changed]
    answers.loc[places, "top1"] = ~answers.loc[places, "top1"]
    answers.to_parquet(directory / "correctness.parquet")


def found(report: Json, column: str) -> list[tuple[str, str]]:
    """The outcomes of a column's findings, each with its method."""
    own = [finding for finding in report["findings"] if finding["column"] == column]
    return [((finding["row"] or {}).get("method", ""), finding["outcome"]) for finding in own]


def test_the_same_results_are_ok(check: Callable[..., tuple[int, Json]]) -> None:
    code, report = check("--require-times")
    assert code == 0
    assert (report["findings"], report["notes"]) == ([], [])
    assert [(row["method"], row["seed"]) for row in report["rows"]] == [
        ("none", None),
        ("grid_pooling", None),
        ("random_selection", 0),
        ("random_selection", 1),
    ]


def test_one_mac_more_is_a_regression_and_one_less_an_improvement(
    check: Callable[..., Any], old: Path, new: Path
) -> None:
    set_macs(new, "grid_pooling", more=1)
    code, report = check()
    assert code == 1
    assert found(report, "gmacs") == [("grid_pooling", "regressed")]
    set_macs(old, "grid_pooling", more=2)
    code, report = check()
    assert code == 0
    assert found(report, "gmacs") == [("grid_pooling", "improved")]


def test_the_users_threshold_applies(check: Callable[..., Any], new: Path, tmp_path: Path) -> None:
    set_macs(new, "grid_pooling", more=1)
    (tmp_path / "tokbench.toml").write_text("[check]\ngmacs = 0.1\n")
    code, report = check()
    assert code == 0
    assert found(report, "gmacs") == [("grid_pooling", "moved")]


def test_seeds_share_one_finding_about_counts(check: Callable[..., Any], new: Path) -> None:
    set_macs(new, "random_selection", more=1)
    code, report = check()
    assert code == 1
    assert found(report, "gmacs") == [("random_selection", "regressed")]
    assert report["findings"][0]["row"]["seed"] is None


@pytest.mark.parametrize(("more", "outcome", "expected"), [(0, "regressed", 1), (-1, "moved", 0)])
def test_other_token_counts_must_save_compute(
    check: Callable[..., Any], new: Path, more: int, outcome: str, expected: int
) -> None:
    leaving = [64, 64, 64, 32, 32, 31, 16, 16, 16, 8, 8, 8]
    set_macs(new, "grid_pooling", more=more, tokens=leaving)
    code, report = check()
    assert code == expected
    assert found(report, "tokens_per_block") == [("grid_pooling", outcome)]
    finding = next(finding for finding in report["findings"] if finding["column"] == "tokens_per_block")
    assert finding["new"] == "31"
    assert "block 5" in finding["note"]


@pytest.mark.parametrize(
    ("flips", "outcome", "expected"),
    [
        ({"lose": 1}, "regressed", 1),
        ({"lose": 3, "gain": 2}, "regressed", 1),
        ({"lose": 2, "gain": 2}, "moved", 0),
        ({"gain": 1}, "improved", 0),
    ],
)
def test_on_the_same_machine_answers_are_compared_image_by_image(
    check: Callable[..., Any], new: Path, flips: dict[str, int], outcome: str, expected: int
) -> None:
    flip(new, "random_selection", seed=1, **flips)
    code, report = check()
    assert code == expected
    assert found(report, "top1") == [("random_selection", outcome)]
    assert report["findings"][0]["row"]["seed"] == 1


@pytest.mark.parametrize("setting", ["device_name", "threads", "torch", "timm", "torchvision", "pillow", "numpy"])
def test_on_different_machines_answers_get_a_paired_test(check: Callable[..., Any], new: Path, setting: str) -> None:
    def change(environment: Json) -> None:
        place = environment["versions"] if setting in environment["versions"] else environment
        place[setting] = "another"

    edit(new / "environment.json", change)
    code, report = check()
    assert (code, report["findings"]) == (0, [])
    assert f"{setting} " in report["notes"][0]
    flip(new, "grid_pooling", lose=1)  # of 100 images, so that a loss of 3 points cannot be excluded
    code, report = check()
    assert code == 3
    assert found(report, "top1") == [("grid_pooling", "ambiguous")]
    flip(new, "grid_pooling", lose=20)
    code, report = check()
    assert code == 1
    assert found(report, "top1") == [("grid_pooling", "regressed")]


def test_on_different_machines_a_small_loss_can_be_allowed(
    check: Callable[..., Any], new: Path, tmp_path: Path
) -> None:
    edit(new / "plan.json", lambda content: content["suite"].update(accuracy_batch=IMAGES))
    flip(new, "grid_pooling", lose=1)
    (tmp_path / "tokbench.toml").write_text("[check]\ntop1 = 10\n")
    code, report = check()
    assert code == 0
    assert found(report, "top1") == [("grid_pooling", "moved")]
    assert "accuracy_batch" in report["notes"][0]


def test_a_row_that_fails_now_is_a_regression(check: Callable[..., Any], old: Path, new: Path) -> None:
    def fail(directory: Path) -> None:
        wanted = key(directory, "macs", "grid_pooling")
        drop(directory, lambda line: line["key"] == wanted)
        Store(directory).add("failed", f"macs/{wanted}", {"reason": "RuntimeError: it broke"})

    fail(new)
    code, report = check()
    assert code == 1
    assert found(report, "status") == [("grid_pooling", "regressed")]
    assert report["findings"][0]["note"] == "RuntimeError: it broke"
    fail(old)
    assert check()[0] == 0
    shutil.rmtree(new)
    shutil.copytree(old, new)
    drop(new, lambda line: line["kind"] == "failed")
    assert check()[0] == 4  # no reason for the missing measurement


def test_a_row_that_works_again_is_an_improvement(check: Callable[..., Any], old: Path) -> None:
    edit(old / "plan.json", lambda content: content["rows"][1].update(failed="RuntimeError: it broke"))
    code, report = check()
    assert code == 0
    assert found(report, "status") == [("grid_pooling", "improved")]


def test_a_missing_row_is_invalid_and_an_added_one_is_listed(
    check: Callable[..., Any], run: Run, old: Path, new: Path
) -> None:
    edit(new / "plan.json", lambda content: content["rows"].pop(1))
    code, report = check()
    assert code == 4
    assert "grid_pooling 0.5" in report["findings"][0]["note"]
    code, out, _ = run("check", "old", "--baseline", "new")
    assert code == 0
    assert "only in old, not checked: 1 row (grid_pooling 0.5)" in out


def test_the_keep_solved_for_a_budget_does_not_identify_a_row(check: Callable[..., Any], tmp_path: Path) -> None:
    # The keep is solved for the budget, so it changes with the cost of the method.
    for side, keep in (("old", 0.5), ("new", 0.45)):
        solved = {"schedule": "budget(0.7)", "keep": keep}
        edit(tmp_path / side / "plan.json", lambda content, solved=solved: content["rows"][1].update(solved))
        path = tmp_path / side / "correctness.parquet"
        answers = pd.read_parquet(path).astype({"schedule": str})
        answers.loc[answers["method"] == "grid_pooling", list(solved)] = list(solved.values())
        answers.to_parquet(path)
    code, report = check()
    assert (code, report["findings"]) == (0, [])
    assert len(report["rows"]) == 4


def test_a_kind_of_measurement_left_out_is_invalid(check: Callable[..., Any], new: Path) -> None:
    edit(new / "plan.json", lambda content: content["suite"].update(only=["macs", "accuracy"]))
    code, report = check()
    assert code == 4
    assert "without latency" in report["findings"][0]["note"]


@pytest.mark.parametrize("side", ["old", "new"])
def test_an_unfinished_comparison_is_invalid(check: Callable[..., Any], tmp_path: Path, side: str) -> None:
    wanted = key(tmp_path / side, "macs", "grid_pooling")
    drop(tmp_path / side, lambda line: line["key"] == wanted)
    code, report = check()
    assert code == 4
    assert f"not measured yet in {side}: 1 row (grid_pooling 0.5)" in report["findings"][0]["note"]


@pytest.mark.parametrize("side", ["old", "new"])
@pytest.mark.parametrize("file", ["plan.json", "environment.json", "records.jsonl", "correctness.parquet"])
def test_a_truncated_file_is_invalid(check: Callable[..., Any], tmp_path: Path, side: str, file: str) -> None:
    path = tmp_path / side / file
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    code, report = check()
    assert code == 4
    assert side in report["findings"][0]["note"]


@pytest.mark.parametrize("side", ["old", "new"])
@pytest.mark.parametrize("file", ["plan.json", "environment.json", "correctness.parquet", "."])
def test_a_missing_file_is_invalid(check: Callable[..., Any], tmp_path: Path, side: str, file: str) -> None:
    path = tmp_path / side / file
    if file == ".":
        shutil.rmtree(path)
    else:
        path.unlink()
    code, report = check()
    assert code == 4
    assert side in report["findings"][0]["note"]


def test_answers_of_another_run_are_invalid(check: Callable[..., Any], new: Path) -> None:
    answers = pd.read_parquet(new / "correctness.parquet")
    answers["top1"] = ~answers["top1"]
    answers.to_parquet(new / "correctness.parquet")
    assert check()[0] == 4


def test_other_images_are_invalid(check: Callable[..., Any], new: Path) -> None:
    answers = pd.read_parquet(new / "correctness.parquet")
    answers["image"] = ("other " + answers["image"].astype(str)).astype("category")
    answers.to_parquet(new / "correctness.parquet")
    code, report = check()
    assert code == 4
    assert found(report, "images") == [("", "invalid")]


def speed(directory: Path, speedup: float, spread: float = 0.002) -> None:
    """Give grid_pooling new random times."""

    def change(name: str, value: Json) -> None:
        if name == "time of grid_pooling":
            value.update(times(7, speedup, spread))

    records(directory, "latency", change)


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
    speed(new, speedup, spread)
    code, report = check()
    assert code == expected
    assert found(report, "speedup") == [("grid_pooling", one) for one in outcome]


def test_the_noise_of_both_sessions_is_tolerated(check: Callable[..., Any], old: Path, new: Path) -> None:
    speed(new, 0.87)
    assert check()[0] == 1

    def disturb(name: str, value: Json) -> None:
        value["blocks"] = [times(block, 1.06, 0.0) for block in range(5)]

    for directory in (old, new):  # 5 % and twice 6 %
        records(directory, "noise", disturb)
    assert check()[0] == 0


@pytest.mark.parametrize("setting", ["device", "device_name", "cpus", "threads"])
def test_times_of_different_machines_are_not_compared(check: Callable[..., Any], new: Path, setting: str) -> None:
    speed(new, 0.5)
    edit(new / "environment.json", lambda environment: environment.update({setting: "another"}))
    code, report = check()
    assert code == 0
    assert any(note.startswith("times are not compared") and setting in note for note in report["notes"])
    code, report = check("--require-times")
    assert code == 4
    assert found(report, "times") == [("", "invalid")]


def test_milliseconds_alone_do_not_matter(check: Callable[..., Any], new: Path) -> None:
    def change(name: str, value: Json) -> None:
        value.update({side: [2 * second for second in value[side]] for side in ("base_s", "other_s")})

    records(new, "latency", change)
    assert check() == (0, {**check()[1], "findings": []})


def test_regressed_outranks_ambiguous_and_invalid_outranks_both(check: Callable[..., Any], new: Path) -> None:
    speed(new, 0.95, 0.1)
    assert check()[0] == 3
    flip(new, "grid_pooling", lose=1)
    assert check()[0] == 1
    edit(new / "plan.json", lambda content: content["rows"].pop())
    assert check()[0] == 4


def test_the_table_fits_80_columns(run: Run, old: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    speed(new, 0.85)
    flip(new, "grid_pooling", lose=2)
    set_macs(new, "random_selection", more=10**6)
    code, out, _ = run("check", "new", "--baseline", "old")
    assert code == 1
    assert max(map(len, out.splitlines())) <= 80
    words = " ".join(out.split())
    for told in ("regressed top1", "2 lost, 0 gained of 100 images", "regressed speedup", "1 of 4 rows unchanged"):
        assert told in words
    assert words.count("random_selection") == 1


@pytest.mark.parametrize(
    ("arguments", "cause"),
    [
        (["check"], "--baseline"),
        (["check", "new"], "--baseline"),
        (["check", "new", "--baseline", "old", "--limit", "5"], "--limit goes with --against"),
        (["check", "new", "--against", "HEAD"], "--against measures both versions itself"),
        (["check", "--against", "HEAD", "--require-times"], "--against measures both versions itself"),
        (["check", "new", "--baseline", "old", "--github"], "GITHUB_STEP_SUMMARY is not set"),
        (["check", "new", "--baseline", "old", "--junit", "nowhere/x.xml"], "cannot write nowhere/x.xml"),
    ],
)
def test_user_errors_take_one_line(
    run: Run, old: Path, new: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], cause: str
) -> None:
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    code, _, err = run(*arguments)
    assert code == 2
    assert err.count("\n") == 1
    assert cause in err


def test_an_unknown_threshold_is_a_user_error(run: Run, old: Path, new: Path, tmp_path: Path) -> None:
    (tmp_path / "tokbench.toml").write_text("[check]\nspedup = 3\n")
    code, _, err = run("check", "new", "--baseline", "old")
    assert code == 2
    assert "unknown key 'spedup'" in err


def test_github_gets_a_summary_and_annotations(
    run: Run, old: Path, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "summary.md"
    page.write_text("what another step said\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    flip(new, "grid_pooling", lose=1)
    speed(new, 0.95, 0.1)
    code, out, _ = run("check", "new", "--baseline", "old", "--github")
    assert code == 1
    commands = [line for line in out.splitlines() if line.startswith("::")]
    assert [line.partition(" ")[0] for line in commands] == ["::error", "::warning"]
    written = page.read_text()
    assert written.startswith("what another step said\n")
    assert "| grid\\_pooling" in written
    assert written.count("\n| ") == 3 + 1  # headings, rule and two findings


NASTY = Row(
    model="m",
    method="a|b::error::x",
    params="",
    regime="off-the-shelf",
    site="after_block",
    schedule="stages(at=3-6-9)",
    keep=0.5,
    seed=None,
    dtype="fp32",
    batch_size=32,
    mode="eager",
)
REASON = "50 % of\r\n::warning title=x,y: it\x1b[31m <b>broke</b> \x00\ud800"


@pytest.fixture
def nasty() -> Report:
    findings = (
        Finding(Outcome.REGRESSED, "status", REASON, NASTY, "ok", "failed"),
        Finding(Outcome.AMBIGUOUS, "speedup", "100 % wide", NASTY, 1.5, 1.4),
        Finding(Outcome.MOVED, "gmacs_method", "", NASTY, 1.0, 1.0 + 1e-9),
    )
    return Report("new against 100%, old", (NASTY,), findings, ("a note | with\nlines",))


def test_annotations_are_one_line_each_and_escaped(nasty: Report) -> None:
    error, warning = workflow_commands(nasty)
    assert error.startswith("::error title=tokbench check%3A regressed::")
    assert warning.startswith("::warning title=tokbench check%3A ambiguous::")
    assert "50 %25 of ::warning title" in error
    assert "100 %25 wide" in warning
    assert not any(character in error + warning for character in "\r\n\x1b\x00")


def test_the_summary_is_one_table(nasty: Report) -> None:
    table = [line for line in summary_markdown(nasty).splitlines() if line.startswith("|")]
    assert len(table) == 5
    assert {line.replace("\\|", "").count("|") for line in table} == {7}
    assert "<b>" not in summary_markdown(nasty).replace("\\<", "")


def test_junit_has_a_test_case_for_each_row(nasty: Report, tmp_path: Path) -> None:
    junit(nasty).write(tmp_path / "x.xml", encoding="utf-8", xml_declaration=True)
    root = ElementTree.parse(tmp_path / "x.xml").getroot()
    suite = root[0]
    assert (root.tag, suite.tag) == ("testsuites", "testsuite")
    counts = ("tests", "failures", "errors", "skipped")
    assert [suite.get(name) for name in counts] == ["2", "1", "0", "0"]
    results, row = suite
    assert (results.get("name"), list(results)) == ("results", [])
    assert row.get("name") == NASTY.method
    assert [child.tag for child in row] == ["failure"]
    assert "it [31m <b>broke</b>" in (row[0].get("message") or "")


def test_junit_is_written_from_the_command_line(run: Run, old: Path, new: Path, tmp_path: Path) -> None:
    flip(new, "random_selection", lose=1, seed=0)
    speed(new, 0.95, 0.1)
    code, _, _ = run("check", "new", "--baseline", "old", "--junit", "junit.xml")
    assert code == 1
    cases = list(ElementTree.parse(tmp_path / "junit.xml").getroot().iter("testcase"))
    assert [(case.get("name"), [child.tag for child in case]) for case in cases] == [
        ("results", []),
        ("none keep 1.0", []),
        ("grid_pooling keep 0.5", ["skipped"]),
        ("random_selection keep 0.5 seed 0", ["failure"]),
        ("random_selection keep 0.5 seed 1", []),
    ]
    shutil.rmtree(new)
    run("check", "new", "--baseline", "old", "--junit", "junit.xml")
    (case,) = ElementTree.parse(tmp_path / "junit.xml").getroot().iter("testcase")
    assert [child.tag for child in case] == ["error"]
