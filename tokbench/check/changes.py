"""Compare the methods that have changed since a commit with their old versions."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokbench.check.against import check_versions
from tokbench.check.finding import Finding, Outcome, Report
from tokbench.check.versions import Changed, changed_files, plugin_files
from tokbench.config import Check, Config
from tokbench.downsampler import Downsampler
from tokbench.errors import UserError, describe
from tokbench.isolation import ends_the_run
from tokbench.names import PLAIN
from tokbench.notation import parse_call, split_list
from tokbench.registry import discover, load_apart, source_file
from tokbench.run.cells import cells_of
from tokbench.run.observer import Observer
from tokbench.run.prepare import prepare
from tokbench.schedule_text import refuse_searches
from tokbench.sources import sources_of
from tokbench.suite import Suite


@dataclass(frozen=True)
class Changes:
    """The methods that have changed since a commit.

    Attributes:
        older: The old version of each method that exists in both.
        findings: Plugin files that can no longer be imported.
        notes: What cannot be compared, and why.
    """

    older: dict[str, type[Downsampler]]
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]


def compare_with_commit(
    ref: str, suite: Suite, settings: Config, plugins: Sequence[Path], thresholds: Check, observer: Observer
) -> Report:
    """Measure the methods that have changed since a commit and their old versions in one session.

    Args:
        ref: The commit: a branch, tag or hash.
        suite: What to measure them on. Its methods that have changed are measured; if it has none of them, all methods
            that have changed are, with their default parameters.
        settings: The configuration, which may set parameters of methods.
        plugins: Files and folders of the user's own methods.
        thresholds: The changes that are allowed, and how long to measure.
        observer: Shows progress.

    Raises:
        UserError: There is no plugin, no repository or no such commit, or the suite is invalid.
    """
    title = f"working tree against {ref}"
    refuse_searches(suite.schedule)
    known, broken = discover(plugins)
    import_errors = {Path(plugin.source).resolve(): plugin.reason for plugin in broken if Path(plugin.source).is_file()}
    files = plugin_files([*(Path(source_file(cls)) for cls in known.values()), *import_errors], plugins)
    if not files:
        raise UserError(f"no plugin to compare with '{ref}': name files or folders with --plugins")
    with tempfile.TemporaryDirectory() as folder:
        changed, notes = changed_files({file: _imported(file, known) for file in files}, ref, Path(folder))
        changes = _changes(changed, known, import_errors)
        notes = [*notes, *changes.notes]
        methods = _suite_methods(suite.methods, changes.older)
        if not methods:
            return Report(title, findings=changes.findings, notes=(*notes, "no method to compare"))
        chosen = suite.model_copy(update={"methods": methods})
        planned = cells_of(chosen, settings, list(known), broken=bool(broken))
        prepared = prepare([cell for cell in planned if cell.variant.method != PLAIN], chosen)
        skipped = {row.cell.variant.method: row.cell.variant.skipped for row in prepared.rows}
        notes += [f"{method} is skipped: {reason}" for method, reason in skipped.items() if reason]
        rows, findings = check_versions(prepared, changes.older, thresholds, observer)
    return Report(title, rows, (*changes.findings, *findings), tuple(notes))


def _imported(file: Path, known: Mapping[str, type[Downsampler]]) -> set[Path]:
    """The files beside a plugin file that its methods' code is in."""
    own = (cls for cls in known.values() if Path(source_file(cls)).resolve() == file)
    return {source for cls in own for source in sources_of(cls) if file.parent in source.parents}


def _changes(
    changed: Sequence[Changed], known: Mapping[str, type[Downsampler]], import_errors: Mapping[Path, str]
) -> Changes:
    older: dict[str, type[Downsampler]] = {}
    findings, notes = [], []
    for file in changed:
        try:
            before = load_apart(file.old)
        # Plugin code may raise anything, and the old file may need modules that no longer exist.
        except BaseException as error:
            if ends_the_run(error):
                raise
            reason = describe(error)
            notes.append(f"the old version of {file.new.name} cannot be imported, nothing to compare with: {reason}")
            continue
        if file.new in import_errors:
            note = f"{file.new.name} cannot be imported: {import_errors[file.new]}"
            findings.append(Finding(Outcome.REGRESSED, "import", note))
            continue
        now = {name for name, cls in known.items() if Path(source_file(cls)).resolve() == file.new}
        older |= {name: cls for name, cls in before.items() if name in now}
        notes += [f"{name} is new, nothing to compare with" for name in sorted(now - before.keys())]
        notes += [f"{name} was removed from {file.new.name}" for name in sorted(before.keys() - now)]
    return Changes(older, tuple(findings), tuple(notes))


def _suite_methods(methods: Sequence[str], older: Collection[str]) -> tuple[str, ...]:
    """The suite's methods that have an old version, as written there; if there are none, all methods that have one."""
    calls = [call for text in methods for call in (sorted(older) if text == "all" else split_list(text))]
    return tuple(call for call in calls if parse_call(call).name in older) or tuple(sorted(older))
