"""What a check writes: a table for the terminal, a summary and annotations for GitHub, and JUnit XML."""

import shutil
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from result_changes import flip, set_macs, set_speedup

from tokbench.check.finding import Finding, Outcome, Report
from tokbench.check.github import summary_markdown, workflow_commands
from tokbench.check.junit import junit
from tokbench.rows import RowId

Run = Callable[..., tuple[int, str, str]]


def test_the_table_fits_80_columns(run: Run, old: Path, new: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    set_speedup(new, 0.85)
    flip(new, "grid_pooling", lose=2)
    set_macs(new, "random_selection", more=10**6)
    code, out, _ = run("check", "new", "--baseline", "old")
    assert code == 1
    assert max(map(len, out.splitlines())) <= 80
    words = " ".join(out.split())
    for told in ("regressed top1", "2 lost, 0 gained of 100 images", "regressed speedup", "1 of 4 rows unchanged"):
        assert told in words
    assert words.count("random_selection") == 1


def test_github_gets_a_summary_and_annotations(
    run: Run, old: Path, new: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "summary.md"
    page.write_text("text of another step\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    flip(new, "grid_pooling", lose=1)
    set_speedup(new, 0.95, 0.1)
    code, out, _ = run("check", "new", "--baseline", "old", "--github")
    assert code == 1
    commands = [line for line in out.splitlines() if line.startswith("::")]
    assert [line.partition(" ")[0] for line in commands] == ["::error", "::warning"]
    written = page.read_text()
    assert written.startswith("text of another step\n")
    assert "| grid\\_pooling" in written
    assert written.count("\n| ") == 3 + 1  # headings, rule and two findings


NASTY = RowId(
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
    set_speedup(new, 0.95, 0.1)
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
