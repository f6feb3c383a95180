"""Plotly charts of the rows of one model.

Each function takes the rows of one model with all batch sizes, modes and seeds, failed rows included, and returns None
if nothing that it shows was measured. A series has the same colour, symbol and dash in all charts. A menu above a chart
switches between batch sizes, modes or keeps. `CONFIG` is the configuration for plotly.js.
"""

from tokbench.report.charts.accuracy import accuracy_by_compute, accuracy_by_latency
from tokbench.report.charts.cost import crossover_map, macs_split, tokens_per_block
from tokbench.report.charts.published import published_and_measured
from tokbench.report.charts.style import CONFIG

__all__ = [
    "CONFIG",
    "accuracy_by_compute",
    "accuracy_by_latency",
    "crossover_map",
    "macs_split",
    "published_and_measured",
    "tokens_per_block",
]
