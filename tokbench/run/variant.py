"""A method as it is put into a model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from tokbench.names import IMG_SIZE, OFF_THE_SHELF, PLAIN, POSITIONS, Position, Site
from tokbench.notation import parameters_text


@dataclass(frozen=True)
class FineTunedFile:
    """A checkpoint of a model and a method that were trained together.

    Attributes:
        path: Of the weights.
        sha256: Of that file.
        like: The model that it was given with, as in `MODEL=FILE`; None without.
        own_model: Whether no other model has its architecture, so that the plain model has its weights, too.
        classes: How many outputs its head has; None without a head.
        seed: Of the training, None where it is not known.
        training: A hash of how it was trained, but for the method and the seed; empty where that is not known.
    """

    path: str
    sha256: str
    like: str | None
    own_model: bool
    classes: int | None
    seed: int | None
    training: str


@dataclass(frozen=True)
class Variant:
    """A method as it is put into a model.

    Attributes:
        method: Its name, or `none` for the plain model.
        params: All of its parameters, by name, sorted, in a form that hashes.
        schedule: As the table shows it, without the keep.
        keep: The fraction that a reduction leaves, None where the schedule names counts.
        site: Where in a block it acts; empty for the plain model.
        position: In models with rotary positions, where its merged tokens are.
        stochastic: Whether it is measured over several seeds.
        adaptive: Whether the number of tokens depends on the images.
        regime: `off-the-shelf`, `calibrated` or `fine-tuned`.
        constants: The state of a calibrated method as the content of a `.safetensors` file; empty before calibration.
        fine_tuned: The file with the weights of model and method; None for a model with its own weights.
        found: The schedule that a search has found, as text; empty before it, and where the schedule is not searched.
        remarks: What a reader should know of it.
        skipped: Why it is not measured; empty where it is.
        failed: Why the method cannot be created; empty where it can.
    """

    method: str
    params: tuple[tuple[str, Any], ...] = ()
    schedule: str = ""
    keep: float | None = 1.0
    site: Site | str = ""
    position: Position = POSITIONS[0]
    stochastic: bool = False
    adaptive: bool = False
    regime: str = OFF_THE_SHELF
    constants: bytes = field(default=b"", repr=False)
    fine_tuned: FineTunedFile | None = None
    found: str = ""
    remarks: tuple[str, ...] = ()
    skipped: str = ""
    failed: str = ""

    @property
    def unfused(self) -> bool:
        """Whether this is the plain model without fused attention."""
        return self.method == PLAIN and "attention" in dict(self.params)

    @property
    def img_size(self) -> int | None:
        """Height and width of the images in pixels, where this is the plain model with fewer of them."""
        return dict(self.params).get(IMG_SIZE) if self.method == PLAIN else None

    @property
    def params_text(self) -> str:
        """`algorithm=kmeans,weighted=true`."""
        return parameters_text(dict(self.params))

    def without_file(self) -> Variant:
        """The same without the file of weights and the remarks: what its row in the table shows."""
        return replace(self, fine_tuned=None, remarks=())
