"""The page of claims: every published number next to what tokbench counts or measures, with a verdict on each."""

from __future__ import annotations

import html
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import pandas as pd

from tokbench.names import OFF_THE_SHELF, PLAIN
from tokbench.published.claims import load_claims
from tokbench.published.verdicts import (
    CONTAINED,
    EXPLAINED,
    GMACS,
    NOT_TESTABLE,
    OTHER_IMAGES,
    TOP1,
    UNEXPLAINED,
    VERDICTS,
    compare_claims,
    count_verdicts,
)
from tokbench.report.markdown import markdown_table
from website.source import Source

PAGE = "claims.md"
DISAGREEMENT = 0.5  # points between two sources; rounding and hardware explain less
QUANTITIES = {GMACS: "GMACs", TOP1: "top-1"}
REASONS = {
    "method": "tokbench does not have the method",
    "weights": "timm has no such weights",
    "baseline": "the plain model has another top-1 than the public weights",
    "regime": "model and method were trained together",
    "schedule": "the source gives no numbers of tokens",
}

INTRODUCTION = """\
# Published next to measured

tokbench collects what papers and repositories say of a method in a model: its compute, its top-1 on ImageNet's 50,000
validation images, or both. Here each of these numbers stands next to what tokbench counts or measures in the same
setting. Compute needs neither weights nor images, so it is counted wherever the source gives the numbers of tokens.
ImageNet is not part of this project: a top-1 can be confirmed only by a run on it.
"""

RULES = """
**Compute** is reproduced where the count is within half of the last digit that the source prints (2 % for a number that
was read off a figure). It is explained where one other way of counting fits every number of that source that can be
counted: with LayerNorm, as fvcore counts it, or without the method's own operations. One way has to fit the whole
source.

**Top-1** is reproduced within 0.1 points (0.2 off a figure) on ImageNet's validation images, in the same model, method,
parameters, regime and numbers of tokens. If one of these differs, the difference is put down to it. If only the plain
models differ, by as much as the results do, the baseline explains it. On other images a top-1 is not comparable: the
loss against the plain model stands next to the published loss, with its 95 % interval. On easy images, methods lose
less.

```
tokbench list claims --method tome --model deit_small_patch16_224
tokbench list claims --measured results/photographs
python benchmarks/claimed_macs.py
```

The first command lists the numbers of a method, the second sets all of them next to a run, and the third counts the
compute of every setting again. With `--json`, the second also gives the command that would measure each number that
only needs ImageNet.

## What differs, and why
"""


def pages(source: Source) -> dict[str, str]:
    """The page of claims, with the runs of the site beside the published numbers."""
    claims = load_claims()
    return {PAGE: "\n".join(_page(compare_claims(source.runs, claims), claims)) + "\n"}


def _page(verdicts: pd.DataFrame, claims: pd.DataFrame) -> Iterator[str]:
    yield INTRODUCTION
    yield from _counts(verdicts)
    yield RULES
    for verdict in (EXPLAINED, UNEXPLAINED):
        yield from _different(verdict, verdicts[verdicts["verdict"] == verdict])
    yield from _losses(verdicts[verdicts["verdict"] == OTHER_IMAGES])
    yield from _untestable(verdicts[verdicts["verdict"] == NOT_TESTABLE])
    yield from _disagreeing(claims)
    for method in sorted({*verdicts["method"]}, key=lambda name: (name == "", name != PLAIN, name)):
        yield from _method(method, verdicts[verdicts["method"] == method])


def _counts(verdicts: pd.DataFrame) -> list[str]:
    counts = count_verdicts(verdicts)
    lines = [
        [str(verdict), *(str(own[quantity]) for quantity in QUANTITIES), VERDICTS[str(verdict)]]
        for verdict, own in counts.iterrows()
    ]
    total = ["all", *(str(counts[quantity].sum()) for quantity in QUANTITIES), ""]
    return markdown_table(["verdict", *QUANTITIES.values(), "meaning"], [*lines, total], right_aligned=[1, 2])


def _different(verdict: str, rows: pd.DataFrame) -> Iterator[str]:
    """The numbers that another one was found for."""
    yield from (f"### {verdict.capitalize()}: {len(rows)}", "")
    if rows.empty:
        yield from ("None.", "")
        return
    cells = [
        [
            _name(line["method"]),
            _text(line["published_model"]),
            _text(_setting(line)),
            f"{line['printed']} {QUANTITIES[line['quantity']]}",
            _measured(line),
            _text(line["why"]),
            _link(line),
        ]
        for line in rows.to_dict("records")
    ]
    headings = ["method", "model", "setting", "published", "counted or measured", "why", "source"]
    yield from (*markdown_table(headings, cells, right_aligned=[3, 4]), "")


