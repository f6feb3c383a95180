"""From a commit to a report: which methods have changed since, which of a suite's cells are theirs, and how they do."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.progress import Progress

from tokbench.check.against import check_versions
from tokbench.check.finding import Finding, Outcome, Report
from tokbench.check.versions import Changed, changed_files, plugin_files
from tokbench.compare.plan import plan
from tokbench.compare.prepare import prepare
from tokbench.config import Check, Config, Suite
from tokbench.downsampler import Downsampler
from tokbench.errors import UserError
from tokbench.names import PLAIN
from tokbench.notation import parse_call, split_list
from tokbench.registry import discover, load_apart, source_file


@dataclass(frozen=True)
class Changes:
    """What has changed since a commit.

    Attributes:
        older: The old version of each method that is there in both.
        findings: Files that were methods, and can no longer be imported.
        notes: What cannot be compared, in words.
    """

    older: dict[str, type[Downsampler]]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def compare_with_commit(
    ref: str, suite: Suite, settings: Config, named: Sequence[Path], thresholds: Check, progress: Progress
) -> Report:
    """Measure the methods that have changed since a commit against what they were, in one session.

    Args:
        ref: The commit, as git names it.
        suite: What to measure them on. Of its methods those that have changed are measured; where it says so of none,
            each one that has changed, at its defaults.
        settings: Holds the methods' parameters.
        named: Files and folders of the user's own methods.
        thresholds: What is allowed, and how long to measure.
        progress: Shows how far it is.

    Raises:
        UserError: There is no plugin, no repository or no such commit, or the suite is wrong.
    """
    title = f"working tree against {ref}"
    known, broken = discover(named)
    lost = {Path(one.source).resolve(): one.reason for one in broken if Path(one.source).is_file()}
    files = plugin_files([*(Path(source_file(cls)) for cls in known.values()), *lost], named)
    if not files:
        raise UserError(f"there is no plugin to hold against '{ref}': name files or folders with --plugins")
    with tempfile.TemporaryDirectory() as folder:
        changed, notes = changed_files(files, ref, Path(folder))
        changes = _changes(changed, known, lost)
        notes = [*notes, *changes.notes]
        methods = _of_suite(suite.methods, changes.older)
        if not methods:
            return Report(title, findings=changes.findings, notes=(*notes, "no method to compare"))
        chosen = suite.model_copy(update={"methods": methods})
        planned = plan(chosen, settings, list(known), broken=bool(broken))
        prepared = prepare([cell for cell in planned if cell.variant.method != PLAIN], chosen)
        skipped = {row.cell.variant.method: row.cell.variant.skipped for row in prepared.rows}
        notes += [f"{method} is skipped: {reason}" for method, reason in skipped.items() if reason]
        rows, findings = check_versions(prepared, changes.older, thresholds, progress)
    return Report(title, rows, (*changes.findings, *findings), tuple(notes))


def _changes(changed: Sequence[Changed], known: Mapping[str, type[Downsampler]], lost: Mapping[Path, str]) -> Changes:
    older: dict[str, type[Downsampler]] = {}
    findings, notes = [], []
    for file in changed:
        try:
            before = load_apart(file.old)
        # The old file is somebody else's code too, and may need what is no longer there.
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            notes.append(f"the older {file.new.name} does not import, nothing to compare with: {reason}")
            continue
        if file.new in lost:
            note = f"{file.new.name} does not import: {lost[file.new]}"
            findings.append(Finding(Outcome.REGRESSED, "import", note))
            continue
        now = {name for name, cls in known.items() if Path(source_file(cls)).resolve() == file.new}
        older |= {name: cls for name, cls in before.items() if name in now}
        notes += [f"{name} is new, nothing to compare with" for name in sorted(now - before.keys())]
        notes += [f"{name} is gone from {file.new.name}" for name in sorted(before.keys() - now)]
    return Changes(older, tuple(findings), tuple(notes))


def _of_suite(methods: Sequence[str], older: Collection[str]) -> tuple[str, ...]:
    """The suite's methods that have an older version, as it writes them; all of those where it names none."""
    written = [one for text in methods for one in (sorted(older) if text == "all" else split_list(text))]
    return tuple(one for one in written if parse_call(one).name in older) or tuple(sorted(older))
