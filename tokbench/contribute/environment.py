"""The description of the machine: complete, of one machine, and in line with the plan and the records."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import tokbench
from tokbench.contribute.problem import Name, Problem
from tokbench.kinds.latency import LATENCY
from tokbench.results import Results
from tokbench.results.merge import MACHINES

NEEDED = ("measured", "versions", "platform", "device", "device_name", "cpus", "threads", "tf32")
NEEDED_VERSIONS = ("python", "tokbench", "torch", "torchvision", "timm", "fvcore", "numpy", "pandas", "pillow")
NEEDED_OF_GPU = ("driver", "cuda", "cudnn", "multiprocessors", "power_limit_w")
"""Of an NVIDIA GPU; others do not report these."""

CLOCKS_DIFFER = timedelta(days=1)  # that a contributor's clock may be ahead


def check_environment(results: Results, now: datetime) -> Iterator[Problem]:
    """Check the description of the machine.

    Args:
        results: The contributed results.
        now: The time, which the measurements must not be after.
    """
    environment = results.environment
    if MACHINES in environment:
        yield Problem(
            Name.SEVERAL_MACHINES, "environment.json describes several machines: contribute the directory of each"
        )
        return
    missing = [name for name in _needed(environment) if _value(environment, name) in (None, "", {})]
    if missing:
        yield Problem(
            Name.INCOMPLETE_ENVIRONMENT,
            f"environment.json does not say {', '.join(missing)}: install what reads it (pip install "
            "'tokbench[nvidia]' for a GPU) and run the same tokbench compare again",
        )
        return
    yield from _check_version(str(environment["versions"]["tokbench"]))
    yield from _check_date(str(environment["measured"]), now)
    yield from (Problem(Name.CONTRADICTING_ENVIRONMENT, text) for text in _contradictions(results))


def _needed(environment: dict[str, Any]) -> Iterator[str]:
    yield from NEEDED
    yield from (f"versions.{name}" for name in NEEDED_VERSIONS)
    if environment.get("device") == "cuda" and _value(environment, "gpu.hip") is None:
        yield "clock_mhz"
        yield from (f"gpu.{name}" for name in NEEDED_OF_GPU)


def _value(environment: dict[str, Any], name: str) -> Any:
    """A value by a dotted name; None where there is none."""
    value: Any = environment
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _check_version(version: str) -> Iterator[Problem]:
    if version != tokbench.__version__:
        yield Problem(
            Name.UNKNOWN_VERSION,
            f"measured with tokbench {version}, checked with {tokbench.__version__}: use the same version",
        )


def _check_date(text: str, now: datetime) -> Iterator[Problem]:
    try:
        measured = datetime.fromisoformat(text)
    except ValueError:
        yield Problem(Name.INCOMPLETE_ENVIRONMENT, f"environment.json: measured '{text}' is no date")
        return
    if measured.tzinfo is None:
        measured = measured.replace(tzinfo=UTC)
    if measured > now + CLOCKS_DIFFER:
        yield Problem(Name.FUTURE_DATE, f"environment.json: measured {text}, which is in the future: set the clock")


def _contradictions(results: Results) -> Iterator[str]:
    """What the environment says against the plan and the records."""
    environment, plan = results.environment, results.plan
    device = environment["device"]
    if device != plan.device:
        yield f"environment.json describes the device '{device}', the plan is for '{plan.device}'"
    if plan.suite.threads not in (None, environment["threads"]):
        yield f"environment.json has {environment['threads']} threads, the plan {plan.suite.threads}"
    if (environment.get("gpu") is None and environment.get("cuda") is None) != (device == "cpu"):
        yield f"environment.json describes {'a' if device == 'cpu' else 'no'} GPU, and the device is '{device}'"
    records = [record for row in plan.rows if (record := results.record(LATENCY, row)) is not None]
    queued = sum(bool(record.host_s) for record in records)
    if device == "cpu" and queued:
        yield f"{queued} times are of calls that a host queued, as on a GPU, and the device is '{device}'"
    if device != "cpu" and queued < len(records):
        direct = len(records) - queued
        yield f"{direct} times are of calls that nothing queued, as on a CPU, and the device is '{device}'"
    if device == "cpu" and any(record.gpu for record in records):
        yield "the times come with a GPU's clocks, and the device is 'cpu'"
