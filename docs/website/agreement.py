"""Whether the runs agree where they must: the exact values that are not the same although the same was measured."""

from __future__ import annotations

import html
from collections.abc import Iterator

from tokbench.report.labels import cell_text
from tokbench.report.markdown import markdown_table
from tokbench.results.several import combine
from website.source import Source

COLUMNS = ("run", "other_run", "model", "method", "params", "keep", "column", "value", "other_value", "images")
SHOWN = 100


def agreement(source: Source) -> list[str]:
    """The lines of a section in Markdown; a warning with a table where runs disagree."""
    found = _disagreements(source)
    head = ["## Exact values", ""]
    if not found:
        return [
            *head,
            "Token counts, MACs and the answer to every image are exact: runs of the same weights, data, versions and "
            "code must agree on them. All runs here do.",
            "",
        ]
    more = [] if len(found) <= SHOWN else [f"The first {SHOWN} of {len(found):,}:", ""]
    return [
        *head,
        '!!! warning "Runs disagree"',
        "    Exact values below are not the same although the same was measured. At least one of the runs is wrong.",
        "",
        *more,
        *markdown_table([name.replace("_", " ") for name in COLUMNS], found[:SHOWN]),
        "",
    ]


def notice(source: Source) -> str:
    """A sentence for pages with rows of several runs; empty where all runs agree."""
    count = len(_disagreements(source))
    return f"{count:,} exact values are not the same in runs that must agree" if count else ""


def _disagreements(source: Source) -> list[list[str]]:
    """The cells of each disagreement."""
    return list(_cells(source))


def _cells(source: Source) -> Iterator[list[str]]:
    combined = combine(source.runs)
    names = {name: source.name(run) for name, run in combined.runs.items()}
    for row in combined.disagreements.to_dict("records"):
        texts = {**row, "run": names[row["run"]], "other_run": names[row["other_run"]]}
        yield [html.escape(cell_text(texts[name])).replace("|", "\\|") for name in COLUMNS]
