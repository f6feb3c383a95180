"""A comparison as a table for a paper, in LaTeX or Markdown, with the rows, digits and signs of the terminal's table.

A ★ marks the Pareto front, as in the terminal; the best top-1 at equal compute is bold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pandas as pd

from tokbench.names import TIMES
from tokbench.report.digits import RowValues
from tokbench.report.lines import TextColumn, block_title, distinct_values, legend, model_blocks, text_columns
from tokbench.report.markdown import escape, markdown_table
from tokbench.report.marks import BOLD
from tokbench.results.columns import BY_INTERVAL

# Columns of the terminal's table that are left out; `setting` columns are not needed to identify a row.
OMITTED = ("setting", *(name for name, column in BY_INTERVAL.items() if column.dropped > 4))
NOT_NUMERIC = ("pareto", "method", "verdict")

# A table of at most this many characters and gaps between columns fits into one of two columns of a page.
ONE_COLUMN = 46
GAP = 2

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


def latex(rows: pd.DataFrame, caption: str = "", label: str = "") -> str:
    """LaTeX: a table for each model, with caption and label; it needs booktabs and amssymb.

    A table that is too wide for one column of two is a `table*`.

    Args:
        rows: What `tokbench.report.paper.rows.select_rows` gives.
        caption: What the tables show, in LaTeX, before the explanation of the signs; empty for a sentence about each.
        label: What to refer to them by; empty for `tab:MODEL`. With several models, `-MODEL` is added.
    """
    blocks = list(_blocks(rows))
    tables = []
    for model, lines in blocks:
        name = re.sub("[^a-z0-9]+", "-", model.lower()).strip("-")
        own = f"{label}-{name}" if label and len(blocks) > 1 else label or f"tab:{name}"
        tables.append(_latex_table(lines, caption or _tex(_sentence(model, lines)), own))
    return "\n".join([PREAMBLE, *tables])


def markdown(rows: pd.DataFrame) -> str:
    """GitHub's Markdown: for each model a title, a table and its legend.

    Args:
        rows: What `tokbench.report.paper.rows.select_rows` gives.
    """
    return "\n".join(_markdown_block(model, lines) for model, lines in _blocks(rows))


def _blocks(rows: pd.DataFrame) -> Iterator[tuple[str, list[RowValues]]]:
    """The models' names and the values of their rows, averaged over seeds."""
    return ((_shorten(model), lines) for model, _, lines in model_blocks(rows))


def _latex_table(lines: Sequence[RowValues], caption: str, label: str) -> str:
    columns = _shown_columns(lines)
    parts = [_tex_column(column, lines) for column in columns]
    head = [
        rf"\multicolumn{{2}}{{c}}{{{_tex(_heading(column))}}}" if column.suffixes else _tex(_heading(column))
        for column in columns
    ]
    rows = [
        " & ".join(cells).rstrip() + r" \\" for cells in zip(*(cells for part in parts for cells in part), strict=True)
    ]
    environment = "table" if _width(columns) <= ONE_COLUMN else "table*"
    return "\n".join(
        [
            rf"\begin{{{environment}}}",
            r"\centering",
            rf"\caption{{{caption.rstrip('.')}. {_tex('. '.join(_notes(lines)))}.}}",
            rf"\label{{{label}}}",
            rf"\begin{{tabular}}{{{''.join(map(_alignment, columns))}}}",
            r"\toprule",
            " & ".join(head) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\end{{{environment}}}",
            "",
        ]
    )


def _tex_column(column: TextColumn, lines: Sequence[RowValues]) -> list[list[str]]:
    """A column's cells: one column of LaTeX, or two, so that numbers and intervals are each aligned."""
    if not _is_numeric(column):
        return [[_tex(_shorten(cell.plain)) for cell in column.cells]]
    numbers = [_tex_number(cell.plain) for cell in column.cells]
    marked = [
        rf"\textbf{{{n}}}" if n and is_bold else n for n, is_bold in zip(numbers, _bold(column, lines), strict=True)
    ]
    return [marked, [_tex_number(suffix) for suffix in column.suffixes]] if column.suffixes else [marked]


def _alignment(column: TextColumn) -> str:
    if not _is_numeric(column):
        return "l"
    return "r@{ }l" if column.suffixes else "r"


