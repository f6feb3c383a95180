"""`docs/methods.md`: what there is to say of each method, told by its class; `make docs` writes it."""

from __future__ import annotations

import inspect
import itertools
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokbench.downsampler import Downsampler, Paper
from tokbench.notation import parameters_text
from tokbench.registry import METHODS, bind_parameters, create, discover
from tokbench.report.markdown import markdown_table
from tokbench.schedule import Stages

PAGE = Path("docs/methods.md")
HEAD = """# Methods

Written by `make docs` from the classes in [methods/](../methods); change those, not this page. Each file begins with
the method's mathematics, with what its paper leaves open and how that is decided here.
"""
FACTS = ("site", "reads", "log(size) in attention", "schedule", "regime", "random", "count")


def methods_page() -> str:
    """The page: an index of tokbench's own methods, then a section each."""
    own = {name: cls for name, cls in discover()[0].items() if cls.__module__.startswith(f"{METHODS}.")}
    index = [
        ["method", "what it does", "paper", "off the shelf"],
        *(
            [f"[{name}](#{name})", _first_line(cls), _venue(cls.paper), "no" if cls.trained else "yes"]
            for name, cls in own.items()
        ),
    ]
    sections = [_section(name, cls) for name, cls in own.items()]
    return "\n".join([HEAD, *_rows(index), "", *itertools.chain.from_iterable(sections)])


def _section(name: str, cls: type[Downsampler]) -> list[str]:
    title, formula = _mathematics(cls)
    lines = [f"## {name}", "", title, ""]
    if formula:
        lines += ["```", *formula, "```", ""]
    if cls.paper is not None:
        lines += [_citation(cls.paper), ""]
    lines += [*_rows([["", ""], *zip(FACTS, _facts(create(name)), strict=True)]), ""]
    parameters = list(_parameters(name, cls))
    if parameters:
        lines += [*_rows([["parameter", "default", ""], *parameters]), ""]
    return lines


def _facts(method: Downsampler) -> list[str]:
    """What `FACTS` names, of a method with its default parameters."""
    return [
        f"`{method.site}`" + ("" if len(method.sites) > 1 else ", nowhere else"),
        ", ".join(f"`{field}`" for field in sorted(method.needs)) or "nothing but the tokens",
        "yes" if method.proportional else "no",
        f"`{method.schedule}`, published" if method.schedule else f"`{Stages(1)}`, the default",
        "fine-tuned: it means nothing before" if method.trained else "off-the-shelf",
        "by `context.noise`: measured over several seeds" if method.stochastic else "no",
        "differs from image to image" if method.adaptive else "the same for every image",
    ]


def _parameters(name: str, cls: type[Downsampler]) -> Iterator[list[str]]:
    """Name, default and the docstring's words for each."""
    words = _arguments(inspect.getdoc(cls.__init__) or "")
    for parameter, default in bind_parameters(name, {}).items():
        written = parameters_text({parameter: default}).partition("=")[2]
        yield [f"`{parameter}`", f"`{written}`", words.get(parameter, "")]


def _arguments(docstring: str) -> dict[str, str]:
    """The `Args:` of a Google-style docstring, each in one line."""
    block = re.search(r"^Args:\n((?: .*\n?|\n)+)", docstring, re.MULTILINE)
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", block[1], re.MULTILINE) if block else []
    return {name: " ".join(text.split()) for name, text in entries}


def _mathematics(cls: type[Downsampler]) -> tuple[str, Sequence[str]]:
    """The file's first line, and the first formula that is set apart from its text."""
    text = inspect.cleandoc(sys.modules[cls.__module__].__doc__ or "").split("\n")
    indented = itertools.takewhile(
        lambda line: line.startswith("    "), itertools.dropwhile(lambda line: not line.startswith("    "), text)
    )
    return text[0], [line.removeprefix("    ") for line in indented]


def _first_line(cls: type[Downsampler]) -> str:
    return (cls.__doc__ or "").split("\n")[0]


def _citation(paper: Paper) -> str:
    link = f", [arXiv {paper.arxiv}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else ""
    return f"*{paper.title}*, {_venue(paper)}{link}."


def _venue(paper: Paper | None) -> str:
    return f"{paper.venue} {paper.year}" if paper else ""


def _rows(cells: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, its head first."""
    head, *body = [[cell.replace("|", "\\|") for cell in row] for row in cells]
    return markdown_table(head, body)


if __name__ == "__main__":
    PAGE.write_text(methods_page(), encoding="utf-8")
