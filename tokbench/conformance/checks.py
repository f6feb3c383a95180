"""The suite: which checks there are, in which order, and how they are run."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokbench.conformance import checks_behaviour as behaviour
from tokbench.conformance import checks_interface as interface
from tokbench.conformance import checks_machine as machine
from tokbench.conformance.checks_interface import Check
from tokbench.conformance.result import (
    Outcome,
    ReportError,
    Result,
    SkipError,
    line_in,
    one_line,
    place,
)
from tokbench.conformance.subject import Subject, find
from tokbench.downsampler import UndeclaredFieldError

# Where one of these fails, the others would only say the same.
GATES: tuple[Check, ...] = (interface.imports, interface.declares, interface.runs)

CHECKS: tuple[Check, ...] = (
    *GATES,
    interface.documents,
    interface.shapes,
    interface.counts,
    interface.prefix,
    interface.accounts,
    interface.removes,
    interface.smallest,
    interface.full_range,
    interface.second_stage,
    interface.choices,
    behaviour.mutation,
    behaviour.determinism,
    behaviour.memory,
    behaviour.seeding,
    behaviour.noise,
    behaviour.batch_independence,
    behaviour.undeclared,
    behaviour.state_dict,
    behaviour.adaptive,
    machine.dtypes,
    machine.devices,
    machine.gradients,
    machine.host_sync,
    machine.compiles,
)


def verify(target: str | Path, plugins: Iterable[Path] = ()) -> list[Result]:
    """Check one method, or all of a file's.

    Args:
        target: A method's name, as `tome` or `token_pooling(algorithm=kmeans)`, or a file, whose name ends in `.py`.
        plugins: Files and folders with further methods that have names.

    Returns:
        One result a method and check.

    Raises:
        UserError: The name or the file is unknown.
    """
    return [result for subject in find([target], plugins) for result in examine(subject)]


def failures(target: str | Path) -> list[str]:
    """What `verify` finds broken, one line each; empty where the contract is kept. Made for a test's assert."""
    return [f"{result.check}: {result.message}" for result in verify(target) if result.outcome == "failed"]


def examine(subject: Subject) -> Iterator[Result]:
    """Run all checks of one method, up to the first gate that it does not pass."""
    for check in CHECKS:
        result = perform(check, subject)
        yield result
        if result.outcome == "failed" and check in GATES:
            return


def perform(check: Check, subject: Subject) -> Result:
    """Run one check; whatever the method raises is a failure of it."""
    outcome: Outcome = "passed"
    message = ""
    try:
        with warnings.catch_warnings(action="ignore"):  # of the method's; whoever minds will see them in use
            check(subject)
    except ReportError as report:
        outcome, message = "reported", str(report)
    except SkipError as skip:
        outcome, message = "skipped", str(skip)
    except UndeclaredFieldError:
        outcome, message = "skipped", "stopped by a field that is not declared: see 'undeclared'"
    except Exception as error:
        outcome, message = "failed", _located(subject, error)
    return Result(subject.label, name_of(check), outcome, message)


def name_of(check: Check) -> str:
    """What users call a check."""
    return check.__name__


def about(check: Check) -> str:
    """What a check is about, in one line."""
    return (check.__doc__ or "").splitlines()[0]


def _located(subject: Subject, error: Exception) -> str:
    """The failure with its place: the method's line that raised, else its forward."""
    if subject.method is None:
        return one_line(error)
    line = line_in(subject.file, error)
    if line is None:
        forward = getattr(subject.cls.forward, "__code__", None)
        line = forward.co_firstlineno if forward is not None and forward.co_filename == subject.file else 1
    return f"{place(subject.file, line)}: {one_line(error)}"
