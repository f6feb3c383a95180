"""The checkpoints that `tokbench finetune` writes: weights as safetensors, and a JSON that says what they are.

The JSON holds the hash of the weights, so that the two files are known to belong together. It is written last: weights
without it are no checkpoint.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from safetensors.torch import load, save

from tokbench.errors import UserError
from tokbench.files import OTHER_FOLDER, write_atomically, writing
from tokbench.names import Position
from tokbench.trained.checkpoint import Trained
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.weights import one_line, split_method

FORMAT = "tokbench fine-tuned checkpoint 1"


@dataclass(frozen=True)
class About:
    """What was trained, and how: the content of the JSON.

    Attributes:
        model: Its name.
        weights: The identity of the pretrained weights that training started from.
        method: The method's name, `none` for the plain model.
        params: All of its parameters by name.
        schedule: Without the keep; empty for the plain model.
        keep: The fraction that a reduction leaves, None where the schedule names counts.
        site: Where in a block the method acts; empty for the plain model.
        position: Where merged tokens are, in models with rotary positions.
        seed: Of the training.
        recipe: All fields of the recipe, by name.
        data: The training images: `name`, how many `images`, and the `identity` of the set.
        epochs: Done.
        steps: Done.
        top1: On the validation images after the last epoch, in percent; None without such images.
    """

    model: str
    weights: str
    method: str
    params: dict[str, Any]
    schedule: str
    keep: float | None
    site: str
    position: Position
    seed: int
    recipe: dict[str, Any]
    data: dict[str, str | int]
    epochs: int
    steps: int
    top1: float | None = None


@dataclass(frozen=True)
class _Written:
    """The whole JSON."""

    format: str
    about: About
    versions: dict[str, str]
    date: str
    sha256: str


_WRITTEN = TypeAdapter(_Written)


def write_trained(model: DownsampledViT, about: About, file: Path) -> None:
    """Write a checkpoint: `file` with the weights, and beside it the JSON.

    Args:
        model: The trained model, on any device.
        about: What it is.
        file: Where to write the weights; its name ends with `.safetensors`.

    Raises:
        UserError: The folder cannot be written.
    """
    content = save({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()})
    written = _Written(
        FORMAT,
        about,
        {name: version(name) for name in ("tokbench", "torch", "timm")},
        datetime.now(UTC).isoformat(timespec="seconds"),
        hashlib.sha256(content).hexdigest(),
    )
    text = json.dumps(asdict(written), indent=1)
    with writing(file.parent, OTHER_FOLDER):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda path: path.write_bytes(content))
        write_atomically(json_of(file), lambda path: path.write_text(f"{text}\n", encoding="utf-8"))


def json_of(file: Path) -> Path:
    """The JSON that belongs to a file of weights."""
    return file.with_suffix(".json")


def is_saved(file: Path) -> bool:
    """Whether a file is the weights of a checkpoint that tokbench wrote."""
    try:
        content = json.loads(json_of(file).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.get("format") == FORMAT


def read_about(file: Path) -> About:
    """What the JSON beside the weights in a file says.

    Raises:
        UserError: The JSON is missing or damaged.
    """
    return _read_json(file).about


def read_saved(file: Path) -> Trained:
    """Read a checkpoint that `write_trained` wrote.

    Raises:
        UserError: One of its two files is missing or damaged, or they do not belong together.
    """
    shown = one_line(str(file))
    written = _read_json(file)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise UserError(f"{shown} cannot be read ({error.strerror}): train it again with tokbench finetune") from None
    sha256 = hashlib.sha256(content).hexdigest()
    if sha256 != written.sha256:
        raise UserError(
            f"{shown} and {json_of(file).name} do not belong together: train it again with tokbench finetune"
        )
    vit, downsampler = split_method(load(content))
    about = written.about
    return Trained(
        file=file,
        sha256=sha256,
        method=about.method,
        params=about.params,
        schedule=about.schedule,
        keep=about.keep,
        site=about.site,
        vit=vit,
        downsampler=downsampler,
        model=about.model,
        position=about.position,
        seed=about.seed,
        about=asdict(about),
    )


def _read_json(file: Path) -> _Written:
    path = json_of(file)
    shown = one_line(str(path))
    try:
        return _WRITTEN.validate_json(path.read_bytes())
    except OSError as error:
        raise UserError(f"{shown} cannot be read ({error.strerror}): train it again with tokbench finetune") from None
    except ValidationError as error:
        problem = error.errors()[0]
        place = ".".join(map(str, problem["loc"]))
        raise UserError(
            f"{shown} is damaged ({one_line(f'{place}: ' if place else '')}{problem['msg']}): train it again with "
            "tokbench finetune"
        ) from None
