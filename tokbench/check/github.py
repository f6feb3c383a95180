"""A report for GitHub Actions: the job's summary page, and annotations by workflow commands."""

import os
from collections.abc import Iterator
from pathlib import Path

from tokbench.check.finding import Outcome, Report
from tokbench.check.show import finding_texts, summary
from tokbench.errors import UserError
from tokbench.report.markdown import escape, markdown_table

SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"
COMMANDS: dict[str, str] = {
    **dict.fromkeys((Outcome.INVALID, Outcome.DISAGREES, Outcome.REGRESSED), "error"),
    Outcome.AMBIGUOUS: "warning",
}


def summary_file() -> Path:
    """The file whose content GitHub shows on the job's page.

    Raises:
        UserError: This is not a GitHub Actions job.
    """
    path = os.environ.get(SUMMARY_VARIABLE)
    if not path:
        raise UserError(f"--github needs a GitHub Actions job, but {SUMMARY_VARIABLE} is not set: leave the option out")
    return Path(path)


def append_summary(report: Report, path: Path) -> None:
    """Append the report to the job's page, after what other steps have written there."""
    with path.open("a", encoding="utf-8") as file:
        file.write(summary_markdown(report))


def summary_markdown(report: Report) -> str:
    """The report in GitHub's Markdown."""
    lines = [f"### tokbench check: {escape(report.title)}", "", f"**{escape(summary(report))}**", ""]
    texts = finding_texts(report)
    if texts:
        cells = ((text.row, text.column, text.old, text.new, text.note, text.outcome) for text in texts)
        headings = ("row", "column", *report.sides, "change", "verdict")
        numbers = tuple(map(headings.index, report.sides))
        lines += [*markdown_table(headings, [[escape(cell) for cell in row] for row in cells], numbers), ""]
    lines += [f"- {escape(note)}" for note in report.notes]
    return "\n".join(lines) + "\n\n"


def workflow_commands(report: Report) -> Iterator[str]:
    """Workflow commands, one line each, that annotate the run with each finding that is worse than moved."""
    for text in finding_texts(report):
        command = COMMANDS.get(text.outcome)
        if command:
            title = _property(f"tokbench check: {text.outcome}")
            change = f" {text.old} → {text.new}" if text.old or text.new else ""
            message = f"{text.row} {text.column}{change}: {text.note}".strip()
            yield f"::{command} title={title}::{_message(message)}"


def _message(text: str) -> str:
    """Escape the message of a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Escape a property of a workflow command, where `:` and `,` are special too."""
    return _message(text).replace(":", "%3A").replace(",", "%2C")
