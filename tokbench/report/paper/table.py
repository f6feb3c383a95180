"""A comparison as a table for a paper, in LaTeX or Markdown, with the rows, digits and signs of the terminal's table.

Top-1 and GMACs are bold in rows on the Pareto front, which also have a ★.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from tokbench.names import TIMES
from tokbench.report.digits import RowValues
from tokbench.report.lines import TextColumn, block_title, legend, model_blocks, text_columns
from tokbench.report.markdown import escape, markdown_table
from tokbench.results.columns import BY_INTERVAL

# Columns of the terminal's table that are left out; `setting` columns are not needed to identify a row.
OMITTED = ("setting", *(name for name, column in BY_INTERVAL.items() if column.dropped > 4))
BOLD = ("gmacs", "top1")
NOT_NUMERIC = ("pareto", "method", "verdict")

# Longer names would not fit on the page. The results hold the full names.
MAX_NAME = 80

TEX_ESCAPES = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}  # other characters in TeX's own fonts
    | {"★": r"$\bigstar$", "▲": r"$\blacktriangle$", "▼": r"$\blacktriangledown$", "Δ": r"$\Delta$"}
    | {TIMES: r"$\times$", "±": r"$\pm$", "·": r"$\cdot$", "…": r"\ldots{}"}
)
PREAMBLE = r"% \usepackage{booktabs,amssymb}"


def latex(rows: pd.DataFrame) -> str:
    """LaTeX: a `table*` for each model, with caption and label; it needs booktabs and amssymb.

    Args:
        rows: What `tokbench.report.paper.rows.select_rows` gives.
    """
    return "\n".join([PREAMBLE, *(_latex_table(model, lines) for model, lines in _blocks(rows))])


def markdown(rows: pd.DataFrame) -> str:
    """GitHub's Markdown: for each model a title, a table and its legend.

    Args:
        rows: What `tokbench.report.paper.rows.select_rows` gives.
    """
    return "\n".join(_markdown_block(model, lines) for model, lines in _blocks(rows))


def _blocks(rows: pd.DataFrame) -> Iterator[tuple[str, list[RowValues]]]:
    """The models' names and the values of their rows, averaged over seeds."""
    return ((_shorten(model), lines) for model, _, lines in model_blocks(rows))


def _latex_table(model: str, lines: Sequence[RowValues]) -> str:
    columns = _shown_columns(lines)
    cells = [_formatted_cells(column, lines, _tex, _tex_numbers, r"\textbf{{{}}}".format) for column in columns]
    frame = pd.DataFrame(list(zip(*cells, strict=True)), columns=[_tex(_heading(column)) for column in columns])
    caption = ". ".join([block_title(model, lines).plain, *legend(lines).plain.splitlines()])
    return frame.style.hide(axis="index").to_latex(
        column_format="".join("r" if _is_numeric(column) else "l" for column in columns),
        environment="table*",
        position_float="centering",
        hrules=True,
        caption=f"{_tex(caption)}.",
        label=f"tab:{re.sub('[^a-z0-9]+', '-', model.lower()).strip('-')}",
    )


def _markdown_block(model: str, lines: Sequence[RowValues]) -> str:
    columns = _shown_columns(lines)
    cells = [_formatted_cells(column, lines, escape, _markdown_numbers, "**{}**".format) for column in columns]
    headings = [escape(_heading(column)) for column in columns]
    numeric = [index for index, column in enumerate(columns) if _is_numeric(column)]
    table = markdown_table(headings, zip(*cells, strict=True), numeric)
    notes = [f"{escape(line)}  " for line in legend(lines).plain.splitlines()]
    return "\n".join([f"**{escape(block_title(model, lines).plain)}**", "", *table, "", *notes, ""])


def _shown_columns(lines: Sequence[RowValues]) -> list[TextColumn]:
    return [column for column in text_columns(lines) if column.key not in OMITTED]


def _heading(column: TextColumn) -> str:
    return f"{column.heading} ({column.unit})" if column.unit else column.heading


def _is_numeric(column: TextColumn) -> bool:
    return column.justify == "right" and column.key not in NOT_NUMERIC


def _formatted_cells(
    column: TextColumn,
    lines: Sequence[RowValues],
    format_text: Callable[[str], str],
    format_numbers: Callable[[Sequence[str], Sequence[str]], list[str]],
    bold: Callable[[str], str],
) -> list[str]:
    """A column's cells in LaTeX or Markdown.

    Args:
        column: A column of the terminal's table.
        lines: The rows it was made from.
        format_text: Formats a cell that is not a number.
        format_numbers: Formats numbers and their suffixes, both padded to the column's widths.
        bold: Makes a formatted number bold.
    """
    plain = [cell.plain for cell in column.cells]
    if not _is_numeric(column):
        return [format_text(_shorten(cell)) for cell in plain]
    cells = format_numbers(plain, column.suffixes or [""] * len(lines))
    on_front = [line["pareto"] and column.key in BOLD for line in lines]
    return [bold(cell) if mark and cell else cell for cell, mark in zip(cells, on_front, strict=True)]


def _tex(text: str) -> str:
    """The TeX that shows a text literally; after a line break, [ and * at the start would be its arguments."""
    escaped = text.translate(TEX_ESCAPES)
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped


def _tex_numbers(numbers: Sequence[str], suffixes: Sequence[str]) -> list[str]:
    """Numbers for a right-aligned column, with their decimal points and their intervals aligned."""
    rows = zip(_tex_padded(numbers), _tex_padded(suffixes), numbers, strict=True)
    return [f"{padded}{suffix}".lstrip() if number.strip() else "" for padded, suffix, number in rows]


def _tex_padded(texts: Sequence[str]) -> list[str]:
    """Texts of the same width: instead of trailing spaces, the width of what the longest text has there."""
    longest = max(texts, key=lambda text: len(text.rstrip()))
    padded = []
    for text in map(str.rstrip, texts):
        shown, rest = (
            part.translate(TEX_ESCAPES).replace("-", "$-$") for part in (text, longest.rstrip()[len(text) :])
        )
        padded.append(shown + (rf"\phantom{{{rest}}}" if rest else ""))
    return padded


def _markdown_numbers(numbers: Sequence[str], suffixes: Sequence[str]) -> list[str]:
    return [" ".join(f"{number}{suffix}".split()) for number, suffix in zip(numbers, suffixes, strict=True)]


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_NAME else f"{text[: MAX_NAME - 1]}…"
