"""What commands print and write: warnings, JSON, and files that the user names."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from tokbench.errors import UserError, printable
from tokbench.notation import shortened

if TYPE_CHECKING:
    from tokbench.registry import Broken


MAX_WORD = 255  # characters of a path or another text without spaces in a message
MAX_MESSAGE = 4096

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
WRONG_FILE = {
    *FULL,
    errno.EACCES,
    errno.EPERM,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ENXIO,
    errno.ENODEV,
}


def warn(message: str) -> None:
    """Print one line to standard error; what was given is repeated to a reasonable length only."""
    line = re.sub(rf"\S{{{MAX_WORD + 1},}}", lambda word: shortened(word[0]), printable(message))
    if len(line) > MAX_MESSAGE:
        line = f"{line[: MAX_MESSAGE // 2]} ... {line[-MAX_MESSAGE // 2 :]}"
    typer.echo(f"tokbench: {line}", err=True)


def check_characters(arguments: Iterable[str]) -> None:
    """Check that arguments can be the names of files.

    Raises:
        UserError: One holds NUL, or characters that the file system cannot encode.
    """
    for argument in arguments:
        try:
            possible = b"\0" not in os.fsencode(argument)
        except UnicodeEncodeError:
            possible = False
        if not possible:
            raise UserError(f"{shortened(ascii(argument))} holds a character that no argument can have: leave it out")


def problem_with_file(error: OSError) -> str | None:
    """What to tell the user about a file that cannot be used; None if it is not the user's file but a bug."""
    file = error.filename2 or error.filename
    if _output_fails():
        return f"cannot write to standard output ({error.strerror}): send it elsewhere"
    if error.errno in FULL and not isinstance(file, str | bytes):
        return f"cannot write the output or the results ({error.strerror}): make room, or write elsewhere"
    if error.errno not in WRONG_FILE or not isinstance(file, str | bytes):
        return None
    path = Path(os.fsdecode(file)).absolute()
    if any(path.is_relative_to(folder) for folder in (sys.prefix, sys.base_prefix, Path(__file__).parents[1])):
        return None
    verb = "write" if error.errno in FULL else "use"
    return f"cannot {verb} {shortened(os.fsdecode(file))} ({error.strerror}): give another path"


def flush_output() -> None:
    """Write what is left of the output, so that a failure is reported like any other.

    Raises:
        OSError: It cannot be written.
    """
    if sys.stdout is not None:
        sys.stdout.flush()


def drop_output() -> None:
    """Drop what is left of the output; Python would try once more at exit, and report the failure again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _output_fails() -> bool:
    """Whether standard output cannot be written; if so, what is left of it is dropped."""
    try:
        flush_output()
    except OSError:
        drop_output()
        return True
    return False


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
