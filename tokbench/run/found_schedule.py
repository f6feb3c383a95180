"""What a search has found, as a file that people read: the schedule in the notation of `--schedule`, and where from."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tokbench.files import write_atomically, writing
from tokbench.measure.schedule_search import Trial
from tokbench.results.store import MAKE_ROOM

Value = str | int | float


@dataclass(frozen=True)
class FoundSchedule:
    """The result of a search.

    Attributes:
        best: The best trial.
        stages: The trial with equal keeps at depths 3, 6 and 9, at the same cost; None where the method has none.
        plain_gmacs: Of the model without the method.
        subject: Model, method, parameters, site and fraction.
        images: What was searched on: what they are, how many, a hash of them, and how many are measured as well.
        trials: How many there were.
        failed: How many of these have no schedule, because none of their shape costs what it should, or the method
            failed.
        seed: Of the search.
        versions: Of what the result depends on.
    """

    best: Trial
    stages: Trial | None
    plain_gmacs: float
    subject: Mapping[str, Value]
    images: Mapping[str, Value]
    trials: int
    failed: int
    seed: int
    versions: Mapping[str, str]


def is_written(file: Path, best: Trial, trials: int, measured_as_well: int) -> bool:
    """Whether the file has this result already, and as many of its images are measured as it says."""
    try:
        content = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # it is not there, or somebody has changed it: it will be written again
        return False
    written = (content.get("schedule"), content.get("trials"), content.get("images", {}).get("measured_as_well"))
    return written == (best.schedule, trials, measured_as_well)


def write_found(found: FoundSchedule, file: Path) -> None:
    """Write the file.

    Raises:
        UserError: It cannot be written.
    """
    text = toml(found, datetime.now(UTC).isoformat(timespec="seconds"))
    with writing(file, MAKE_ROOM):
        write_atomically(file, lambda path: path.write_text(text, encoding="utf-8"))


def toml(found: FoundSchedule, date: str) -> str:
    """The file's text."""
    count = int(found.images["count"])
    lines = [
        "# Found by a search; give the schedule to --schedule to use it without searching again.",
        "# The agreement is the best of many on these images: expect less on others.",
        *_lines(_numbers(found.best, found.plain_gmacs, count)),
        *_lines(found.subject),
        *_lines({"trials": found.trials, "trials_failed": found.failed, "seed": found.seed}),
        f"date = {_written(date)}",
    ]
    if found.stages is not None:
        stages = _numbers(found.stages, found.plain_gmacs, count)
        lines += ["", "[stages]", "# Equal keeps at depths 3, 6 and 9, at the same cost.", *_lines(stages)]
    lines += ["", "[images]", *_lines(found.images), "", "[versions]", *_lines(found.versions)]
    return "\n".join(lines) + "\n"


def _numbers(trial: Trial, plain_gmacs: float, images: int) -> dict[str, Value]:
    return {
        "schedule": trial.schedule,
        "gmacs": round(trial.fraction * plain_gmacs, 6),
        "agreement": round(100 * trial.same / images, 2),
        "kl": round(trial.kl, 6),
    }


def _lines(values: Mapping[str, Value]) -> list[str]:
    return [f"{name} = {_written(value)}" for name, value in values.items()]


def _written(value: Value) -> str:
    # TOML's strings and numbers are written as JSON's.
    return json.dumps(value, ensure_ascii=False)
