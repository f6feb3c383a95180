"""What a training run has given, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tokbench.names import PLAIN
from tokbench.report.labels import cell_text, labels
from tokbench.results.training import TrainedCell

HEADINGS = {"label": "method", "keep": "keep", "seed": "seed", "before": "before", "after": "after"}
OVER_PLAIN = "Δ plain"


def render_training(cells: Sequence[TrainedCell], console: Console) -> None:
    """Print top-1 of each cell before and after training, and the reasons of those that were not trained.

    Args:
        cells: At least one.
        console: Where to print.
    """
    table = training_table(cells)
    for model, rows in table[table["reason"].eq("")].groupby("model", sort=False):
        names = [name for name in HEADINGS if name != "seed" or rows["seed"].nunique() > 1]
        shown = Table(title=escape(cell_text(model)), title_justify="left", box=None)
        for heading in (*(HEADINGS[name] for name in names), OVER_PLAIN):
            shown.add_column(heading, justify="left" if heading == HEADINGS["label"] else "right")
        for row in rows.to_dict("records"):
            texts = (_one_decimal(row[name]) if name in ("before", "after") else cell_text(row[name]) for name in names)
            shown.add_row(*map(escape, texts), _one_decimal(row["over_plain"], sign="+"))
        console.print(shown)
    for line in _legend(table):
        console.print(line)
    for cell in cells:
        if cell.reason:
            console.print(Text(f"{'skipped' if cell.skipped else 'failed'}: {cell}: {cell.reason}"), soft_wrap=True)


def training_table(cells: Sequence[TrainedCell]) -> pd.DataFrame:
    """The cells as a table, with two more columns.

    `label` is the method's name, as long as needed to distinguish it, and `over_plain` is by how many points top-1 is
    above that of the plain model that was fine-tuned with the same seed.

    Args:
        cells: At least one.
    """
    table = pd.DataFrame([asdict(cell) for cell in cells])
    for name in ("keep", "before", "after"):
        table[name] = pd.to_numeric(table[name])
    reduced = table["method"].ne(PLAIN)
    plain = table[~reduced].set_index(["model", "seed"])["after"]
    reference = plain.reindex(pd.MultiIndex.from_frame(table[["model", "seed"]])).to_numpy()
    models = table.groupby("model", sort=False)
    label = pd.concat([pd.Series(labels(rows), index=rows.index) for _, rows in models]).reindex(table.index)
    if table.loc[reduced, "schedule"].nunique() > 1:
        label = (label + " " + table["schedule"]).str.rstrip()
    return table.assign(label=label, over_plain=(table["after"] - reference).where(reduced))


def _legend(table: pd.DataFrame) -> Iterator[str]:
    if table["after"].notna().any():
        yield "before, after fine-tuning: top-1 on the validation images in percent"
        yield f"{OVER_PLAIN}: points above the plain model that was fine-tuned the same way"
    elif table["reason"].eq("").any():
        yield "no images to validate on: name them with --data to see top-1 before and after"


def _one_decimal(value: float, sign: str = "") -> str:
    return "" if pd.isna(value) else f"{value:{sign}.1f}"
