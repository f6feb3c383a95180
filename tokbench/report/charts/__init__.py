"""The charts of one model's rows, by plotly.

Each function takes the rows of one model with all their batch sizes, modes and seeds, failed rows included, and gives
None where nothing of its matter was measured. A series has the same colour, symbol and dash in all of them. What
there is too much of for one picture (batch sizes, modes, keeps) stands in a menu above it. `CONFIG` is what plotly.js
is to be started with.
"""

from tokbench.report.charts.accuracy import accuracy_by_compute, accuracy_by_latency
from tokbench.report.charts.cost import crossover_map, macs_split, tokens_per_block
from tokbench.report.charts.published import claims_beside
from tokbench.report.charts.style import CONFIG

__all__ = [
    "CONFIG",
    "accuracy_by_compute",
    "accuracy_by_latency",
    "claims_beside",
    "crossover_map",
    "macs_split",
    "tokens_per_block",
]
