"""A page for each method: what it does, its settings, its tokens, where it wins and loses, its cost, and its file."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from methods_page import citation, facts, first_line, index_table, mathematics, own_methods, parameters

from tokbench.downsampler import Downsampler
from tokbench.names import EMBEDDED
from tokbench.published.claims import published
from tokbench.published.verdicts import (
    EXPLAINED,
    GMACS,
    OTHER_IMAGES,
    REPRODUCED,
    TOP1,
    UNEXPLAINED,
    VERDICTS,
    compare_claims,
)
from tokbench.report.markdown import markdown_table
from tokbench.results import Results
from tokbench.run.method_info import infos
from website.cells import cell, code
from website.costs import costs
from website.documents import CODE
from website.runs import data, leaderboard_link
from website.source import Source
from website.standing import OTHERS, PIXELS, RANDOM, TRAINING, Difference, Standing, sentence, standings

MAPS = "maps"
AGAINST = {
    "delta": ("plain model", "Against the plain model"),
    PIXELS: ("fewer pixels", "Against the plain model with fewer pixels, at equal compute"),
    RANDOM: ("random selection", f"Against `{RANDOM}`"),
    OTHERS: ("best other", "Against the best other method"),
    TRAINING: ("fine-tuning", "What fine-tuning gains beyond what the plain model gains from it"),
}
"""What settings are compared with, in the order of the table: its heading, and how its sentence begins."""
LEGEND = """Differences are points of top-1 on the same images, with 95 % intervals; where an interval contains 0, it is
not decided which is better. `random_selection` and the best other method are at the same schedule and keep. The best
other method is the one with the highest top-1 among those that cost no more; a little of its lead is chance. † not at
equal compute: the MACs differ by more than 1 %."""
COMPARED = (REPRODUCED, EXPLAINED, UNEXPLAINED, OTHER_IMAGES)
SHOWN_CLAIMS = 12


@dataclass(frozen=True, eq=False)
class Evidence:
    """What all method pages are made from.

    Attributes:
        source: The runs.
        standings: For each run that has accuracies, the settings of each method.
        verdicts: The published numbers of all methods, each with its verdict.
        tokens: The tokens of the maps; empty without maps.
        photographs: The photographs of the maps; empty without maps.
    """

    source: Source
    standings: tuple[tuple[Results, dict[str, list[Standing]]], ...]
    verdicts: pd.DataFrame
    tokens: pd.DataFrame
    photographs: pd.DataFrame


def pages(source: Source) -> dict[str, str]:
    """The index of the methods, and a page for each."""
    own = own_methods()
    evidence = _evidence(source, own)
    found = {f"methods/{name}.md": "\n".join(_page(name, cls, evidence)) for name, cls in own.items()}
    return {"methods/index.md": "\n".join(_index(list(own), evidence)), **found}


def _evidence(source: Source, own: dict[str, type[Downsampler]]) -> Evidence:
    def photographs_first(run: Results) -> bool:
        return run.plan.images is None or run.plan.images.name == EMBEDDED

    runs = sorted(source.runs, key=photographs_first)
    maps = source.results / MAPS
    return Evidence(
        source,
        tuple((run, found) for run in runs if (found := standings(run))),
        compare_claims(source.runs, published(infos(own.values()))),
        _read(maps / "tokens.csv"),
        _read(maps / "photographs.csv"),
    )


def _read(file: Path) -> pd.DataFrame:
    return pd.read_csv(file) if file.is_file() else pd.DataFrame()


def _index(names: list[str], evidence: Evidence) -> Iterator[str]:
    yield from ("---", "hide: [toc]", "---", "", "# Methods", "")
    yield "Each page has the method's mathematics, settings and file, the tokens that it makes of three photographs,"
    yield "where it wins and where it loses, its cost, and its published numbers."
    yield from ("", *index_table({name: f"[{name}]({name}.md)" for name in names}), "")
    if not evidence.photographs.empty:
        yield from ("## Photographs", "", "The token maps are drawn over photographs under")
        yield "[CC BY 2.0](https://creativecommons.org/licenses/by/2.0/), cropped and scaled:"
        yield from ("", *(f"- {row.photograph} by [{cell(row.author)}]({row.source})" for row in _rows(evidence)), "")


def _rows(evidence: Evidence) -> Iterator[pd.Series]:
    """The photographs, a row each."""
    return (row for _, row in evidence.photographs.iterrows())


def _page(name: str, cls: type[Downsampler], evidence: Evidence) -> Iterator[str]:
    yield from (f"# {name}", "", first_line(cls), "", *citation(cls))
    yield f"{leaderboard_link('All its rows on the leaderboard', '../', method_name=name)}."
    yield from ("", *_tokens(name, evidence))
    yield from ("## Where it wins and where it loses", "", *_standing(name, cls, evidence))
    yield from ("## Cost", "", *costs(name, evidence.source), "")
    yield from ("## Published and measured", "", *_claims(evidence.verdicts, name), "")
    yield from ("## Mathematics", "", *mathematics(cls))
    settings = "\n".join(["## Settings", "", *facts(name), *parameters(name, cls)])
    yield CODE.sub(lambda found: found[0].replace("\\|", "|"), settings)  # in code, MkDocs shows the backslash
    yield from _file(cls)


def _tokens(name: str, evidence: Evidence) -> Iterator[str]:
    """The token map, with what is to be seen."""
    if evidence.tokens.empty:
        return
    yield from ("## Tokens", "")
    own = evidence.tokens[evidence.tokens["method"].eq(name)]
    if own.empty:
        yield "There is no token map: the method needs trained weights; untrained ones would choose tokens by chance."
        yield ""
        return
    photographs = ", ".join(own["photograph"])
    yield f"![{name} at keep 0.5 on three photographs ({photographs}): above, the tokens after the first reduction;"
    yield f"below, after the last.](../{MAPS}/{name}.webp)"
    counts = [dict.fromkeys(text.split()) for text in own["tokens_per_block"]]
    texts = [" → ".join(one) for one in counts]
    if len(set(texts)) == 1:
        counted = f"{texts[0]} tokens"
    else:
        counted = "tokens: " + ", ".join(
            f"{text} ({photo})" for text, photo in zip(texts, own["photograph"], strict=True)
        )
    wrong = own[own["class"].ne(own["class_of_plain_model"])]
    yield from (
        "",
        f"DeiT-Ti at keep 0.5 in blocks 3, 6 and 9, {counted}. Above after the first reduction, below after the",
    )
    yield "last. Patches in one token have their mean colour and an outline; dropped patches are dark. The model gives"
    if wrong.empty:
        yield "all three photographs the plain model's class."
    else:
        others = (f"the {row.photograph} to “{row['class']}”" for _, row in wrong.iterrows())
        yield f"another class than the plain model {', '.join(others)}."
    authors = ", ".join(f"{row.photograph} by {cell(row.author)}" for row in _rows(evidence))
    yield f"[Photographs](index.md#photographs), CC BY 2.0: {authors}."
    yield ""


def _standing(name: str, cls: type[Downsampler], evidence: Evidence) -> Iterator[str]:
    """A part for each run that measured the method's accuracy."""
    measured = [(run, found[name]) for run, found in evidence.standings if name in found]
    if cls.trained:
        yield "The method needs trained weights, so that it has no rows off the shelf."
        yield "The rows here are of models fine-tuned by `tokbench finetune`." if measured else ""
        yield ""
    if not measured:
        yield from ("Its accuracy has not been measured in any of the runs.", "")
        return
    yield from (LEGEND, "")
    for run, rows in measured:
        source = evidence.source
        models = ", ".join(map(code, dict.fromkeys(run.table["model"])))
        yield from (f"### {source.name(run)}", "")
        yield f"[Run](../runs/{source.anchor(run)}.md): {models}; {cell(data(run))}."
        sentences = [sentence(rows, column, opening) for column, (_, opening) in AGAINST.items() if column != "delta"]
        yield from ("", *(f"- {text}" for text in sentences if text), "", *_table(rows), "")


