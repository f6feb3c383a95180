"""A results directory: the plan, the records, and the tables made from them. Nothing here needs torch."""

from tokbench.results.columns import COLUMNS
from tokbench.results.directory import Results
from tokbench.results.plan import ImagesInfo, MethodInfo, Plan, PlannedRow
from tokbench.results.several import Combined, combine, load, runs_under

__all__ = [
    "COLUMNS",
    "Combined",
    "ImagesInfo",
    "MethodInfo",
    "Plan",
    "PlannedRow",
    "Results",
    "combine",
    "load",
    "runs_under",
]
