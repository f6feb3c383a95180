"""What choosing and merging tokens costs: the method's own operators, its time, and the kernels that it launches."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd

from tokbench.names import PLAIN
from tokbench.results import Results
from website.cells import cell
from website.source import Source

LAUNCHES = "launches/launches.csv"


def costs(name: str, source: Source) -> Iterator[str]:
    """The list of what a method costs by itself.

    Args:
        name: The method.
        source: The runs, and the counts of launches.
    """
    lines = [*_macs(name, source), *_times(name, source), *_launches(name, source)]
    yield from (f"- {line}" for line in lines) if lines else ["It has not been measured."]


def _own_rows(run: Results, name: str, column: str) -> pd.DataFrame:
    rows = run.table[run.table["method"].eq(name) & run.table["status"].eq("ok")]
    return rows[rows[column].notna()] if column in rows else rows.head(0)


def _macs(name: str, source: Source) -> Iterator[str]:
    for run in source.runs:
        for model, rows in _own_rows(run, name, "gmacs_method").groupby("model", sort=False):
            shares = 100 * rows["gmacs_method"] / rows["gmacs"]
            yield (
                f"Its own operators are {_range(shares)} of the MACs in `{model}`, "
                f"which has {_number(rows['gmacs'])} GMACs with it ({source.name(run)})."
            )


def _times(name: str, source: Source) -> Iterator[str]:
    for run in source.runs:
        rows = _own_rows(run, name, "choosing_share")
        for (model, batch, mode), own in rows.groupby(["model", "batch_size", "mode"], sort=False):
            machine = cell(str(run.environment.get("device_name", run.plan.device)))
            yield (
                f"Choosing and merging take {_range(own['choosing_share'])} of the time in `{model}` at batch {batch}, "
                f"{mode}, on {machine} ({source.name(run)})."
            )


def _launches(name: str, source: Source) -> Iterator[str]:
    file = source.results / LAUNCHES
    if not file.is_file():
        return
    table = pd.read_csv(file).set_index("method")
    if name not in table.index:
        return
    row, plain = table.loc[name], table.loc[PLAIN]
    yield (
        f"On a GPU, DeiT-Ti at keep 0.7 and batch 1 launches at least {row['launches']} kernels with it and "
        f"{plain['launches']} without, in eager mode; most often {cell(str(row['most_launches']))}. Counted by "
        f"`python benchmarks/kernel_launches.py` on {str(row['measured'])[:10]}, with torch {row['torch']}."
    )


def _range(percent: pd.Series) -> str:
    low, high = (f"{value:.2g}" for value in (percent.min(), percent.max()))
    return f"{low} %" if low == high else f"{low} to {high} %"


def _number(values: pd.Series) -> str:
    low, high = (f"{value:.3g}" for value in (values.min(), values.max()))
    return low if low == high else f"{low} to {high}"
