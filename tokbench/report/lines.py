"""A comparison as rows and columns of text: the common part of the terminal's table and of a paper's."""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd
from rich.console import JustifyMethod
from rich.text import Text

from tokbench.kinds import KINDS
from tokbench.kinds.latency import MUCH_LOAD
from tokbench.names import CALIBRATED, FINE_TUNED, PLAIN
from tokbench.report.digits import RowValues, aligned, decimals, number, with_half_widths
from tokbench.report.labels import METHOD_SETTINGS, cell_text, labels, without_fraction
from tokbench.report.marks import MARKS, ON_FRONT
from tokbench.results.columns import BY_INTERVAL, COLUMNS
from tokbench.results.several import RUN
from tokbench.rows import FIELDS, with_fewer_pixels
from tokbench.schedule_text import takes_keep

SETTINGS = (RUN, "device", "dtype", "batch_size", "mode", "attention_kernel", *METHOD_SETTINGS)
IDENTITY = ["method", "params", "label", "keep", *SETTINGS]
NUMBERS = [name for name, column in COLUMNS.items() if column.dtype in ("float64", "Int64") and name not in FIELDS]

# The headings of settings that would not be understood without.
SETTING_HEADINGS = {name: COLUMNS[name].title for name in ("batch_size", "attention_kernel")}
VERDICT_SIGNS = {"FASTER": ("▲", "green"), "SLOWER": ("▼", "red"), "SAME": ("=", "dim"), "AMBIGUOUS": ("?", "yellow")}


@dataclass(frozen=True)
class TextColumn:
    """One column of text.

    Attributes:
        key: The name of the column, or `setting` for one that is not needed to identify a row.
        heading: Its heading.
        unit: Shown below the heading.
        cells: One for each row.
        justify: How the cells are aligned.
        suffixes: Shown after each cell: intervals, or the spread over seeds.
    """

    key: str
    heading: str
    unit: str
    cells: Sequence[Text]
    justify: JustifyMethod = "right"
    suffixes: Sequence[str] = ()


def model_blocks(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame, list[RowValues]]]:
    """Split a table by model.

    Args:
        table: The rows of a comparison, with the columns of the design's row.

    Returns:
        For each model its name, its rows with an additional `label`, and the values of its measured rows, seeds
        averaged. The settings of a method are blank for the plain model, to which they do not apply.
    """
    for model, rows in table.groupby("model", sort=False, dropna=False):
        run = {RUN: rows.get(RUN, "")}  # only a table of several runs has it
        block = rows.assign(label=labels(rows), keep=pd.to_numeric(rows["keep"]), **run)
        untrained = block["method"].eq(PLAIN) & block["regime"].ne(FINE_TUNED).fillna(True)
        block.loc[untrained, list(METHOD_SETTINGS)] = None
        yield cell_text(model), block, _average_seeds(block[block["status"] == "ok"])


def _average_seeds(measured: pd.DataFrame) -> list[RowValues]:
    """One row for all seeds of a setting: the plain model first, then by method, with falling keep.

    A row has the means of the numbers and, as `NAME_half`, half the width of the intervals.
    """
    measured = measured.reindex(columns=list(dict.fromkeys((*measured, *NUMBERS, *MARKS))))
    numbers = {name: pd.to_numeric(measured[name]).astype(float) for name in NUMBERS}
    marks = {name: measured[name].eq(True) for name in MARKS}
    groups = measured.assign(**numbers, **marks).groupby(IDENTITY, sort=False, dropna=False)
    means = groups[NUMBERS].mean()
    for column in (column for column in COLUMNS.values() if column.share_of):
        means[column.name] = 100 * means[column.name] / means[column.share_of]
    means = with_half_widths(means.rename(columns={column.name: name for name, column in BY_INTERVAL.items()}))
    means = means.copy()  # in one piece, or pandas warns when more columns are added
    means["images_per_s_half"] = means["images_per_s"] * means["latency_ms_half"] / means["latency_ms"]
    means["top5_half"] = means["top1_half"]
    for column in (column for column in COLUMNS.values() if column.spread):
        means[column.spread] = groups[column.name].std()
    means["seeds"] = groups["top1"].count()
    means["verdict"] = groups["verdict"].first()
    means[list(MARKS)] = groups[list(MARKS)].any()
    means = means.reset_index()
    means["compared"] = (
        means["method"].ne(PLAIN) | with_fewer_pixels(means) | means["regime"].eq(FINE_TUNED).fillna(False)
    )
    means.loc[~means["compared"], [name for name, column in BY_INTERVAL.items() if column.only_methods]] = math.nan
    # The plain model's speedup is 1 by definition. A measured one is kept: it is measured as any other's.
    means.loc[~means["compared"] & ~(means["speedup_half"] > 0), "speedup"] = math.nan
    means["method_rank"], means["label_rank"] = (pd.factorize(means[n])[0] for n in ("method", "label"))
    means["schedule_rank"], _ = pd.factorize(means["schedule"].map(lambda text: without_fraction(cell_text(text))))
    order = ["compared", "method_rank", "label_rank", "schedule_rank", "keep"]
    return means.sort_values(order, ascending=[True] * 4 + [False], kind="stable").to_dict("records")


