"""The conformance suite: checks that a method fulfils the contract of `Downsampler`. It is part of the package.

Run it in a terminal with `tokbench verify my_method.py`, with pytest as one test per check with
`pytest --tokbench-method=my_method.py`, or inside a test with `failures("my_method.py")`.
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
    """Import a public name on first use, because every pytest run loads this package's plugin."""
    if name not in _HOMES:
        raise AttributeError(f"module 'tokbench.conformance' has no attribute '{name}'")
    return getattr(importlib.import_module(f"tokbench.conformance.{_HOMES[name]}"), name)
