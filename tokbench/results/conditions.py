"""In which settings two directories were measured differently, as far as their environments and suites tell.

The keys of a plan say whether anything differs, but not what.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tokbench.results.directory import Results

ANSWER_SETTINGS = (
    *("device_name", "threads", "dtype", "accuracy_batch"),
    *("torch", "timm", "torchvision", "pillow", "numpy"),
)
"""The settings on which the answer to an image depends to the last bit."""

TIME_SETTINGS = ("device", "device_name", "cpus", "threads")
"""The settings without which no times can be compared."""

COUNT_SETTINGS = ("torch", "timm", "fvcore")
"""The settings on which counts depend."""

UNRECORDED = "tokbench's code, the data, the weights or the method's source"
"""What keys depend on and environments do not show."""


def settings_of(results: Results) -> dict[str, Any]:
    """The settings that measurements depend on, by name; those that a directory does not know are missing."""
    environment, suite = results.environment, results.plan.suite
    return {
        **environment.get("versions", {}),
        **environment,
        **{name: getattr(suite, name) for name in ("dtype", "accuracy_batch")},
    }


def differing(one: Results, other: Results, names: Iterable[str]) -> list[str]:
    """Those of the settings that are not the same in two directories."""
    first, second = settings_of(one), settings_of(other)
    return [name for name in names if first.get(name) != second.get(name)]


def difference_text(one: Results, other: Results, names: Iterable[str]) -> str:
    """The values of settings in two directories: `torch 2.14.0 and 2.15.0, threads 2 and 8`."""
    first, second = settings_of(one), settings_of(other)
    return ", ".join(f"{name} {first.get(name)} and {second.get(name)}" for name in names)
