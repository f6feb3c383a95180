"""A fine-tuned checkpoint: the weights of a model and of the method in it, and what is known of both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from tokbench.names import POSITIONS, Position


@dataclass(frozen=True, eq=False)
class Trained:
    """A model and a method whose weights were trained together.

    Attributes:
        file: The file of the weights.
        sha256: Of its content.
        method: The method's name, `none` for the plain model.
        params: Its parameters by name.
        schedule: As --schedule takes it, without the keep; empty for the plain model.
        keep: The fraction that a reduction leaves, None where the schedule names counts.
        site: Where in a block the method acts; empty for the plain model.
        vit: The model's weights in timm's key names, float32.
        downsampler: The method's state dict.
        model: The model's name; empty where the file does not say it.
        position: Where merged tokens are, in models with rotary positions.
        seed: Of the training, None where it is unknown.
        about: What else is known of the training, as `tokbench.trained.saved.About` has it; empty where nothing is.
        remarks: What a reader should know of the weights.
    """

    file: Path
    sha256: str
    method: str
    params: Mapping[str, Any]
    schedule: str
    keep: float | None
    site: str
    vit: Mapping[str, Tensor]
    downsampler: Mapping[str, Tensor]
    model: str = ""
    position: Position = POSITIONS[0]
    seed: int | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
