"""Calibration in a comparison: the images, the constants that methods set from them, and where these are kept."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import TypeAdapter
from safetensors.torch import save
from torch import Tensor

from tokbench.data.loading import check_unreadable
from tokbench.data.sets import ImageSet
from tokbench.files import OTHER_FOLDER, write_atomically, writing
from tokbench.isolation import alive
from tokbench.measure.sample_images import read_all
from tokbench.model_names import file_stem
from tokbench.results.store import write_json
from tokbench.run.build import build_model
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.calibration import calibrate, constants_of

if TYPE_CHECKING:
    from tokbench.run.cells import Cell
    from tokbench.vit.adapters import TimmViT
    from tokbench.vit.models import Pretrained

MEASURED_AS_WELL = "are measured as well"  # in the remarks of rows


@dataclass(frozen=True, eq=False)
class Calibration:
    """Unlabelled images that constants are set from, and schedules searched on.

    Attributes:
        images: The images.
        measured: Those that methods are measured on; None without data.
    """

    images: ImageSet
    measured: ImageSet | None
    _batches: dict[int, list[Tensor]] = field(default_factory=dict)

    @cached_property
    def shared(self) -> int:
        """How many of the images are measured as well, by their content."""
        if self.measured is None:
            return 0
        measured = set(self.measured.digests)
        return sum(found in measured for found in self.images.digests if found is not None)

    def described(self, done: str) -> str:
        """`calibrated on 146 images (synsets)`, and how many of them are measured as well, if any are.

        Args:
            done: What was done, as in "calibrated".
        """
        shared = f", {self.shared} of which {MEASURED_AS_WELL}" if self.shared else ""
        return f"{done} on {len(self.images)} images ({self.images.name}){shared}"

    def batches(self, vit: TimmViT) -> list[Tensor]:
        """The images (B, C, H, W) for a model, decoded once as long as no other model asks, on the model's device.

        Raises:
            DataError: More than 1 % of the images cannot be read.
        """
        if id(vit) not in self._batches:
            alive()
            self._batches.clear()
            found, lost = read_all(vit, self.images)
            check_unreadable(lost, len(self.images))
            self._batches[id(vit)] = [batch.images for batch in found]
        return self._batches[id(vit)]

    def count(self, vit: TimmViT) -> int:
        """How many of the images can be read."""
        return sum(map(len, self.batches(vit)))

    def forget_images(self) -> None:
        """Release the decoded images."""
        self._batches.clear()


def constants_from(model: DownsampledViT, batches: list[Tensor], device: torch.device) -> bytes:
    """Calibrate a model's method on a device, and give its constants as the content of a `.safetensors` file."""
    each_batch = model.register_forward_hook(lambda *_: alive())
    model.to(device)
    try:
        calibrate(model, [batch.to(device) for batch in batches])
    finally:
        each_batch.remove()
        model.to("cpu")
    return save(constants_of(model))


def with_constants(cell: Cell, model: Pretrained, calibration: Calibration, device: torch.device) -> Cell:
    """A cell with its method's constants, set on a device."""
    constants = constants_from(build_model(cell, model), calibration.batches(model.vit), device)
    return replace(cell, variant=replace(cell.variant, constants=constants))


@dataclass(frozen=True)
class Checkpoint:
    """The constants of one method in one model with one schedule, and where they come from.

    Attributes:
        key: A hash of everything that they depend on.
        model: The model's name.
        method: The method.
        params: Its parameters, as in the table.
        regime: `calibrated`.
        site: Where in a block the method acts.
        schedule: Without the keep.
        keep: The fraction that a reduction leaves; a budget's is solved with the constants of each keep.
        data: The images that the constants were set from: what they are, how many could be read, a hash of their
            content.
        dtype: In which the model ran: always float32, whatever the rows' dtype is.
        versions: Of tokbench and torch.
        date: When, in UTC.
        sha256: Of the `.safetensors` file.
    """

    key: str
    model: str
    method: str
    params: str
    regime: str
    site: str
    schedule: str
    keep: float | None
    data: dict[str, str | int]
    dtype: str
    versions: dict[str, str]
    date: str
    sha256: str


def checkpoint_of(cell: Cell, key: str, calibration: Calibration, vit: TimmViT) -> Checkpoint:
    """What is known of a calibrated cell's constants."""
    variant = cell.variant
    images = calibration.images
    return Checkpoint(
        key=key,
        model=cell.model,
        method=variant.method,
        params=variant.params_text,
        regime=variant.regime,
        site=variant.site,
        schedule=variant.schedule,
        keep=variant.keep,
        data={"name": images.name, "images": calibration.count(vit), "identity": images.identity},
        dtype="float32",
        versions={name: version(name) for name in ("tokbench", "torch")},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        sha256=hashlib.sha256(variant.constants).hexdigest(),
    )


def write_checkpoint(checkpoint: Checkpoint, constants: bytes, folder: Path) -> None:
    """Write the constants, then what they are: a file without the other is no checkpoint.

    Raises:
        UserError: The folder cannot be written.
    """
    tensors, about = _files(checkpoint.model, checkpoint.method, checkpoint.key, folder)
    with writing(folder, OTHER_FOLDER):
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(tensors, lambda path: path.write_bytes(constants))
    write_json(about, asdict(checkpoint))


def read_checkpoint(cell: Cell, key: str, folder: Path) -> Cell | None:
    """A cell with the constants and the keep of its checkpoint; None where there is none, or it is damaged."""
    tensors, about = _files(cell.model, cell.variant.method, key, folder)
    try:
        found = TypeAdapter(Checkpoint).validate_json(about.read_bytes())
        constants = tensors.read_bytes()
    except (OSError, ValueError):
        return None
    if found.key != key or hashlib.sha256(constants).hexdigest() != found.sha256:
        return None
    return replace(cell, variant=replace(cell.variant, constants=constants, keep=found.keep))


def _files(model: str, method: str, key: str, folder: Path) -> tuple[Path, Path]:
    stem = f"{file_stem(model)}-{method}-{key[:8]}"
    return folder / f"{stem}.safetensors", folder / f"{stem}.json"
