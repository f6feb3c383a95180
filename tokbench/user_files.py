"""Paths and TOML files that the user names: what cannot be used gives a message of one line."""

from __future__ import annotations

import codecs
import stat
import tomllib
from pathlib import Path
from typing import Any

from tokbench.errors import UserError
from tokbench.notation import shortened


def expanded(path: str) -> Path:
    """The path with the user's folder for `~`.

    Raises:
        UserError: There is no such user, or no file can have this name.
    """
    if "\0" in path:
        raise UserError(f"no path can hold the character NUL, got {shortened(repr(path))}")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user, found = path.partition("/")[0], shortened(path)
        raise UserError(
            f"no folder for '{shortened(user)}' in '{found}': there is no such user; write the whole path"
        ) from None


def exists(file: Path) -> bool:
    """Whether there is something of this name, be it a folder or a broken link.

    Raises:
        UserError: The system does not say.
    """
    try:
        file.lstat()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unreadable(file, error.strerror) from None
    return True


def read_toml(file: Path) -> dict[str, Any]:
    """The file's content.

    Raises:
        UserError: There is no such file, it cannot be read, or it is not valid TOML.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):  # a pipe or a device may have no end
            raise _unreadable(file, "it is not a regular file")
        content = file.read_bytes()
    except FileNotFoundError:
        raise UserError(f"no config file at {shortened(str(file))}: give a tokbench.toml with --config") from None
    except OSError as error:
        raise _unreadable(file, error.strerror) from None
    except ValueError as error:  # the name holds the character NUL
        raise _unreadable(file, str(error)) from None
    return parse_toml(content, str(file))


def parse_toml(content: bytes, name: str) -> dict[str, Any]:
    """Read TOML.

    Args:
        content: What the file holds.
        name: The file's name, for the message.

    Raises:
        UserError: It is not valid TOML.
    """
    if content.startswith(codecs.BOM_UTF8):
        raise UserError(f"{name} begins with a byte order mark: save it as UTF-8 without one")
    try:
        settings = tomllib.loads(content.decode("utf-8"))
        repr(settings)  # fails for a hexadecimal integer that messages could not repeat in decimals
        return settings
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{name} is not UTF-8 (line {line}): save it as UTF-8") from None
    except RecursionError:
        raise UserError(f"{name} is not valid TOML: its brackets are nested too deeply") from None
    except ValueError as error:  # a TOMLDecodeError, or that of an integer of thousands of digits
        raise UserError(f"{name} is not valid TOML: {error}") from None


def _unreadable(file: Path, reason: str | None) -> UserError:
    return UserError(f"cannot read {shortened(str(file))} ({reason}): give another tokbench.toml with --config")
