"""Errors that the user can fix, as opposed to bugs in tokbench."""

import difflib
import traceback

SUBSTRING = 3  # characters; shorter words are part of too many names


class UserError(Exception):
    """A mistake that the user can fix: the message is one line with cause and fix, shown without a traceback."""


class UnwritableError(UserError):
    """A file or a results directory cannot be written: no method's fault, wherever it happens."""


class NotExportableError(Exception):
    """A model cannot be exported to a runtime, or not run there; the message is one line that names what is missing."""


def did_you_mean(word: str, known: list[str]) -> str:
    """The end of a message about an unknown name: similar known names, or else all of them.

    Args:
        word: The unknown name.
        known: The names to choose from.

    Returns:
        The most similar name; else up to three names that contain the word, those that start with it first.
    """
    near = difflib.get_close_matches(word, known, n=1)
    if not near and len(word) >= SUBSTRING:
        containing = [name for name in known if word in name]
        near = sorted(containing, key=lambda name: (not name.startswith(word), len(name), name))[:3]
    if near:
        return f"did you mean {' or '.join(repr(name) for name in near)}?"
    return f"known: {', '.join(sorted(known)) or 'none'}"


def describe(error: BaseException) -> str:
    """An exception in one printable line: its class and the first line of its message.

    The exceptions of plugins are anyone's code: a message that cannot be had is left out.
    """
    try:
        message = str(error)
    except BaseException:
        message = ""
    first = next((line for line in str.splitlines(message) if line.strip()), "")
    return printable(f"{type(error).__name__}: {first}").removesuffix(":")


def describe_with_place(error: BaseException) -> str:
    """The same, followed by the line that raised it, unless that is in an installed package."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or "site-packages" in frames[-1].filename:
        return describe(error)
    return f"{describe(error)} ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})"


def printable(text: str) -> str:
    """The text on one line, without control characters: error messages may hold line breaks and terminal codes."""
    shown = text.encode("utf-8", "replace").decode("utf-8")  # file names that are not UTF-8 hold surrogates
    return " ".join("".join(c if c.isprintable() else " " for c in shown).split())


def escaped(text: str) -> str:
    """The text on one line, with escapes for what cannot be printed: names of files stay distinct."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
