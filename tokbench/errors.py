"""The user's mistakes, told apart from ours."""

import difflib


class UserError(Exception):
    """Something the user can mend: the message is one line that names the cause and the mend, with no traceback."""


def did_you_mean(word: str, known: list[str]) -> str:
    """The end of a message about an unknown name: the nearest known one, or all of them."""
    near = difflib.get_close_matches(word, known, n=1)
    if near:
        return f"did you mean '{near[0]}'?"
    return f"known: {', '.join(sorted(known)) or 'none'}"