def distinct_values(rows: Iterable[RowValues], name: str) -> list[str]:
    """The different values of a column as text, in order of appearance; missing ones are left out."""
    return list(dict.fromkeys(text for row in rows if (text := cell_text(row[name]))))


def block_title(model: str, rows: Sequence[RowValues]) -> Text:
    """The model and the settings that all of its rows share."""
    common = {name: values[0] for name in SETTINGS if len(values := distinct_values(rows, name)) == 1}
    device = " ".join(common.pop(name) for name in ("device", "dtype") if name in common)
    images = [f"{float(count):,.0f} images" for count in distinct_values(rows, "images")[:1]]
    settings = (
        f"{SETTING_HEADINGS[name]} {value}" if name in SETTING_HEADINGS else value for name, value in common.items()
    )
    parts = [*images, device, *settings]
    return Text.assemble((model, "bold"), *((f" · {part}", "dim") for part in parts if part not in ("", "eager")))


def legend(rows: Sequence[RowValues], shown: Collection[str] = ("latency_ms",)) -> Text:
    """Explain the signs and the columns of times that are used in these rows, one line each.

    Args:
        rows: The rows of one model.
        shown: The keys of the table's columns; of those that need an explanation, papers have latency alone.
    """
    used = {cell_text(row["verdict"]) for row in rows}
    verdicts = ", ".join(f"{sign} {verdict.lower()}" for verdict, (sign, _) in VERDICT_SIGNS.items() if verdict in used)
    seeds = " or ".join(sorted({cell_text(row["seeds"]) for row in rows if row["seeds"] > 1}))
    notes = [
        f"★ Pareto: {ON_FRONT['gmacs']}" if any(row["pareto"] for row in rows) else "",
        f"{verdicts}: against the plain model" if verdicts else "",
        "[ ] 95 % interval" if any(row["speedup_half"] > 0 or row["delta_half"] > 0 for row in rows) else "",
        *_timing_notes(rows, shown),
        f"± standard deviation over {seeds} seeds" if seeds else "",
        _calibrated_note(rows),
        _fine_tuned_note(rows),
    ]
    return Text("\n".join(filter(None, notes)), "dim")


def _calibrated_note(rows: Sequence[RowValues]) -> str:
    """Which methods are calibrated, since the column of regimes is left out where there is little room."""
    methods = dict.fromkeys(str(row["method"]) for row in rows if row["regime"] == CALIBRATED)
    return f"calibrated, with constants set from unlabelled images: {', '.join(methods)}" if methods else ""


def _fine_tuned_note(rows: Sequence[RowValues]) -> str:
    """What fine-tuned rows are compared with."""
    if not any(row["regime"] == FINE_TUNED and row["delta_half"] > 0 for row in rows):
        return ""
    return (
        "fine-tuned: Δ is against the plain model fine-tuned the same way where it is compared, else against the plain "
        "model before training"
    )


def _timing_notes(rows: Sequence[RowValues], shown: Collection[str]) -> list[str]:
    """What the columns of times mean, and how exact they are."""
    floor, precision, load = (
        max((row[name] for row in rows if row[name] > 0), default=0)
        for name in ("noise_floor", "precision_reached", "other_load")
    )
    paired = "latency_ms" in shown and any(row["latency_ms"] > 0 and row["plain_latency_ms"] > 0 for row in rows)
    return [
        "latency a of b: a is the row's, b the plain model's in the same rounds; other rows have other rounds"
        if paired
        else "",
        "ideal: the speedup if time were proportional to MACs" if "ideal_speedup" in shown else "",
        "choosing: the part of the time that the method itself takes" if "choosing_share" in shown else "",
        f"noise floor {floor:.1f} %: the plain model timed against itself differed by at least this much"
        if floor
        else "",
        f"precision reached {precision:.1f} %: half the width of a speedup's interval, in the least precise row"
        if precision
        else "",
        f"other processes used up to {100 * load:.0f} % of the CPUs" if load > MUCH_LOAD else "",
    ]


