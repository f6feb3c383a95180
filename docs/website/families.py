"""A page for each family of models: its architectures, the accuracy of its plain models, and what was measured."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from tokbench.embedded.model import build
from tokbench.names import EMBEDDED_MODELS, PLAIN
from tokbench.published.timm_accuracy import load_accuracies
from tokbench.report.markdown import markdown_table
from tokbench.results import Results
from tokbench.vit.architectures import Architecture, architectures, described
from website.cells import cell, code
from website.runs import data, leaderboard_link
from website.source import Source

OWN = "digits"
SETS = {"imagenet-1k": "ImageNet", "imagenet-v2": "V2", "imagenet-a": "A", "imagenet-r": "R"}
SAVED = (30, 50)  # percent of the MACs


@dataclass(frozen=True)
class Family:
    """Models that share an adapter.

    Attributes:
        name: The page's name.
        title: Its heading.
        about: What belongs to it, in Markdown.
        members: Its architectures, those that are not supported included.
    """

    name: str
    title: str
    about: str
    members: tuple[Architecture, ...]


ABOUT = {
    "VisionTransformer": "ViT, DeiT, DeiT-3, CLIP, SigLIP, DINOv2, MAE, FlexiViT, AIMv2 and others.",
    "Eva": "EVA, EVA-02, RoPE-ViT, DINOv3, Perception Encoder and others, most of them with rotary positions. "
    "A merged token has to be rotated as one patch or another: [Models](../docs/models.md#families) has the rules, and "
    "`results/positions` compares them.",
}


def pages(source: Source) -> dict[str, str]:
    """The index of the families, and a page for each."""
    found = families()
    index = {"families/index.md": "\n".join(_index(found))}
    return {**index, **{f"families/{one.name}.md": "\n".join(_page(one, source)) for one in found}}


def families() -> list[Family]:
    """Those that `tokbench list models` lists: tokbench's own models, and timm's by their class."""
    own = tuple(
        described(name, vit := build(name), type(vit).__name__, vit.num_classes) for name in sorted(EMBEDDED_MODELS)
    )
    about = "Small models for handwritten digits, which come with tokbench, for quick comparisons without downloads."
    found = architectures()
    timm = [
        Family(name.lower(), f"timm's {name}", ABOUT.get(name, ""), tuple(one for one in found if one.family == name))
        for name in dict.fromkeys(one.family for one in found)
    ]
    return [*timm, Family(OWN, "tokbench's own models", about, own)]


def _index(found: Sequence[Family]) -> Iterator[str]:
    yield from ("---", "hide: [toc]", "---", "", "# Model families", "")
    rows = [
        [f"[{one.title}]({one.name}.md)", f"{len(_supported(one))} of {len(one.members)}", one.about] for one in found
    ]
    yield from (*markdown_table(["family", "supported", "models"], rows), "")
    yield "[Models](../docs/models.md) says how weights are read, and what happens to positions and pooling."
    yield ""


def _supported(family: Family) -> list[Architecture]:
    return [one for one in family.members if not one.refusal]


def _page(family: Family, source: Source) -> Iterator[str]:
    supported = _supported(family)
    yield from (f"# {family.title}", "", family.about, "")
    yield f"{len(supported)} of {len(family.members)} architectures are supported; `tokbench list models` prints them."
    yield "[Models](../docs/models.md) says how weights are read."
    yield from ("", "## Architectures", "", *_kinds(supported), "", *_listed(supported), "")
    yield from ("## Not supported", "", *_refused(family), "")
    yield from ("## Published accuracy of the plain models", "", *_published(supported), "")
    yield from ("## Measured here", "", *_measured({one.name for one in supported}, source), "")


def _kinds(supported: Sequence[Architecture]) -> list[str]:
    """How many there are with which positions and pooling."""
    counts = pd.DataFrame([(one.positions, one.pooling) for one in supported]).value_counts()
    rows = [[*map(str, kind if isinstance(kind, tuple) else (kind,)), str(count)] for kind, count in counts.items()]
    return markdown_table(["positions", "pooling", "architectures"], rows, [2])


def _listed(supported: Sequence[Architecture]) -> Iterator[str]:
    """All architectures, folded."""
    rows = [
        [code(one.name), one.positions, one.pooling, "" if one.classes is None else str(one.classes)]
        for one in supported
    ]
    yield f'??? note "All {len(supported)}"'
    yield from ("", *(f"    {line}" for line in markdown_table(["name", "positions", "pooling", "classes"], rows, [3])))
    yield from (
        "",
        "    Classes are those of timm's default weights: 0 where these have no head, blank where there are none.",
    )


def _refused(family: Family) -> Iterator[str]:
    reasons = dict.fromkeys(one.refusal for one in family.members if one.refusal)
    if not reasons:
        yield "None is refused."
        return
    rows = [
        [cell(reason), ", ".join(code(one.name) for one in family.members if one.refusal == reason)]
        for reason in reasons
    ]
    yield from markdown_table(["because", "architectures"], rows)


def _published(supported: Sequence[Architecture]) -> Iterator[str]:
    """timm's table, a row for each model and a column for each image set."""
    table = load_accuracies()
    names = {one.name for one in supported}
    own = table[table["model"].str.partition(".")[0].isin(names)]
    if own.empty:
        yield "timm's result tables that come with tokbench have none of these models."
        return
    wide = own.pivot_table("top1", ["model", "img_size", "params_m"], "dataset").reset_index()
    wide = wide.sort_values("imagenet-1k", ascending=False)
    rows = [
        [code(row["model"]), f"{row['img_size']:g}", f"{row['params_m']:.1f}", *(f"{row[name]:.1f}" for name in SETS)]
        for row in wide.to_dict("records")
    ]
    yield "Top-1 in percent of timm's weights on ImageNet's validation images, ImageNet-V2, A and R, from timm's result"
    yield "tables (`results/timm_accuracy.csv`)."
    headings = ["model", "pixels", "million parameters", *SETS.values()]
    yield from ("", *markdown_table(headings, rows, range(1, len(headings))))


