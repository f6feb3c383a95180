"""Text in Markdown tables."""

import html
import re

_SPECIAL = re.compile(r"([\\`*_\[\]|~])")


def cell(text: str) -> str:
    """A table's cell that shows a text literally."""
    return _SPECIAL.sub(r"\\\1", html.escape(" ".join(text.split()), quote=False))


def code(text: str) -> str:
    """A table's cell that shows a text as code; empty where the text is."""
    return f"`{text.replace('|', '&#124;')}`" if text else ""
