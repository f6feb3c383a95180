"""What a training script has saved: weights, the arguments it was run with, and averages of the weights."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from torch import Tensor

from tokbench.errors import UserError
from tokbench.trained.architecture import model_name
from tokbench.trained.checkpoint import Trained
from tokbench.vit.weights import one_line, plain_state

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Saved:
    """The content of a checkpoint.

    Attributes:
        file: The file.
        state: The weights by name, float32.
        args: The arguments of the training script by name; empty where they were not saved.
        remarks: Which of several weights were taken.
    """

    file: Path
    state: Mapping[str, Tensor]
    args: Mapping[str, Any]
    remarks: tuple[str, ...] = ()

    @cached_property
    def patches(self) -> int:
        """The number of patches of an image, from the position embeddings of a model with one class token."""
        if "dist_token" in self.state:
            self.refuse("it has a distillation token, which tokbench's rows of these methods do not have")
        embedding = self.state.get("pos_embed")
        if embedding is None or embedding.ndim != 3:
            self.refuse("it has no position embeddings of a ViT")
        return int(embedding.shape[1]) - 1

    def weight(self, name: str) -> Tensor:
        """One of the weights.

        Raises:
            UserError: It is missing.
        """
        if name not in self.state:
            self.refuse(f"its weights lack {name}")
        return self.state[name]

    def arg(self, name: str, kind: type[T]) -> T:
        """An argument of the training script.

        Raises:
            UserError: It is missing, or of another type.
        """
        value = self.args.get(name)
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            self.refuse(f"its args have {name}={one_line(repr(value))}, not a {kind.__name__}")
        return value

    def numbers(self, name: str, kind: type[T]) -> tuple[T, ...]:
        """An argument that is a list of numbers."""
        values = self.arg(name, list)
        if not values or not all(type(value) is kind for value in values):
            self.refuse(f"its args have {name}={one_line(repr(values))}, not a list of {kind.__name__}")
        return tuple(values)

    def refuse(self, reason: str) -> NoReturn:
        """Say why a file of a known layout cannot be used.

        Raises:
            UserError: Always.
        """
        raise UserError(f"{one_line(str(self.file))} cannot be compared: {reason}; leave it out of --checkpoint")

    def without(self, prefix: str) -> dict[str, Tensor]:
        """The weights whose names do not begin so."""
        return {key: value for key, value in self.state.items() if not key.startswith(prefix)}

    def trained(
        self,
        method: str,
        schedule: str,
        site: str,
        params: Mapping[str, Any] | None = None,
        *,
        vit: Mapping[str, Tensor] | None = None,
        weights: Mapping[str, Tensor] | None = None,
        remarks: Sequence[str] = (),
    ) -> Trained:
        """The checkpoint as tokbench describes it.

        Args:
            method: The method's name.
            schedule: As --schedule takes it.
            site: Where in a block the method acts.
            params: The method's parameters.
            vit: The model's weights in timm's names; all weights if not given.
            weights: The method's state dict.
            remarks: What a reader should know.
        """
        vit = self.state if vit is None else vit
        with self.file.open("rb") as content:
            sha256 = hashlib.file_digest(content, "sha256").hexdigest()
        return Trained(
            file=self.file,
            sha256=sha256,
            method=method,
            params=dict(params or {}),
            schedule=schedule,
            keep=None,
            site=site,
            vit=dict(vit),
            downsampler=dict(weights or {}),
            model=model_name(vit),
            remarks=(*self.remarks, *remarks),
        )


def saved_content(content: Any, file: Path) -> Saved | None:
    """The weights that the training script's own evaluation takes, and its arguments; None if there are no weights.

    TokenReduction and ATC note in `ema_best` whether the averages (EMA) were better. The others evaluate the weights.

    Raises:
        UserError: The weights are damaged.
    """
    if not isinstance(content, dict):
        return None
    averaged = content.get("ema_best") is True and isinstance(content.get("model_ema"), dict)
    named = "model_ema" if averaged else next((name for name in ("model", "state_dict") if name in content), "")
    state = content[named] if named else content
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        return None
    args = content.get("args")
    remarks = (
        ("weights are the checkpoint's model_ema, a moving average (EMA), which was the better",) if averaged else ()
    )
    if not averaged and isinstance(content.get("model_ema"), dict):
        remarks = ("weights are the checkpoint's model, as in its own code's evaluation, not its model_ema",)
    return Saved(file, plain_state(state, file), vars(args) if isinstance(args, argparse.Namespace) else {}, remarks)
