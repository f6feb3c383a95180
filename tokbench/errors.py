"""Errors that the user can fix, as opposed to bugs in tokbench."""

import difflib
import traceback

SUBSTRING = 3  # characters; shorter words are part of too many names


class UserError(Exception):
    """A mistake that the user can fix: the message is one line with cause and fix, shown without a traceback."""


def describe(error: BaseException) -> str:
    """One line: what was raised, with which message, and where, unless that is in an installed package."""
    try:
        text = str(error).strip() or "no message"
    except Exception:  # it is another's code that makes the text
        text = "its message cannot be shown"
    frames = traceback.extract_tb(error.__traceback__)
    place = ""
    if frames and "site-packages" not in frames[-1].filename:
        place = f" ({frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno})"
    return f"{type(error).__name__}: {text.splitlines()[0]}{place}"


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
