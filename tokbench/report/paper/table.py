"""A comparison as a table for a paper, in LaTeX or Markdown: the terminal's lines, digits and signs.

Bold are top-1 and GMACs of the rows on the Pareto front, where ★ stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from tokbench.report.digits import RowValues
from tokbench.report.lines import TIMES, TextColumn, block_title, legend, model_blocks, text_columns

# Without the settings the rows are still told apart.
OMITTED = ("setting", "method %", "img/s", "peak", "top-5")
BOLD = ("GMACs", "top-1")
TEXTS = ("pareto", "method", "verdict")

# A longer name leaves the page; the results have it whole.
LONGEST = 80

TEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}  # other signs in TeX's own fonts
    | {"★": r"$\bigstar$", "▲": r"$\blacktriangle$", "▼": r"$\blacktriangledown$", "Δ": r"$\Delta$"}
    | {TIMES: r"$\times$", "±": r"$\pm$", "·": r"$\cdot$", "…": r"\ldots{}"}
)
PREAMBLE = r"% \usepackage{booktabs,amssymb}"
MARKDOWN = re.compile(r"([\\`*_\[\]<>&|$~#!@])")


def latex(rows: pd.DataFrame) -> str:
    """LaTeX: a `table*` a model, with caption and label; it needs booktabs and amssymb.

    Args:
        rows: What `paper_rows.chosen` gives.
    """
    return "\n".join([PREAMBLE, *(_latex(model, lines) for model, lines in _blocks(rows))])


def markdown(rows: pd.DataFrame) -> str:
    """Markdown as GitHub reads it: a table a model, below its title and above its legend.

    Args:
        rows: What `paper_rows.chosen` gives.
    """
    return "\n".join(_markdown(model, lines) for model, lines in _blocks(rows))


def _blocks(rows: pd.DataFrame) -> Iterator[tuple[str, list[RowValues]]]:
    """The lines of each model."""
    return ((_short(model), lines) for model, _, lines in model_blocks(rows))


def _latex(model: str, lines: Sequence[RowValues]) -> str:
    shown = _shown(lines)
    cells = [_number_cells(column, lines, _tex, _tex_numbers, r"\textbf{{{}}}".format) for column in shown]
    frame = pd.DataFrame(list(zip(*cells, strict=True)), columns=[_tex(_head(column)) for column in shown])
    caption = ". ".join([block_title(model, lines).plain, *legend(lines).plain.splitlines()])
    return frame.style.hide(axis="index").to_latex(
        column_format="".join("r" if _numeric(column) else "l" for column in shown),
        environment="table*",
        position_float="centering",
        hrules=True,
        caption=f"{_tex(caption)}.",
        label=f"tab:{re.sub('[^a-z0-9]+', '-', model.lower()).strip('-')}",
    )


def _markdown(model: str, lines: Sequence[RowValues]) -> str:
    shown = _shown(lines)
    cells = [_number_cells(column, lines, _marked, _markdown_numbers, "**{}**".format) for column in shown]
    heads = [_marked(_head(column)) for column in shown]
    rules = ["---:" if _numeric(column) else "---" for column in shown]
    table = [f"| {' | '.join(row)} |" for row in (heads, rules, *zip(*cells, strict=True))]
    notes = [f"{_marked(line)}  " for line in legend(lines).plain.splitlines()]
    return "\n".join([f"**{_marked(block_title(model, lines).plain)}**", "", *table, "", *notes, ""])


def _shown(lines: Sequence[RowValues]) -> list[TextColumn]:
    return [column for column in text_columns(lines) if column.key not in OMITTED]


def _head(column: TextColumn) -> str:
    return f"{column.head} ({column.unit})" if column.unit else column.head


def _numeric(column: TextColumn) -> bool:
    return column.justify == "right" and column.key not in TEXTS


def _number_cells(
    column: TextColumn,
    lines: Sequence[RowValues],
    text: Callable[[str], str],
    numbers: Callable[[Sequence[str], Sequence[str]], list[str]],
    bold: Callable[[str], str],
) -> list[str]:
    """A column's cells in another notation.

    Args:
        column: The terminal's.
        lines: What it is made of.
        text: Writes what is no number.
        numbers: Writes numbers and what stands behind them, both padded to the column's widths.
        bold: Writes a number of the Pareto front.
    """
    plain = [cell.plain for cell in column.cells]
    if not _numeric(column):
        return [text(_short(cell)) for cell in plain]
    written = numbers(plain, column.notes or [""] * len(lines))
    best = [line["pareto"] and column.key in BOLD for line in lines]
    return [bold(cell) if mark and cell else cell for cell, mark in zip(written, best, strict=True)]


def _tex(text: str) -> str:
    """A text that means nothing to TeX; at the start of a row [ and * would belong to the line break before it."""
    escaped = text.translate(TEX)
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped


def _tex_numbers(numbers: Sequence[str], notes: Sequence[str]) -> list[str]:
    """Numbers for a right-aligned column, their decimal points and their intervals below each other."""
    both = zip(_tex_padded(numbers), _tex_padded(notes), numbers, strict=True)
    return [f"{number}{note}".lstrip() if told.strip() else "" for number, note, told in both]


def _tex_padded(texts: Sequence[str]) -> list[str]:
    """Texts of one length; instead of the spaces at an end stands the room of what the fullest text has there."""
    fullest = max(texts, key=lambda text: len(text.rstrip()))
    written = []
    for text in map(str.rstrip, texts):
        told, lacking = (part.translate(TEX).replace("-", "$-$") for part in (text, fullest.rstrip()[len(text) :]))
        written.append(told + (rf"\phantom{{{lacking}}}" if lacking else ""))
    return written


def _markdown_numbers(numbers: Sequence[str], notes: Sequence[str]) -> list[str]:
    return [" ".join(f"{number}{note}".split()) for number, note in zip(numbers, notes, strict=True)]


def _marked(text: str) -> str:
    """A text that means nothing to Markdown."""
    return MARKDOWN.sub(r"\\\1", text)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