def _losses(rows: pd.DataFrame) -> Iterator[str]:
    """The losses on images that are not ImageNet's."""
    contained = int(rows["reason"].eq(CONTAINED).sum())
    yield from (f"### Losses on other images: {len(rows)}", "")
    if rows.empty:
        yield from ("No run here has such a row.", "")
        return
    yield from (f"In {contained} of {len(rows)} the interval contains the published loss.", "")
    cells = [
        [_name(line["method"]), _text(line["published_model"]), line["printed"], _text(line["why"]), _link(line)]
        for line in rows.to_dict("records")
    ]
    yield from (*markdown_table(["method", "model", "top-1", "losses", "source"], cells, right_aligned=[2]), "")


def _untestable(rows: pd.DataFrame) -> Iterator[str]:
    """What keeps numbers from being tested, by the first reason of each."""
    yield from (f"### Not testable: {len(rows)}", "", "Counted by the first reason of each:", "")
    counts = pd.crosstab(rows["reason"], rows["quantity"]).reindex(columns=list(QUANTITIES), fill_value=0)
    cells = [
        [meaning, *(str(counts.loc[reason, quantity]) for quantity in QUANTITIES)]
        for reason, meaning in REASONS.items()
        if reason in counts.index
    ]
    yield from (*markdown_table(["reason", *QUANTITIES.values()], cells, right_aligned=[1, 2]), "")


def _disagreeing(claims: pd.DataFrame) -> Iterator[str]:
    """Sources that differ about the same method in the same model, off the shelf, at the same compute."""
    known = claims[claims["method"].ne("") & claims["regime"].eq(OFF_THE_SHELF) & claims["read_from"].ne("figure")]
    about = known.assign(compute=known["gmacs"].map("{:.2g}".format)).dropna(subset=["gmacs"])
    groups = about.groupby(["method", "published_model", "compute"], sort=False)
    cells = []
    for (method, model, compute), own in groups:
        spread = own["top1"].max() - own["top1"].min()
        if spread > DISAGREEMENT:
            said = ", ".join(f"{line['top1']:g} ({_link(line)})" for line in own.to_dict("records"))
            cells.append([_name(str(method)), _text(str(model)), str(compute), f"{spread:.2f}", said])
    yield from (f"### Sources that disagree with one another: {len(cells)}", "")
    yield f"Off the shelf, the same compute to two digits, and more than {DISAGREEMENT:g} points apart in top-1:"
    yield ""
    headings = ["method", "model", "GMACs", "points apart", "top-1"]
    yield from (*markdown_table(headings, cells, right_aligned=[2, 3]), "")


def _method(method: str, verdicts: pd.DataFrame) -> Iterator[str]:
    """One method's published settings, each with both of its numbers."""
    yield from (f"## {_name(method)}", "")
    cells = [_line(own) for _, own in verdicts.groupby("claim", sort=False)]
    headings = ["model", "setting", "GMACs", "counted", "top-1", "verdict", "why", "source"]
    yield from (*markdown_table(headings, cells, right_aligned=[2, 3, 4]), "")


def _line(numbers: pd.DataFrame) -> list[str]:
    by_quantity = {line["quantity"]: line for line in numbers.to_dict("records")}
    line = next(iter(by_quantity.values()))
    compute = by_quantity.get(GMACS)
    return [
        _text(line["published_model"]),
        _text(_setting(line)),
        *((compute["printed"], _measured(compute)) if compute else ("", "")),
        by_quantity[TOP1]["printed"] if TOP1 in by_quantity else "",
        _verdicts({quantity: one["verdict"] for quantity, one in by_quantity.items()}),
        "<br>".join(dict.fromkeys(_text(one["why"]) for one in by_quantity.values() if one["why"])),
        _link(line),
    ]


def _verdicts(found: Mapping[str, str]) -> str:
    """The verdicts on a setting's numbers; one where they agree."""
    if len({*found.values()}) == 1:
        return next(iter(found.values()))
    return "<br>".join(f"{QUANTITIES[quantity]}: {verdict}" for quantity, verdict in found.items())


def _name(method: str) -> str:
    return _text({PLAIN: "Plain models", "": "Methods that tokbench does not have"}.get(method, method))


def _setting(line: Mapping[Hashable, Any]) -> str:
    """The schedule as tokbench writes it, or as the source describes it; the parameters where there are any."""
    keep = "" if pd.isna(line["keep"]) or line["method"] == PLAIN else f"keep {line['keep']:g}"
    name = "" if line["method"] else line["published_as"]
    return ", ".join(filter(None, (name, line["params"], line["schedule"] or line["published_keep"], keep)))


def _measured(line: Mapping[Hashable, Any]) -> str:
    if pd.isna(line["measured"]):
        return ""
    return format(line["measured"], ".5g" if line["quantity"] == GMACS else ".2f")


def _link(line: Mapping[Hashable, Any]) -> str:
    """A link to where the number was published, without the copy that was read."""
    address = line["source"].partition(";via=")[0]
    return f'<a href="{html.escape(address)}">{_text(line["paper"])}</a>'


def _text(text: str) -> str:
    """A text as it is, in a cell of a Markdown table that may hold HTML."""
    escaped = html.escape(text, quote=False)
    return "".join(f"&#{ord(character)};" if character in "|*_`[]\\" else character for character in escaped)
