"""A report as JUnit XML, which CI systems show: a test case a row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from tokbench.check.finding import Outcome, Report
from tokbench.check.show import Line, lines, subject
from tokbench.errors import UserError
from tokbench.files import write_atomically

# The elements that a case has for what was found of it.
TAGS = {Outcome.INVALID: "error", Outcome.REGRESSED: "failure", Outcome.AMBIGUOUS: "skipped"}
SUITE = "tokbench check"


def write_junit(report: Report, path: Path) -> None:
    """Write the report, whole or not at all.

    Raises:
        UserError: The file cannot be written.
    """
    tree = junit(report)
    try:
        write_atomically(path, lambda scratch: tree.write(scratch, encoding="utf-8", xml_declaration=True))
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): name a file in a folder that exists") from None


def junit(report: Report) -> ElementTree.ElementTree[ElementTree.Element]:
    """The report as a tree; what is about no row is a case of its own."""
    shown = dict(zip(report.findings, lines(report), strict=True))
    cases = [_case(SUITE, "results", [shown[finding] for finding in report.findings if finding.row is None])]
    cases += [
        _case(row.model, subject(row, report.rows), [shown[finding] for finding in report.about(row)])
        for row in report.rows
    ]
    counts = {f"{tag}s": str(sum(case.find(tag) is not None for case in cases)) for tag in ("failure", "error")}
    counts |= {"tests": str(len(cases)), "skipped": str(sum(case.find("skipped") is not None for case in cases))}
    root = ElementTree.Element("testsuites", counts)
    ElementTree.SubElement(root, "testsuite", {"name": SUITE, **counts}).extend(cases)
    ElementTree.indent(root)
    return ElementTree.ElementTree(root)


def _case(group: str, name: str, found: Sequence[Line]) -> ElementTree.Element:
    """A case has one element of the worst kind that was found."""
    case = ElementTree.Element("testcase", {"classname": group, "name": name})
    worst = next((outcome for outcome in TAGS if any(line.outcome is outcome for line in found)), None)
    if worst is not None:
        told = [f"{line.column} {line.old} {line.new}: {line.note}" for line in found if line.outcome is worst]
        ElementTree.SubElement(case, TAGS[worst], {"type": worst, "message": told[0]}).text = "\n".join(told)
    return case
