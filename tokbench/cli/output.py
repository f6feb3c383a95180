"""What commands print and write: warnings, JSON, and files that the user names."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tokbench.errors import UserError

if TYPE_CHECKING:
    from tokbench.registry import Broken


def warn(message: str) -> None:
    """Print one line to standard error."""
    typer.echo(f"tokbench: {message}", err=True)


def warn_broken(plugins: Iterable[Broken]) -> None:
    """Warn of plugins that could not be imported."""
    for plugin in plugins:
        warn(f"broken plugin {plugin.source}: {plugin.reason}")


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    typer.echo(json.dumps(value, indent=2))


def check_ending(file: Path | None, endings: Collection[str]) -> None:
    """Check, before any work is done, that a file's ending names what is to be written.

    Raises:
        UserError: It has another ending.
    """
    if file is not None and file.suffix.lower() not in endings:
        raise UserError(f"--out {file}: the file's name must end in {' or '.join(endings)}")


def writing(file: Path) -> AbstractContextManager[None]:
    """Turn a failure to write a file that the user has named into a message; see `tokbench.files.writing`."""
    from tokbench import files

    return files.writing(file, f"choose another file with --out FILE{file.suffix}")


def write_text(file: Path, text: str, errors: str = "strict") -> None:
    """Write a text file, whole or not at all.

    Args:
        file: Where to write.
        text: Its content.
        errors: What to do with characters that UTF-8 cannot encode, as in `str.encode`.

    Raises:
        UserError: The file cannot be written.
    """
    from tokbench.files import write_atomically

    with writing(file):
        write_atomically(file, lambda path: path.write_text(text, encoding="utf-8", errors=errors))