def _measured(names: Collection[str], source: Source) -> Iterator[str]:
    """A row for each run and model."""
    rows = [
        row
        for run in source.runs
        for model, table in run.table[run.table["status"].eq("ok")].groupby("model", sort=False)
        if str(model).partition(".")[0] in names
        for row in [_measured_row(run, str(model), table, source)]
    ]
    if not rows:
        yield "None of the runs has a model of this family."
        return
    least = [f"best top-1 that saves {saved} %" for saved in SAVED]
    yield "Top-1 in percent; in brackets, the difference to the plain model in points. The best rows are the best of"
    yield "many, so that a little of their lead is chance."
    yield from ("", *markdown_table(["model", "run", "images", "methods", "plain top-1", *least], rows, [3, 4]))


def _measured_row(run: Results, model: str, table: pd.DataFrame, source: Source) -> list[str]:
    plain = table[table["method"].eq(PLAIN) & table["gmacs_saved"].eq(0) & table["top1"].notna()]
    methods = table[table["method"].ne(PLAIN)]
    return [
        leaderboard_link(model, "../", model=model),
        f"[{source.name(run)}](../runs/{source.anchor(run)}.md)",
        cell(data(run)),
        str(methods["method"].nunique()),
        "" if plain.empty else f"{plain['top1'].iloc[0]:.1f}",
        *(_best(methods, saved) for saved in SAVED),
    ]


def _best(methods: pd.DataFrame, saved: float) -> str:
    """The row with the highest top-1 among those that save this much, and its regime."""
    enough = methods[methods["gmacs_saved"].ge(saved) & methods["top1"].notna()]
    if enough.empty:
        return ""
    row = enough.sort_values("top1", kind="stable").iloc[-1]
    return f"{row['top1']:.1f} ({row['delta_top1']:+.1f}), `{row['method']}`, {row['regime']}"
