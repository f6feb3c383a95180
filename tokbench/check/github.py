"""A report for GitHub Actions: the job's summary page, and annotations by workflow commands."""

import os
from collections.abc import Iterator
from pathlib import Path

from tokbench.check.finding import Outcome, Report
from tokbench.check.show import lines, summary
from tokbench.errors import UserError

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
COMMANDS: dict[str, str] = {Outcome.INVALID: "error", Outcome.REGRESSED: "error", Outcome.AMBIGUOUS: "warning"}


def summary_file() -> Path:
    """The file that GitHub shows on the job's page.

    Raises:
        UserError: This is no GitHub Actions job.
    """
    named = os.environ.get(SUMMARY_VARIABLE)
    if not named:
        raise UserError(f"--github is for GitHub Actions, and {SUMMARY_VARIABLE} is not set here: leave it out")
    return Path(named)


def append_summary(report: Report, path: Path) -> None:
    """Add the report to the job's page, below what other steps have written there."""
    with path.open("a", encoding="utf-8") as file:
        file.write(markdown(report))


def markdown(report: Report) -> str:
    """The report as GitHub's Markdown."""
    text = [f"### tokbench check: {_escaped(report.title)}", "", f"**{_escaped(summary(report))}**", ""]
    shown = lines(report)
    if shown:
        text += ["| row | column | old | new | change | verdict |", "| --- | --- | ---: | ---: | --- | --- |"]
        for line in shown:
            cells = (line.subject, line.column, line.old, line.new, line.note, line.outcome)
            text.append(f"| {' | '.join(map(_escaped, cells))} |")
        text.append("")
    text += [f"- {_escaped(note)}" for note in report.notes]
    return "\n".join(text) + "\n\n"


def workflow_commands(report: Report) -> Iterator[str]:
    """Workflow commands that put each regression and doubt on the run's page; each is one line."""
    for line in lines(report):
        command = COMMANDS.get(line.outcome)
        if command:
            title = _property(f"tokbench check: {line.outcome}")
            change = f" {line.old} → {line.new}" if line.old or line.new else ""
            told = f"{line.subject} {line.column}{change}: {line.note}".strip()
            yield f"::{command} title={title}::{_data(told)}"


def _data(text: str) -> str:
    """As a workflow command's message takes it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """As a workflow command's property takes it, where `:` and `,` have a meaning besides."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _escaped(text: str) -> str:
    """Text that means nothing to Markdown."""
    for character in "\\`*_[]<>|#~":
        text = text.replace(character, f"\\{character}")
    return text
