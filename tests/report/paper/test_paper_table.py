"""Tables for papers in LaTeX and Markdown; the output is parsed."""

import itertools
import re

import pandas as pd
import pytest
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
    (columns,) = re.findall(r"\\begin\{tabular\}\{(.+)\}\n", text)
    assert len(columns.replace("@{ }", "")) == len(head)
    assert "phantom" not in text
    names = [untex(line[head.index("method")]) for line in lines]
    assert names == ["none", *HOSTILE, f"{LONG[:79]}…", "tome", "", "random_selection", ""]


def test_no_row_starts_with_an_argument_of_the_line_break():
    rows = table(row(pareto=False), row("[1ex]", 0.7), row("*", 0.7))
    _, *lines = tex_table(paper_table.latex(select_rows(rows)))
    assert [line[0] for line in lines] == ["none", "{}[1ex]", "{}*"]


def test_bold_is_the_best_at_equal_compute_and_a_star_the_front():
    head, *lines = tex_table(paper_table.latex(select_rows(comparison())))
    bold = [{name for name, cell in zip(head, line, strict=True) if cell.startswith(r"\textbf{")} for line in lines]
    assert bold == [set(), {r"top-1 (\%)"}, {r"top-1 (\%)"}, set(), set()]
    assert [line[0] == r"$\bigstar$" for line in lines] == [True, False, True, False, False]


@pytest.mark.parametrize("write", [paper_table.latex, paper_table.markdown])
def test_signs_and_bold_are_explained_where_they_are_used(write):
    text = write(select_rows(comparison()))
    assert text.count("Pareto: no row with at most 1 ") == 1
    assert text.count("Bold: no row with equal MACs (to within 1 ") == 1
    text = write(select_rows(comparison().assign(pareto=False, best_at_compute=False)))
    assert "Pareto" not in text
    assert "old:" not in text


def caption_and_label(text):
    (caption,), (label,) = (re.findall(rf"\\{name}\{{(.*)\}}\n", text) for name in ("caption", "label"))
    return caption, label


def test_the_caption_says_what_the_table_shows():
    caption, label = caption_and_label(paper_table.latex(select_rows(comparison())))
    assert caption.startswith(
        r"Token reduction in deit\_tiny\_patch16\_224: compute, speed and top-1 accuracy on 500 images. "
        r"The methods run off-the-shelf with the schedule stages(at=3-6-9), on cpu in fp32, in batches of 32 images. "
        r"$\bigstar$ Pareto:"
    )
    assert label == "tab:deit-tiny-patch16-224"
    counted = comparison().assign(**dict.fromkeys(("top1", "images", "latency_ms", "speedup", "delta_top1"), None))
    caption, _ = caption_and_label(paper_table.latex(select_rows(counted)))
    assert caption.startswith(r"Token reduction in deit\_tiny\_patch16\_224: compute. The methods run")


def test_caption_and_label_can_be_given():
    rows = select_rows(comparison())
    caption, label = caption_and_label(paper_table.latex(rows, r"Ours against \cite{evit}.", "tab:main"))
    assert caption.startswith(r"Ours against \cite{evit}. $\bigstar$ Pareto:")
    assert label == "tab:main"
    two = pd.concat([comparison(), comparison().assign(model="vit")])
    text = paper_table.latex(select_rows(two), label="tab:main")
    assert re.findall(r"\\label\{(.*)\}", text) == ["tab:main-deit-tiny-patch16-224", "tab:main-vit"]


def test_a_narrow_table_takes_one_column():
    few = table(row(), row("tome", 0.7)).assign(
        **dict.fromkeys(("latency_ms", "speedup", "delta_top1", "verdict"), None)
    )
    for rows, environment in ((few, "table"), (comparison(), "table*")):
        text = paper_table.latex(select_rows(rows))
        assert text.count(rf"\begin{{{environment}}}") == text.count(rf"\end{{{environment}}}") == 1


def test_numbers_have_the_digits_of_the_terminal():
    head, *lines = tex_table(paper_table.latex(select_rows(comparison())))
    plain, tome = (dict(zip(head, lines[place], strict=True)) for place in (0, 1))
    assert untex(plain["GMACs"]) == "1.25"
    assert tome["GMACs"] == "0.99"
    assert tome[r"speedup ($\times$)"] == "1.26"
    assert tome[r"speedup ($\times$) interval"] == "[1.21, 1.31]"
    assert tome[r"$\Delta$ top-1 (points)"] == "$-$3.0"
    assert tome[r"$\Delta$ top-1 (points) interval"] == "[$-$3.8, $-$2.3]"


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
    assert [name for name, strong in zip(expected, bold, strict=True) if strong] == ["a|b", "tome", ""]
