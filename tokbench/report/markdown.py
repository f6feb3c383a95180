"""Tables and escaped text in GitHub's Markdown."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

# Everything that GitHub may interpret: formatting, HTML and entities, table cells, formulas, issue numbers, mentions.
SPECIAL = re.compile(r"([\\`*_\[\]<>&|$~#!@])")


def escape(text: str) -> str:
    """The Markdown that shows a text literally."""
    return SPECIAL.sub(r"\\\1", text)


def markdown_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], right_aligned: Collection[int] = ()
) -> list[str]:
    """The lines of a table.

    Args:
        headings: In Markdown, with pipes escaped, as are the cells.
        rows: As many cells each.
        right_aligned: The indices of the columns that are aligned to the right.
    """
    rule = ["---:" if index in right_aligned else "---" for index in range(len(headings))]
    return [f"| {' | '.join(row)} |" for row in (headings, rule, *rows)]
