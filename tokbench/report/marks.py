"""What the marks of a table say, each in a sentence: the same wherever a mark is shown.

The marks themselves are columns of the table; `tokbench.kinds.accuracy.unbeaten` sets them.
"""

from tokbench.stats.pareto import EQUAL_COST

MARKS = ("pareto", "pareto_time", "best_at_compute")

_PERCENT = f"{100 * EQUAL_COST:g} %"

ON_FRONT = {
    "gmacs": f"no row with at most {_PERCENT} more MACs is surely better in top-1 (paired 95 % interval)",
    **dict.fromkeys(
        ("latency_ms", "speedup"),
        f"no row with at most {_PERCENT} more time is surely better in top-1 (paired 95 % interval)",
    ),
}
"""What it means to be on the Pareto front, by the column of the cost."""

FRONT = {"gmacs": "pareto", "latency_ms": "pareto_time", "speedup": "pareto_time"}
"""The column that says which rows are on the front, by the column of the cost."""

BOLD = f"no row with equal MACs (to within {_PERCENT}) is surely better in top-1; a row without equals is not bold"
"""What bold means in a paper's table: the column `best_at_compute`."""
