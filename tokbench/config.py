"""Reading `tokbench.toml`: suites, defaults, parameters of methods, plugin paths and the thresholds of `check`."""

from __future__ import annotations

import importlib.resources
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from tokbench.errors import UserError, did_you_mean
from tokbench.names import EMBEDDED, RANDOM, Dtype, Mode, Site
from tokbench.notation import first_problem

FILE_NAME = "tokbench.toml"

Keep = Annotated[float, Field(gt=0, le=1)]


class Suite(BaseModel):
    """A named set of cells: the product of its lists.

    The descriptions are also the help texts of the command-line options.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = Field("", description="One sentence about the suite.")
    models: tuple[str, ...] = Field(
        min_length=1, description="timm ViT models, or digits_deit, which comes with tokbench."
    )
    methods: tuple[str, ...] = Field(
        min_length=1,
        description="Methods, as name or name(parameter=value,...), or all.",
    )
    keep: tuple[Keep, ...] = Field(
        (0.7,), min_length=1, description="Fractions of the patch tokens that each reduction keeps."
    )
    schedule: str = Field(
        "stages(at=3-6-9)",
        description="Where and how much to reduce: stages(at=3-6-9), every_block, every_block(r=13), "
        "explicit(counts=...), budget(0.7), or published for each method's own.",
    )
    site: Site | None = Field(
        None,
        description="Where in a block to reduce: before_block, after_attention or after_block; "
        "default: each method's own.",
    )
    data: str | None = Field(
        None,
        description="Labelled images: embedded, a folder with one subfolder per synset id, a .tar, a .parquet or "
        "hfds/NAME.",
    )
    weights: Literal["random"] | Path | None = Field(
        None,
        description="A .safetensors or .pth file for the model, or random; default: timm's pretrained weights.",
    )
    limit: int | None = Field(
        None,
        ge=1,
        description="Measure accuracy on this many images, evenly spaced; default: all.",
    )
    device: str = Field("auto", description="Where models run: auto, cpu, cuda or cuda:N.")
    dtype: Dtype = Field("fp32", description="Precision of the models: fp32, bf16 or fp16.")
    batch_size: tuple[pydantic.PositiveInt, ...] = Field(
        (32,), min_length=1, description="Batch sizes to time, in images."
    )
    accuracy_batch: pydantic.PositiveInt = Field(50, description="Batch size for accuracy, in images.")
    workers: pydantic.NonNegativeInt = Field(0, description="Processes that decode images.")
    cache: Path | None = Field(None, description="A folder to keep preprocessed images in for later runs.")
    memory: pydantic.PositiveInt = Field(
        1024, description="Memory for decoded images, in MiB; tokens that rows share may take as much again."
    )
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="Seeds for stochastic methods.")
    only: tuple[str, ...] = Field(
        ("macs", "latency", "accuracy"), min_length=1, description="Measure only these: macs, latency, accuracy."
    )
    mode: tuple[Mode, ...] = Field(
        ("eager",), min_length=1, description="How timed models run: eager, compile, cudagraph."
    )
    seconds: pydantic.PositiveFloat = Field(
        1.0, description="Time limit per row, in seconds; at least ten rounds are always timed."
    )
    precision: pydantic.NonNegativeFloat = Field(
        0.01,
        description="Stop timing a row once its speedup is known to within this fraction (half the width of its "
        "95 % interval).",
    )
    timeout: pydantic.PositiveFloat | None = Field(
        600.0,
        description="Seconds after which a method that makes no progress is given up, so that the others go on.",
    )
    threads: pydantic.PositiveInt | None = Field(None, description="CPU threads for computing; default: PyTorch's.")
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


def as_lists(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as `Suite` takes them, where a setting that is a list may be given as a single value."""

    def is_list(name: str) -> bool:
        return name in Suite.model_fields and get_origin(Suite.model_fields[name].annotation) is tuple

    return {
        name: [value] if is_list(name) and (isinstance(value, str) or not isinstance(value, Iterable)) else value
        for name, value in settings.items()
    }


