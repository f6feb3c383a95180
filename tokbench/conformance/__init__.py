"""The conformance suite: does a method keep its contract? It ships with tokbench, for methods of anybody's own.

`tokbench verify my_method.py` runs it in a terminal, `pytest --tokbench-method=my_method.py` as one test a check, and
`failures("my_method.py")` inside a test.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokbench.conformance.checks import CHECKS, failures, verify
    from tokbench.conformance.result import Result

__all__ = ["CHECKS", "Result", "failures", "verify"]

_HOMES = {"CHECKS": "checks", "Result": "result", "failures": "checks", "verify": "checks"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first wanted: pytest loads this package's plugin whatever it is run on."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tokbench.conformance' has no attribute '{name}'")
    return getattr(importlib.import_module(f"tokbench.conformance.{_HOMES[name]}"), name)
