"""Tables for papers in LaTeX and Markdown; the output is parsed."""

import itertools
import re

from markdown_it import MarkdownIt
from paper_rows import (
    HOSTILE,
    LONG,
    comparison,
    of_all_kinds,
    row,
    table,
    tex_table,
)

from tokbench.report.paper import table as paper_table
from tokbench.report.paper.rows import select_rows


def untex(text):
    """The text that TeX would print for a cell."""
    signs = {"textbackslash": "\\", "textasciitilde": "~", "textasciicircum": "^", "textless": "<"}
    signs |= {"textgreater": ">", "textbar": "|", "ldots": "…"}
    text = re.sub(r"\\phantom\{[^}]*\}|\$", lambda found: found[0] if found[0] == "$" else "", text)
    text = re.sub(r"\\(\w+)\{\}", lambda found: f"\0{ord(signs[found[1]])}\0", text)
    text = re.sub(r"\\([&%$#_{}])", lambda found: f"\0{ord(found[1])}\0", text)
    text = re.sub(r"\\textbf\{(.*)\}$", r"\1", text)
    assert not re.search(r"[&%#_~^\\<>|]", text.replace(r"\bigstar", "").replace(r"\blacktriangle", "")), text
    return re.sub("\0(\\d+)\0", lambda found: chr(int(found[1])), text.replace("{}", ""))


def test_latex_is_a_table_whose_cells_are_text():
    text = paper_table.latex(select_rows(of_all_kinds()))
    for line in (r"\begin{table*}", r"\toprule", r"\midrule", r"\bottomrule", r"\end{table*}"):
        assert text.count(f"{line}\n") == 1
    assert r"\label{tab:deit-tiny-patch16-224}" in text
    bare = re.sub(r"\\[{}\\]", "", text)
    assert bare.count("{") == bare.count("}")
    head, *lines = tex_table(text)
    assert len({len(line) for line in (head, *lines)}) == 1
    (columns,) = re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert len(columns) == len(head)
    names = [untex(line[head.index("method")]) for line in lines]
    assert names == ["none", *HOSTILE, f"{LONG[:79]}…", "tome", "", "random_selection", ""]


def test_no_row_starts_with_an_argument_of_the_line_break():
    rows = table(row(pareto=False), row("[1ex]", 0.7), row("*", 0.7))
    _, *lines = tex_table(paper_table.latex(select_rows(rows)))
    assert [line[0] for line in lines] == ["none", "{}[1ex]", "{}*"]


def test_bold_is_the_pareto_front():
    head, *lines = tex_table(paper_table.latex(select_rows(comparison())))
    for line in lines:
        bold = {name for name, cell in zip(head, line, strict=True) if cell.startswith(r"\textbf{")}
        assert bold == ({"GMACs", r"top-1 (\%)"} if line[0] == r"$\bigstar$" else set())
    assert [line[0] != "" for line in lines] == [True, False, True, False, False]


def test_numbers_have_the_digits_of_the_terminal():
    head, *lines = tex_table(paper_table.latex(select_rows(comparison())))
    plain, tome = (dict(zip(head, lines[place], strict=True)) for place in (0, 1))
    assert untex(plain["GMACs"]) == "1.25"
    assert tome["GMACs"] == "0.99"
    assert re.sub(r"\\phantom\{.*?\}", "", tome[r"speedup ($\times$)"]) == "1.26 [1.21, 1.31]"
    assert tome[r"$\Delta$ top-1 (points)"].startswith("$-$3.0 [$-$3.8, $-$2.3]")


def test_markdown_is_a_table_whose_cells_are_text():
    parser = MarkdownIt("commonmark").enable("table")
    tokens = parser.parse(paper_table.markdown(select_rows(of_all_kinds())))
    assert [token.type for token in tokens].count("table_open") == 1
    cells = [after.children for token, after in itertools.pairwise(tokens) if token.type in ("th_open", "td_open")]
    width = [token.type for token in tokens].count("th_open")
    lines = [cells[start : start + width] for start in range(0, len(cells), width)]
    assert {child.type for cell in cells for child in cell} <= {"text", "strong_open", "strong_close"}
    found = [["".join(child.content for child in cell) for cell in line] for line in lines]
    place = found[0].index("method")
    expected = ["none", *HOSTILE, f"{LONG[:79]}…", "tome", "", "random_selection", ""]
    assert [line[place] for line in found[1:]] == expected
    bold = [any(child.type == "strong_open" for child in line[found[0].index("top-1 (%)")]) for line in lines[1:]]
    assert [name for name, strong in zip(expected, bold, strict=True) if strong] == ["none", "a|b", ""]
