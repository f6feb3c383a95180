"""What a comparison measures: the settings of a suite, which are also the options of the command line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from tokbench.errors import UserError
from tokbench.names import EMBEDDED_MODELS, POSITIONS, PUBLISHED, Dtype, Mode, Position, Site
from tokbench.notation import parse_call, split_list
from tokbench.schedule import Schedule
from tokbench.schedule_text import split_schedules, takes_keep
from tokbench.user_files import about, expanded
from tokbench.weights_setting import SPLIT, files_of

PATHS = ("data", "classes", "labels", "calibration", "train", "weights", "checkpoint", "cache")
"""The settings that name a file or a folder."""

MAX_THREADS = 1024  # more than any machine has cores; the operating system may not give so many
MAX_IMAGES = 2**20  # in a batch
MAX_SEED = 2**32
MAX_HEIGHT = 2**12  # of an image, in pixels

Keep = Annotated[float, Field(gt=0, le=1)]
Seed = Annotated[int, Field(ge=-MAX_SEED, le=MAX_SEED)]
Images = Annotated[int, Field(gt=0, le=MAX_IMAGES)]


class Suite(BaseModel):
    """A named set of cells: the product of its lists.

    The descriptions are also the help texts of the command-line options.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = Field("", description="One sentence about the suite.")
    models: tuple[str, ...] = Field(
        min_length=1,
        description=f"timm ViT models, those of tokbench ({', '.join(EMBEDDED_MODELS)}), hf-hub:USER/NAME, or "
        "local-dir:FOLDER.",
    )
    methods: tuple[str, ...] = Field(
        min_length=1,
        description="Methods, as name or name(parameter=value,...), or all.",
    )
    baselines: tuple[Literal["auto", "none"] | Images, ...] = Field(
        ("auto",),
        min_length=1,
        description="Also measure the plain model with fewer pixels: heights of the images, as in 208,192; auto for "
        "up to five that suit the model; or none.",
    )
    keep: tuple[Keep, ...] = Field(
        (0.7,), min_length=1, description="Fractions of the patch tokens that each reduction keeps."
    )
    schedule: tuple[str, ...] = Field(
        ("stages(at=3-6-9)",),
        min_length=1,
        description="Where and how much to reduce: stages(at=3-6-9), every_block, every_block(r=13), "
        "explicit(counts=...), budget(0.7), several budgets as budget(0.7,0.5), searched(0.7) for the "
        "best counts on the images of --calibration, or published for each method's own.",
    )
    site: Site | None = Field(
        None,
        description="Where in a block to reduce: before_block, after_attention or after_block; "
        "default: each method's own.",
    )
    position: Position = Field(
        POSITIONS[0],
        description="In models with rotary positions, where a merged token is: mean, at the mean coordinate of its "
        "patches; destination, at its largest member's; rotation, the mean of the members' rotations; none.",
    )
    data: str | None = Field(
        None,
        description="Images: embedded, a folder with one subfolder per class, a .tar, a .parquet or hfds/NAME. "
        "Agreement needs no labels.",
    )
    split: str | None = Field(
        None, description="Of --data with several splits read this one: the name of a folder or file, as val."
    )
    classes: Path | None = Field(
        None,
        description="The names of the classes in the order of the model's outputs: a .txt with one per line, or a "
        ".json. Default: ImageNet's, the model's own, or the sorted names of the class folders.",
    )
    labels: Path | None = Field(
        None,
        description="A .csv with the class of each file of --data, by name or number; default: its folder says it.",
    )
    image_column: str | None = Field(
        None, description="The column with the images in parquet files and hfds/NAME; default: image, or the only one."
    )
    label_column: str | None = Field(
        None,
        description="The column with the labels in parquet files, hfds/NAME, --labels and the .json of shards; "
        "default: label, or the only one.",
    )
    calibration: str | None = Field(
        None,
        description="Images for methods that set constants from them and for searched schedules, as for --data; "
        "they need no labels. Default: none, but with embedded data the digits that the models were trained on.",
    )
    set_apart: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Set this fraction of --data apart to calibrate on, chosen by a hash of each image; the others "
        "are measured.",
    )
    calibration_limit: Images = Field(512, description="Calibrate on at most this many images, evenly spaced.")
    train: str | None = Field(
        None,
        description="Labelled images, as for --data, to classify the images by their 20 nearest neighbours among them.",
    )
    weights: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        None,
        description="A file or folder of weights for the model, or random; several as MODEL=FILE,MODEL=FILE. Default: "
        "the pretrained ones.",
    )
    checkpoint: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        None,
        description="Also measure fine-tuned models: checkpoints of tokbench finetune or of public code, or folders of "
        "them; several as FILE,FILE; as MODEL=FILE where the file does not say which model it is.",
    )
    no_ema: bool = Field(
        False, description="Where a checkpoint also has a moving average of the weights (EMA), take the others."
    )
    img_size: int | None = Field(
        None,
        ge=1,
        le=MAX_HEIGHT,
        description="Height and width of the models' images, in pixels; default: each model's own.",
    )
    limit: int | None = Field(
        None,
        ge=1,
        le=2**62,
        description="Measure accuracy on this many images, evenly spaced; default: all.",
    )
    device: str = Field(
        "auto", description="Where models run: auto (cuda or else cpu), cpu, cuda, cuda:N, mps, xpu or xpu:N."
    )
    dtype: Dtype = Field(
        "fp32", description="Precision of the models: fp32, bf16, fp16, or mixed (autocast): amp-bf16, amp-fp16."
    )
    batch_size: tuple[Images, ...] = Field((32,), min_length=1, description="Batch sizes to time, in images.")
    accuracy_batch: Images = Field(50, description="Batch size for accuracy, in images.")
    workers: int = Field(0, ge=0, le=MAX_THREADS, description="Processes that decode images.")
    cache: Path | None = Field(None, description="A folder to keep preprocessed images in for later runs.")
    memory: int = Field(
        1024,
        gt=0,
        le=2**30,
        description="Memory for decoded images, in MiB; tokens that rows share may take as much again.",
    )
    seeds: tuple[Seed, ...] = Field((0, 1, 2), min_length=1, description="Seeds for stochastic methods.")
    only: tuple[str, ...] = Field(
        ("macs", "latency", "accuracy", "agreement"),
        min_length=1,
        description="Measure only these: macs, latency, throughput, memory, training, energy, accuracy, agreement.",
    )
    mode: tuple[Mode, ...] = Field(
        ("eager",),
        min_length=1,
        description="How timed models run: eager, compile, cudagraph, compile+cudagraph, onnxruntime, tensorrt, "
        "openvino.",
    )
    cold: bool = Field(False, description="Clear the device's caches before each timed call.")
    throughput_batch: Images | None = Field(
        None, description="Batch size of the throughput, in images; default: the best one for each model."
    )
    seconds: float = Field(
        1.0,
        gt=0,
        allow_inf_nan=False,
        description="Time limit per row, in seconds; at least ten rounds are always timed.",
    )
    precision: float = Field(
        0.01,
        ge=0,
        allow_inf_nan=False,
        description="Stop timing a row once this precision is reached: half the width of the speedup's 95 % "
        "interval, as a fraction.",
    )
    timeout: pydantic.PositiveFloat | None = Field(
        600.0,
        description="Seconds after which a method that makes no progress is given up, so that the others go on.",
    )
    threads: int | None = Field(
        None, gt=0, le=MAX_THREADS, description="CPU threads for computing; default: PyTorch's."
    )
    analyse: bool = Field(False, description="Also measure redundancy: token spectra and reconstruction errors.")

    @pydantic.field_validator("only")
    @classmethod
    def _check_kinds(cls, only: tuple[str, ...]) -> tuple[str, ...]:
        from tokbench.kinds import KINDS  # here, so that --help does not wait for pandas

        known = [name for name, kind in KINDS.items() if kind.on_request]
        for name in only:
            if name not in known:
                raise ValueError(f"'{name}' cannot be measured: choose from {', '.join(known)}")
        return only

    @pydantic.field_validator(*SPLIT, mode="before")
    @classmethod
    def _split_files(cls, given: object, info: pydantic.ValidationInfo) -> object:
        return SPLIT[str(info.field_name)](given)

    @pydantic.field_validator("schedule", mode="before")
    @classmethod
    def _split_schedules(cls, given: object) -> object:
        """A text may hold several; pydantic reports what is neither a text nor a list of texts."""
        texts = [given] if isinstance(given, str) else given
        if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
            return given
        try:
            return tuple(schedule for text in texts for schedule in split_schedules(text))
        except UserError as error:
            raise ValueError(str(error)) from None

    def check_texts(self) -> None:
        """Check what pydantic sees as any text: paths, the schedule, and how methods are written.

        Not a part of the validation, because the paths of a plan may be those of another machine.

        Raises:
            UserError: A setting is wrong; the message begins with its name.
        """
        for name in PATHS:
            value = getattr(self, name)
            given = [path for _, path in files_of(value)] if name in SPLIT else [value]
            for path in given:
                if path is not None:
                    with about(name):
                        expanded(str(path))
        for call in (call for text in self.methods for call in split_list(text)):
            with about("methods"):
                parse_call(call)
        with about("schedule"):
            for schedule in self.schedule:
                if schedule != PUBLISHED:
                    Schedule.parse(schedule, 0.5 if takes_keep(schedule) else None)


def as_lists(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as `Suite` takes them, where a setting that is a list may be given as a single value."""

    def is_list(name: str) -> bool:
        return name in Suite.model_fields and get_origin(Suite.model_fields[name].annotation) is tuple

    return {
        name: [value] if is_list(name) and (isinstance(value, str) or not isinstance(value, Iterable)) else value
        for name, value in settings.items()
    }
