"""The files under a folder."""

import os
from pathlib import Path

from tokbench.data.errors import DataError

__all__ = ["list_files"]


def list_files(root: Path) -> list[str]:
    """The files under a folder, relative to it, sorted, so that their order does not depend on the file system.

    Raises:
        DataError: A folder cannot be listed, or links to one that is above it.
    """

    def fail(error: OSError) -> None:
        raise DataError(
            f"{error.filename} cannot be listed ({error.strerror}): check its permissions or remove it"
        ) from error

    found: list[str] = []
    seen: set[Path] = set()
    for name, _, files in os.walk(root, followlinks=True, onerror=fail):
        folder = Path(name)
        if folder.resolve() in seen:
            raise DataError(f"{folder} links to a folder that is already part of the set: remove the link")
        seen.add(folder.resolve())
        found += ((folder / file).relative_to(root).as_posix() for file in files)
    return sorted(found)
