"""`pytest --tokbench-method=my_method.py`: the conformance suite, with one test per method and check.

These tests are added to those that pytest collects. Without the option, this module does nothing and imports neither
torch nor the suite.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tokbench.conformance.checks_interface import Check
    from tokbench.conformance.subject import Subject

OPTION = "--tokbench-method"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.getgroup("tokbench").addoption(
        OPTION,
        action="append",
        default=[],
        metavar="FILE",
        help="run tokbench's conformance checks for a method, given by file or name; may be repeated",
    )


@pytest.hookimpl(tryfirst=True)  # so that -k and -m also select among these tests
def pytest_collection_modifyitems(session: pytest.Session, config: pytest.Config, items: list[pytest.Item]) -> None:
    """Add the tests of the given methods."""
    targets = config.getoption(OPTION)
    if not targets:
        return
    from tokbench.conformance.subject import find
    from tokbench.errors import UserError

    folder = config.invocation_params.dir
    try:
        subjects = find(folder / target if target.endswith(".py") else target for target in targets)
    except UserError as error:
        raise pytest.UsageError(str(error)) from None
    for subject in subjects:
        file = Path(subject.file if subject.method else subject.label)
        items.extend(session.genitems(MethodChecks.from_parent(session, path=file, subject=subject)))


class MethodChecks(pytest.File):
    """The checks of one method.

    Attributes:
        subject: The method.
        stopped: The failed check of `GATES`, after which the other checks are skipped; empty if none failed.
    """

    def __init__(self, *, subject: Subject, **named: Any) -> None:
        """Store the method; `named` are the arguments of a pytest collector."""
        super().__init__(**named)
        self.subject = subject
        self.stopped = ""

    def collect(self) -> Iterator[pytest.Item]:
        """One test per check; only the first check if the file cannot be imported."""
        from tokbench.conformance.checks import CHECKS, name_of

        for check in CHECKS if self.subject.method else CHECKS[:1]:
            yield MethodCheck.from_parent(self, name=f"{name_of(check)}[{Path(self.subject.label).name}]", check=check)


class MethodCheck(pytest.Item):
    """One check of one method."""

    def __init__(self, *, check: Check, **named: Any) -> None:
        """Store the check; `named` are the arguments of a pytest item."""
        super().__init__(**named)
        self.check = check

    def runtest(self) -> None:
        """Run the check."""
        from tokbench.conformance.checks import GATES, run_check

        checks = self.parent
        assert isinstance(checks, MethodChecks)
        if checks.stopped:
            pytest.skip(f"see '{checks.stopped}'")
        result = run_check(self.check, checks.subject)
        if result.outcome == "failed":
            checks.stopped = result.check if self.check in GATES else ""
            raise BrokenContractError(result.message)
        if result.outcome == "skipped":
            pytest.skip(result.message)
        if result.outcome == "reported":
            self.add_report_section("call", "tokbench", result.message)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """One line for a failed check; pytest's own representation of any other exception."""
        if isinstance(excinfo.value, BrokenContractError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """The heading of a failure."""
        return self.path, None, self.name


class BrokenContractError(Exception):
    """A check failed; the message is its result."""