def _width(columns: Sequence[TextColumn]) -> int:
    """The characters of a table's widest cells."""
    widths = []
    for column in columns:
        suffixes = column.suffixes or [""] * len(column.cells)
        cells = [len(cell.plain + suffix) for cell, suffix in zip(column.cells, suffixes, strict=True)]
        widths.append(max(*cells, len(_heading(column))))
    return sum(widths) + GAP * (len(widths) - 1)


def _sentence(model: str, lines: Sequence[RowValues]) -> str:
    """What a table shows, and how it was measured, for a reader of the paper."""

    def shared(name: str) -> str:
        values = distinct_values(lines, name)
        return values[0] if len(values) == 1 else ""

    timed = any(row["speedup"] > 0 or row["latency_ms"] > 0 for row in lines)
    images = [f"{float(count):,.0f}" for count in distinct_values(lines, "images")[:1]]
    shown = [
        "compute" if any(row["gmacs"] > 0 for row in lines) else "",
        "speed" if timed else "",
        *(f"top-1 accuracy on {count} images" for count in images),
    ]
    what = " and ".join(filter(None, (", ".join(filter(None, shown[:-1])), shown[-1])))
    how = [
        " with the schedule ".join(filter(None, (shared("regime"), shared("schedule")))),
        f"on {shared('device')} in {shared('dtype')}" if shared("device") and shared("dtype") else "",
        f"in batches of {shared('batch_size')} images" if timed and shared("batch_size") else "",
    ]
    run = ", ".join(filter(None, how))
    return f"Token reduction in {model}: {what}" + (f". The methods run {run}" if run else "")


def _notes(lines: Sequence[RowValues]) -> list[str]:
    """The explanation of the signs and of bold numbers, in sentences."""
    bold = [f"bold: {BOLD}"] if any(row["best_at_compute"] for row in lines) else []
    return [note[:1].upper() + note[1:] for note in (*legend(lines).plain.splitlines(), *bold)]


def _markdown_block(model: str, lines: Sequence[RowValues]) -> str:
    columns = _shown_columns(lines)
    cells = [_markdown_cells(column, lines) for column in columns]
    headings = [escape(_heading(column)) for column in columns]
    numeric = [index for index, column in enumerate(columns) if _is_numeric(column)]
    table = markdown_table(headings, zip(*cells, strict=True), numeric)
    notes = [f"{escape(line)}  " for line in _notes(lines)]
    return "\n".join([f"**{escape(block_title(model, lines).plain)}**", "", *table, "", *notes, ""])


def _markdown_cells(column: TextColumn, lines: Sequence[RowValues]) -> list[str]:
    if not _is_numeric(column):
        return [escape(_shorten(cell.plain)) for cell in column.cells]
    numbers = [cell.plain.strip() for cell in column.cells]
    suffixes = column.suffixes or [""] * len(lines)
    return [
        " ".join(f"{f'**{number}**' if is_bold and number else number}{suffix}".split())
        for number, suffix, is_bold in zip(numbers, suffixes, _bold(column, lines), strict=True)
    ]


def _shown_columns(lines: Sequence[RowValues]) -> list[TextColumn]:
    return [column for column in text_columns(lines) if column.key not in OMITTED]


def _heading(column: TextColumn) -> str:
    return f"{column.heading} ({column.unit})" if column.unit else column.heading


def _is_numeric(column: TextColumn) -> bool:
    return column.justify == "right" and column.key not in NOT_NUMERIC


def _bold(column: TextColumn, lines: Sequence[RowValues]) -> list[bool]:
    """Which of a column's cells are bold."""
    return [column.key == "top1" and bool(row["best_at_compute"]) for row in lines]


def _tex(text: str) -> str:
    """The TeX that shows a text literally; after a line break, [ and * at the start would be its arguments."""
    escaped = text.translate(TEX_ESCAPES)
    return f"{{}}{escaped}" if escaped.startswith(("[", "*")) else escaped


def _tex_number(text: str) -> str:
    """A number, or what follows one; it never begins a line, where [ would be an argument of the line break."""
    return text.strip().translate(TEX_ESCAPES).replace("-", "$-$")


def _shorten(text: str) -> str:
    return text if len(text) <= MAX_NAME else f"{text[: MAX_NAME - 1]}…"