def text_columns(rows: Sequence[RowValues]) -> list[TextColumn]:
    """All columns that have at least one value."""
    names = [row["label"] for row in rows]
    methods = ["" if name == above else name for above, name in zip(["", *names], names, strict=False)]
    signs = [
        VERDICT_SIGNS[row["verdict"]] if cell_text(row["verdict"]) and row["speedup"] > 0 else ("",) for row in rows
    ]
    stars = [Text("★" if row["pareto"] else "", "yellow") for row in rows]
    columns = [
        TextColumn("pareto", "", "", stars),
        TextColumn("method", "method", "", [Text(method) for method in methods], "left"),
        *_setting_columns(rows),
        _keep_column(rows),
    ]
    for column in (column for kind in KINDS.values() for column in kind.columns if column.dropped):
        name = column.interval or column.name
        if name == "speedup":
            columns.append(TextColumn("verdict", "", "", [Text(*sign) for sign in signs]))
        cells = _number_cells(rows, name)
        columns.append(TextColumn(name, column.title, column.unit, cells, suffixes=_suffixes(rows, name)))
    return [column for column in columns if any(cell.plain.strip() for cell in column.cells)]


def _keep_column(rows: Sequence[RowValues]) -> TextColumn:
    """The keep, which is needed to identify a row unless every method has solved it for a budget."""
    methods = [row for row in rows if row["method"] != PLAIN]
    needed = not methods or any(map(_given_keep, methods))
    cells = [Text(keep) for keep in aligned([cell_text(row["keep"]) for row in rows])]
    return TextColumn("keep" if needed else "setting", "keep", "", cells)


def _given_keep(row: RowValues) -> str:
    """A row's keep; empty where it follows from the schedule."""
    schedule = cell_text(row["schedule"])
    return cell_text(row["keep"]) if not schedule or takes_keep(schedule) else ""


def _setting_columns(rows: Sequence[RowValues]) -> list[TextColumn]:
    """The settings that differ between rows. Those that are not needed to identify a row may be dropped: `setting`."""
    needed = varying = [name for name in SETTINGS if len(distinct_values(rows, name)) > 1]
    for name in reversed(varying):
        rest = [other for other in needed if other != name]
        if len({(_given_keep(row), *(cell_text(row[key]) for key in ("label", *rest))) for row in rows}) == len(rows):
            needed = rest
    cells = {name: [Text(cell_text(row[name])) for row in rows] for name in varying}
    keys = {name: name if name in needed else "setting" for name in varying}
    return [TextColumn(keys[name], SETTING_HEADINGS.get(name, name), "", cells[name], "left") for name in varying]


def _number_cells(rows: Sequence[RowValues], name: str) -> list[Text]:
    """The numbers of a column, rounded to their meaningful digits."""
    return [Text(text) for text in aligned([number(row[name], decimals(row, name)) for row in rows])]


def _suffixes(rows: Sequence[RowValues], name: str) -> list[str]:
    """What follows a column's numbers, padded to the same width: spread over seeds, plain model's, or interval."""
    column = BY_INTERVAL[name]

    def suffix(row: RowValues) -> str:
        digits = decimals(row, name)
        if column.spread:
            return f" ±{number(row[column.spread], digits)}" if row["seeds"] > 1 else ""
        if column.out_of:
            return f" of {plain}" if (plain := number(row[column.out_of], digits)) else ""
        if not column.compared:
            return ""
        lo, hi = (number(row[f"{name}_{end}"], digits) for end in ("lo", "hi"))
        return f" [{lo}, {hi}]" if lo and hi and not math.isnan(row[name]) else ""

    texts = [suffix(row) for row in rows]
    return _padded(texts) if any(texts) else []


def _padded(texts: Sequence[str]) -> list[str]:
    return [text.ljust(max(map(len, texts))) for text in texts]
