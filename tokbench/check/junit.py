"""A report as JUnit XML, which CI systems display: one test case for each row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from tokbench.check.finding import Outcome, Report
from tokbench.check.show import FindingText, finding_texts, row_name
from tokbench.errors import UserError, printable
from tokbench.files import write_atomically

# The element of a test case for each outcome, worst first.
TAGS = {
    Outcome.INVALID: "error",
    Outcome.DISAGREES: "failure",
    Outcome.REGRESSED: "failure",
    Outcome.AMBIGUOUS: "skipped",
}
SUITE = "tokbench check"


def write_junit(path: Path, *reports: Report) -> None:
    """Write reports atomically.

    Raises:
        UserError: The file cannot be written.
    """
    tree = junit(*reports)
    try:
        write_atomically(path, lambda scratch: tree.write(scratch, encoding="utf-8", xml_declaration=True))
    except OSError as error:
        raise UserError(f"cannot write {path} ({error.strerror}): name a file in an existing folder") from None


def junit(*reports: Report) -> ElementTree.ElementTree[ElementTree.Element]:
    """A test suite for each report as one XML tree."""
    suites = [_suite(report, SUITE if len(reports) == 1 else f"{SUITE}: {report.title}") for report in reports]
    names = ("failures", "errors", "tests", "skipped")
    counts = {name: str(sum(int(suite.attrib[name]) for suite in suites)) for name in names}
    root = ElementTree.Element("testsuites", counts)
    root.extend(suites)
    ElementTree.indent(root)
    return ElementTree.ElementTree(root)


def _suite(report: Report, name: str) -> ElementTree.Element:
    """The test cases of a report; findings that concern no row form the case `results`."""
    texts = dict(zip(report.findings, finding_texts(report), strict=True))
    cases = [_case(SUITE, "results", [texts[finding] for finding in report.findings if finding.row is None])]
    cases += [
        _case(row.model, row_name(row, report.rows), [texts[finding] for finding in report.about(row)])
        for row in report.rows
    ]
    counts = {f"{tag}s": str(sum(case.find(tag) is not None for case in cases)) for tag in ("failure", "error")}
    counts |= {"tests": str(len(cases)), "skipped": str(sum(case.find("skipped") is not None for case in cases))}
    suite = ElementTree.Element("testsuite", {"name": printable(name), **counts})
    suite.extend(cases)
    return suite


def _case(group: str, name: str, texts: Sequence[FindingText]) -> ElementTree.Element:
    """A test case with one element for the worst outcome of its findings."""
    case = ElementTree.Element("testcase", {"classname": group, "name": name})
    worst = next((outcome for outcome in TAGS if any(text.outcome is outcome for text in texts)), None)
    if worst is not None:
        messages = [f"{text.column} {text.old} {text.new}: {text.note}" for text in texts if text.outcome is worst]
        element = ElementTree.SubElement(case, TAGS[worst], {"type": worst, "message": messages[0]})
        element.text = "\n".join(messages)
    return case