def _table(rows: list[Standing]) -> list[str]:
    columns = [column for column in AGAINST if any(column in row.against for row in rows)]
    headings = ["setting", "MACs saved, %", "top-1, %", *(AGAINST[column][0] for column in columns)]
    cells = [
        [
            cell(row.setting),
            f"{row.saved:.1f}",
            f"{row.top1:.1f}",
            *(_difference(row.against.get(column), named=column == OTHERS) for column in columns),
        ]
        for row in rows
    ]
    return markdown_table(headings, cells, range(1, 3))


def _difference(one: Difference | None, named: bool) -> str:
    """A cell; decided differences are bold."""
    if one is None:
        return ""
    number, limits = str(one).replace(", ", ",&nbsp;").split(" ", 1)
    text = f"**{number}** {limits}" if one.decided else f"{number} {limits}"
    return f"{text}{' `' + one.other + '`' if named else ''}{' †' if one.unequal else ''}"


def _claims(verdicts: pd.DataFrame, name: str) -> Iterator[str]:
    """How many published numbers of a method have which verdict, and those beside which there is a number of ours."""
    own = verdicts[verdicts["method"].eq(name)]
    if own.empty:
        yield "Our sources have no numbers for it."
        return
    counts = own["verdict"].value_counts()
    listed = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if verdict in counts)
    yield f"{len(own)} published numbers: {listed}. All of them are on the page of [claims](../claims.md#{name})."
    compared = own[own["verdict"].isin(COMPARED)].sort_values(
        "verdict", key=lambda column: column.map(COMPARED.index), kind="stable"
    )
    if compared.empty:
        return
    yield from ("", f"The first {SHOWN_CLAIMS} with a number of ours:" if len(compared) > SHOWN_CLAIMS else "", "")
    cells = [
        [
            f"[{cell(row['paper'])}]({row['source'].partition(';')[0]})",
            cell(row["published_model"]),
            cell(row["schedule"] or row["published_keep"])
            + ("" if pd.isna(row["keep"]) else f", keep {row['keep']:g}"),
            {GMACS: "GMACs", TOP1: "top-1, %"}[row["quantity"]],
            f"{row['published']:g}",
            f"{row['measured']:.4g}",
            cell(": ".join(filter(None, (row["verdict"], row["why"])))),
        ]
        for row in compared.head(SHOWN_CLAIMS).to_dict("records")
    ]
    headings = ["source", "model", "schedule", "quantity", "published", "here", "verdict"]
    yield from markdown_table(headings, cells, (4, 5))


def _file(cls: type[Downsampler]) -> Iterator[str]:
    """The method's file, folded."""
    module = sys.modules[cls.__module__]
    yield f'??? note "The file methods/{Path(str(module.__file__)).name}"'
    yield from ("", "    ```python")
    yield from (f"    {line}".rstrip() for line in inspect.getsource(module).splitlines())
    yield from ("    ```", "")
