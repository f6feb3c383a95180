"""Every column of the table, defined once: type, unit, heading, interval and digits.

A kind of measurement brings its own columns; here stand those that every row has, and the order of all of them.
"""

from tokbench.kinds import KINDS
from tokbench.kinds.base import Column

_OF_EVERY_ROW = (
    *(Column(name, "string") for name in ("model", "method", "params", "regime", "site", "schedule")),
    Column("keep"),
    Column("seed", "Int64"),
    Column("device", "string"),
    Column("dtype", "string"),
    Column("batch_size", "int64", heading="batch"),
    Column("compiled", "bool"),
    Column("attention_kernel", "string", heading="attention"),
    Column("status", "string"),
    Column("reason", "string"),
    Column("params_m", exact=True),
    Column("mode", "string"),
    Column("remarks", "string"),
)

# The order of the first version, which programs that read the CSV may rely on. Further columns follow.
_ORDER = """
    model method params regime site schedule keep seed device dtype batch_size compiled attention_kernel status reason
    tokens_per_block params_m gmacs gmacs_method gmacs_saved latency_ms latency_ms_lo latency_ms_hi images_per_s
    speedup speedup_lo speedup_hi verdict peak_mib top1 top5 images top1_lo top1_hi delta_top1 delta_lo delta_hi pareto
    mode gmacs_lo gmacs_hi rounds latency_ms_p90 latency_ms_p99 noise_floor other_load gained lost mcnemar_p top1_sd
    remarks
""".split()


def _ordered() -> dict[str, Column]:
    found = {column.name: column for column in (*_OF_EVERY_ROW, *(c for kind in KINDS.values() for c in kind.columns))}
    return {name: found[name] for name in dict.fromkeys((*_ORDER, *found))}


COLUMNS: dict[str, Column] = _ordered()
"""By name, in the table's order. Accuracies are percentages, differences points, `latency_ms` is per batch."""

BY_INTERVAL = {column.interval or name: column for name, column in COLUMNS.items()}
"""By the name that the ends of the interval begin with, for those that have one: `delta` for `delta_top1`."""

TYPES = {name: column.dtype for name, column in COLUMNS.items()}
