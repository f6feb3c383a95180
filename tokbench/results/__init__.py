"""A results directory: the plan, the records, and the tables made from them. Nothing here needs torch."""

from tokbench.results.columns import COLUMNS
from tokbench.results.directory import Results, load
from tokbench.results.plan import ImagesInfo, MethodInfo, Plan, PlannedRow

__all__ = ["COLUMNS", "ImagesInfo", "MethodInfo", "Plan", "PlannedRow", "Results", "load"]
