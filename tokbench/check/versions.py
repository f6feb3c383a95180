"""The versions of plugin files in a commit, read with git."""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokbench.errors import UserError

MAX_NAMED = 5  # files that are named in a message


@dataclass(frozen=True)
class Changed:
    """A plugin file that differs from the one in a commit, itself or in a file that it imports.

    Attributes:
        new: The file.
        old: A copy of its version in the commit, next to copies of the Python files that were beside it.
    """

    new: Path
    old: Path


def plugin_files(files: Iterable[Path], plugins: Sequence[Path]) -> list[Path]:
    """The files to compare with a commit: the user's own, and those that the current folder's repository tracks.

    Args:
        files: All files that define methods.
        plugins: The files and folders that the user gave as plugins.

    Raises:
        UserError: A plugin of the user is not in a git repository.
    """
    here = _root(Path.cwd())
    roots = [path.resolve() for path in plugins]
    chosen = []
    for file in sorted({path.resolve() for path in files}):
        own = any(root == file or root in file.parents for root in roots)
        root = _root(file.parent)
        if own and root is None:
            raise UserError(
                f"{file} is not in a git repository, but --against compares with a commit: run git init and commit"
            )
        if own or (root is not None and root == here and _tracked(file)):
            chosen.append(file)
    return chosen


def changed_files(files: Mapping[Path, Collection[Path]], ref: str, folder: Path) -> tuple[list[Changed], list[str]]:
    """Find the files that differ from their versions in a commit.

    Args:
        files: Files in git repositories, each with the files that it imports.
        ref: The commit: a branch, tag or hash.
        folder: Where to write the old versions.

    Returns:
        The files that differ, and notes about the others.

    Raises:
        UserError: A repository does not have the commit.
    """
    changed, same, added = [], [], []
    for number, (file, imported) in enumerate(files.items()):
        commit = _commit(file.parent, ref)
        if _content(file, commit) is None:
            added.append(file.name)
        elif all(_content(one, commit) == one.read_bytes() for one in {file, *imported}):
            same.append(file.name)
        else:
            changed.append(Changed(file, _copy(file, commit, folder / str(number))))
    others = [(same, f"unchanged since {ref}, not measured"), (added, f"not in {ref}, nothing to compare with")]
    return changed, [f"{note}: {_name_list(names)}" for names, note in others if names]


def _copy(file: Path, commit: str, folder: Path) -> Path:
    """Write the Python files of a file's folder as they were in a commit; returns the file's own copy."""
    listed = _git(file.parent, "ls-tree", "-r", "-z", "--name-only", commit).stdout.decode(errors="surrogateescape")
    for name in {file.name, *(name for name in listed.split("\0") if name.endswith(".py"))}:
        content = _git(file.parent, "show", f"{commit}:./{name}")
        if content.returncode == 0:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content.stdout)
    return folder / file.name


def _name_list(names: Sequence[str]) -> str:
    return ", ".join(names) if len(names) <= MAX_NAMED else f"{len(names)} files"


def _root(folder: Path) -> Path | None:
    """The root of the working tree that contains a folder; None if there is none."""
    found = _git(folder, "rev-parse", "--show-toplevel")
    return Path(found.stdout.decode().strip()).resolve() if found.returncode == 0 else None


def _tracked(file: Path) -> bool:
    return _git(file.parent, "ls-files", "--error-unmatch", "--", file.name).returncode == 0


def _commit(folder: Path, ref: str) -> str:
    # The suffix keeps git from reading the ref as an option.
    found = _git(folder, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    if found.returncode != 0:
        raise UserError(
            f"no commit '{ref}' in {_root(folder)}: name a branch, tag or hash; in a shallow clone, fetch it first"
        )
    return found.stdout.decode().strip()


def _content(file: Path, commit: str) -> bytes | None:
    """The content of a file in a commit; None if the commit does not have it."""
    found = _git(file.parent, "show", f"{commit}:./{file.name}")
    return found.stdout if found.returncode == 0 else None


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, check=False)
    except FileNotFoundError:
        raise UserError("--against needs git, which is not installed: install it") from None
