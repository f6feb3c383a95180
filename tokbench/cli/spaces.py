"""Lists that were written with spaces: in `--keep 0.7 0.5`, the 0.5 is taken for a suite."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Any

from tokbench.notation import shortened

# How messages begin that are about a word which is no option's value.
ABOUT_WORDS = ("unknown suite", "got unexpected extra argument", "there is no image", "--against measures both")


def with_commas(command: Any, arguments: Sequence[str], message: str) -> str | None:
    """A better message for words that follow a list, None if the message is about something else.

    Args:
        command: The command line, a group of commands.
        arguments: What was given.
        message: What was wrong.
    """
    if not message.lower().startswith(ABOUT_WORDS):
        return None
    for option, value, words in _lists(command, arguments):
        mentioned = [word for word in words if shortened(word) in message]
        if mentioned:
            right = ",".join([value, *words])
            word = shortened(mentioned[0])
            return f"unexpected '{word}' after {option}: separate items by commas, as in {option} {right}"
    return None


def _lists(command: Any, arguments: Sequence[str]) -> Iterator[tuple[str, str, list[str]]]:
    """The options that take a list, each with its value and the words that follow it."""
    chosen = next((one for name, one in command.commands.items() if name in arguments[:1]), None)
    options = {opt for one in (chosen.params if chosen else ()) if one.metavar == "LIST" for opt in one.opts}
    for index, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option not in options or not (equals or index + 1 < len(arguments)):
            continue
        rest = arguments[index + 1 :] if equals else arguments[index + 2 :]
        words = list(takewhile(lambda word: not word.startswith("--"), rest))
        yield option, value if equals else arguments[index + 1], words
