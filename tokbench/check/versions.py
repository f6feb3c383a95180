"""Plugin files as a commit has them, from git."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokbench.errors import UserError

NAMED = 5  # files named where many have the same fate


@dataclass(frozen=True)
class Changed:
    """A plugin file that differs from the one in a commit.

    Attributes:
        new: The file.
        old: A copy of what the commit holds at its place.
    """

    new: Path
    old: Path


def plugin_files(files: Iterable[Path], named: Sequence[Path]) -> list[Path]:
    """The files to hold against a commit: the user's own, and what else the current folder's repository tracks.

    Args:
        files: All the files that define methods.
        named: The files and folders that the user names as plugins.

    Raises:
        UserError: A named plugin is in no git repository.
    """
    here = _root(Path.cwd())
    roots = [path.resolve() for path in named]
    chosen = []
    for file in sorted({path.resolve() for path in files}):
        own = any(root == file or root in file.parents for root in roots)
        root = _root(file.parent)
        if own and root is None:
            raise UserError(f"{file} is in no git repository: --against compares with a commit, so make one there")
        if own or (root is not None and root == here and _tracked(file)):
            chosen.append(file)
    return chosen


def changed_files(files: Sequence[Path], ref: str, folder: Path) -> tuple[list[Changed], list[str]]:
    """Which files differ from their versions in a commit.

    Args:
        files: Each in a git repository.
        ref: A commit, as git names it.
        folder: Where the old versions are written.

    Returns:
        The files that differ, and in words what became of the others.

    Raises:
        UserError: A repository does not know the commit.
    """
    changed, same, added = [], [], []
    for number, file in enumerate(files):
        old = _content(file, _commit(file.parent, ref))
        if old is None:
            added.append(file.name)
        elif old == file.read_bytes():
            same.append(file.name)
        else:
            copy = folder / str(number) / file.name
            copy.parent.mkdir(parents=True)
            copy.write_bytes(old)
            changed.append(Changed(file, copy))
    told = [(same, f"unchanged since {ref}, not measured"), (added, f"not in {ref}, nothing to compare with")]
    return changed, [f"{what}: {_few(names)}" for names, what in told if names]


def _few(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= NAMED else f"{len(names)} files"


def _root(folder: Path) -> Path | None:
    """The root of the working tree that a folder is in."""
    found = _git(folder, "rev-parse", "--show-toplevel")
    return Path(found.stdout.decode().strip()).resolve() if found.returncode == 0 else None


def _tracked(file: Path) -> bool:
    return _git(file.parent, "ls-files", "--error-unmatch", "--", file.name).returncode == 0


def _commit(folder: Path, ref: str) -> str:
    # With its suffix no ref reads as an option.
    found = _git(folder, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    if found.returncode != 0:
        raise UserError(
            f"git knows no commit '{ref}' in {_root(folder)}: name a branch, tag or hash, "
            "and fetch it first where the clone is shallow"
        )
    return found.stdout.decode().strip()


def _content(file: Path, commit: str) -> bytes | None:
    """The file as the commit has it, None where it has not."""
    found = _git(file.parent, "show", f"{commit}:./{file.name}")
    return found.stdout if found.returncode == 0 else None


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise UserError("--against needs git, which is not installed: install it") from None