class Check(BaseModel):
    """The thresholds of `tokbench check`, and how long it measures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gmacs: pydantic.NonNegativeFloat = Field(default=0.0, description="Largest allowed increase, in percent.")
    top1: pydantic.NonNegativeFloat = Field(
        default=0.5, description="Largest allowed loss in points, if machines or versions differ; otherwise 0."
    )
    speedup: pydantic.NonNegativeFloat = Field(
        default=5.0, description="Largest slowdown that may remain undecided, in percent."
    )
    seconds: pydantic.PositiveFloat = Field(
        default=10.0, description="Time limit per row, in seconds, for timing two versions of a method."
    )
    precision: pydantic.NonNegativeFloat = Field(
        default=0.01, description="Half width of the interval at which that timing stops early, as a fraction."
    )


class Config(BaseModel):
    """A `tokbench.toml`, merged over the packaged one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default_suite: str = EMBEDDED
    defaults: dict[str, Any] = {}
    suites: dict[str, dict[str, Any]] = {}
    methods: dict[str, dict[str, Any]] = {}
    plugins: dict[Literal["paths"], tuple[Path, ...]] = {}
    check: Check = Check()

    @property
    def plugin_paths(self) -> tuple[Path, ...]:
        """Files and folders with the user's own methods."""
        return self.plugins.get("paths", ())

    def suite(self, name: str, overrides: dict[str, Any]) -> Suite:
        """A suite: its own settings over the defaults, and the overrides over both.

        Args:
            name: The suite.
            overrides: Settings that replace the suite's.

        Raises:
            UserError: There is no such suite, or a setting is wrong.
        """
        if name not in self.suites:
            raise UserError(f"unknown suite '{name}': {did_you_mean(name, list(self.suites))}")
        try:
            return Suite(**{**self.defaults, **self.suites[name], **overrides})
        except pydantic.ValidationError as error:
            raise UserError(f"suite '{name}': {_first_error(error, list(Suite.model_fields))}") from None


def load_config(path: Path | None = None) -> Config:
    """Read the packaged `tokbench.toml` and merge the user's over it.

    Args:
        path: The user's file; None takes the one in the current folder, if there is one.

    Raises:
        UserError: The file is missing, is not valid TOML, or has an unknown key or a wrong type.
    """
    if path is not None and not path.is_file():
        raise UserError(f"no config file at {path}: give a {FILE_NAME} with --config")
    packaged = _read(importlib.resources.files("tokbench").joinpath(FILE_NAME).read_text(encoding="utf-8"), FILE_NAME)
    own = path or Path(FILE_NAME)
    user = _resolve_paths(_read(own.read_text(encoding="utf-8"), str(own)), own.parent) if own.is_file() else {}
    try:
        return Config(**_merge(packaged, user))
    except pydantic.ValidationError as error:
        raise UserError(f"{own}: {_first_error(error, [*Config.model_fields, *Check.model_fields])}") from None


def _read(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{name} is not valid TOML: {error}") from None


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Merge tables key by key; any other value replaces the one below."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _resolve_paths(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The paths in a config file are relative to the file's folder."""
    resolved = dict(config)
    if "defaults" in resolved:
        resolved["defaults"] = _resolve_suite(resolved["defaults"], folder)
    if isinstance(resolved.get("suites"), dict):
        resolved["suites"] = {name: _resolve_suite(suite, folder) for name, suite in resolved["suites"].items()}
    plugins = resolved.get("plugins")
    if isinstance(plugins, dict) and isinstance(plugins.get("paths"), list):
        paths = [str(folder / Path(path).expanduser()) if isinstance(path, str) else path for path in plugins["paths"]]
        resolved["plugins"] = {**plugins, "paths": paths}
    return resolved


def _resolve_suite(suite: Any, folder: Path) -> Any:
    """Resolve the paths of one table of settings; pydantic reports later what is not a table."""
    if not isinstance(suite, dict):
        return suite
    resolved = dict(suite)
    for key in ("data", "weights", "cache"):
        value = resolved.get(key)
        if isinstance(value, str) and value not in (EMBEDDED, RANDOM) and not value.startswith("hfds/"):
            resolved[key] = str(folder / Path(value).expanduser())
    return resolved


def _first_error(error: pydantic.ValidationError, known: list[str]) -> str:
    problem = error.errors()[0]
    if problem["type"] == "extra_forbidden":
        key = str(problem["loc"][-1])
        return f"unknown key '{key}': {did_you_mean(key, known)}"
    return first_problem(error)
