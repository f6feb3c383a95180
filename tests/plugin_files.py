"""Plugin files for tests, and the one-line messages of errors."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tokbench.errors import UserError

Write = Callable[..., Path]

METHOD = """
from tokbench import Context, Downsampler, Tokens, register


@register("{name}")
class {cls}(Downsampler):
    def __init__(self, ratio: float = 0.5, loud: bool = False) -> None:
        super().__init__()
        if ratio < 0:
            raise ValueError("ratio=%s: at least 0" % ratio)
        self.ratio, self.loud = ratio, loud

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        return tokens
"""


def writer(folder: Path) -> Write:
    """A function that writes a plugin file: a method of that name, followed by more code."""

    def write(file: str, name: str | None = None, more: str = "") -> Path:
        path = folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text((METHOD.format(name=name, cls="Method") if name else "") + more)
        return path

    return write


def error_message(function, *arguments, **named):
    """The error message, which must be one line."""
    with pytest.raises(UserError) as caught:
        function(*arguments, **named)
    message = str(caught.value)
    assert message
    assert len(message.splitlines()) == 1
    return message
