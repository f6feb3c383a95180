"""The list of checks, and functions to run them."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from tokbench.conformance import checks_behaviour as behaviour
from tokbench.conformance import checks_families as families
from tokbench.conformance import checks_gpu as gpu
from tokbench.conformance import checks_interface as interface
from tokbench.conformance import checks_machine as machine
from tokbench.conformance import checks_training as training
from tokbench.conformance.checks_interface import Check
from tokbench.conformance.result import (
    Outcome,
    ReportError,
    Result,
    SkipError,
    line_in,
    location,
    one_line,
)
from tokbench.conformance.subject import Subject, find
from tokbench.context import UndeclaredFieldError
from tokbench.guard import MethodChangedError, Surroundings, check_unchanged
from tokbench.isolation import EndedError, ends_the_run, step
from tokbench.streams import stdout_to_stderr

# If one of these fails, the other checks are skipped: they would fail for the same reason.
GATES: tuple[Check, ...] = (interface.imports, interface.declares, interface.runs)

CHECKS: tuple[Check, ...] = (
    *GATES,
    interface.documents,
    interface.shapes,
    interface.counts,
    interface.prefix,
    interface.bookkeeping,
    interface.removes,
    interface.smallest,
    interface.full_range,
    interface.second_stage,
    interface.choices,
    families.rotary_positions,
    families.attention_pooling,
    behaviour.mutation,
    behaviour.determinism,
    behaviour.stateless,
    behaviour.seeding,
    behaviour.noise,
    behaviour.batch_independence,
    behaviour.undeclared,
    behaviour.state_dict,
    behaviour.adaptive,
    machine.dtypes,
    gpu.devices,
    machine.gradients,
    training.training,
    gpu.host_sync,
    gpu.simulated_gpu,
    machine.compiles,
)


def verify(target: str | Path, plugins: Iterable[Path] = ()) -> list[Result]:
    """Check one method, or all methods of a file.

    Args:
        target: A method, such as `tome` or `token_pooling(algorithm=kmeans)`, or a file, whose name ends in `.py`.
        plugins: Files and folders with further methods.

    Returns:
        One result per method and check.

    Raises:
        UserError: The method is unknown or the file does not exist.
    """
    return [result for subject in find([target], plugins) for result in examine(subject)]


def failures(target: str | Path) -> list[str]:
    """The failures found by `verify`, one line each; empty if all checks pass. Meant for an assert in a test."""
    return [f"{result.check}: {result.message}" for result in verify(target) if result.outcome == "failed"]


def examine(subject: Subject) -> Iterator[Result]:
    """Run all checks of one method; stop after a failed check of `GATES`."""
    surroundings = Surroundings()
    for check in CHECKS:
        result = run_check(check, subject, surroundings)
        yield result
        if result.outcome == "failed" and check in GATES:
            return


def run_check(check: Check, subject: Subject, surroundings: Surroundings | None = None) -> Result:
    """Run one check; any exception that the method raises is a failure, and so is any change of the process.

    Args:
        check: What to check.
        subject: The method.
        surroundings: Of this process, as methods must leave it; None takes it as it is now.
    """
    surroundings = surroundings or Surroundings()
    outcome: Outcome = "passed"
    message = ""
    try:
        # The method's own warnings and prints are not the check's.
        with warnings.catch_warnings(action="ignore"), stdout_to_stderr(), step(f"{name_of(check)} of {subject.label}"):
            check(subject)
    except ReportError as report:
        outcome, message = "reported", str(report)
    except SkipError as skip:
        outcome, message = "skipped", str(skip)
    except UndeclaredFieldError:
        outcome, message = "skipped", "the method reads an undeclared field: see 'undeclared'"
    except BaseException as error:  # a method is third-party code, and may raise SystemExit
        if ends_the_run(error):
            raise
        outcome, message = "failed", str(error) if isinstance(error, EndedError) else _located(subject, error)
    try:
        check_unchanged(surroundings)
    except MethodChangedError as error:
        outcome, message = "failed", _located(subject, error)
    return Result(subject.label, name_of(check), outcome, message)


def name_of(check: Check) -> str:
    """The name of a check."""
    return check.__name__


def about(check: Check) -> str:
    """A description of a check, in one line."""
    return (check.__doc__ or "").splitlines()[0]


def _located(subject: Subject, error: BaseException) -> str:
    """The failure with its location: the method's line that raised the exception, else its `forward`."""
    if subject.method is None:
        return one_line(error)
    line = line_in(subject.file, error)
    if line is None:
        forward = getattr(subject.cls.forward, "__code__", None)
        line = forward.co_firstlineno if forward is not None and forward.co_filename == subject.file else 1
    return f"{location(subject.file, line)}: {one_line(error)}"
