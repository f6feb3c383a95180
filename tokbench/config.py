"""`tokbench.toml`: suites, defaults, methods' parameters and plugin paths, read and checked."""

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

Measurement = Literal["macs", "latency", "accuracy"]
Keep = Annotated[float, Field(gt=0, le=1)]


class Suite(BaseModel):
    """A named set of cells: the product of its lists."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = ""
    models: tuple[str, ...] = Field(min_length=1)
    methods: tuple[str, ...] = Field(
        min_length=1,
        description="name or name(parameter=value,...); 'all' takes every method",
    )
    keep: tuple[Keep, ...] = Field((0.7,), min_length=1)
    schedule: str = Field("stages(at=3-6-9)", description="or 'published': each method's own")
    site: Site | None = Field(None, description="overrides the methods' own")
    data: str | None = Field(None, description="'embedded', a folder, a .tar, a .parquet or hfds/NAME")
    weights: Literal["random"] | Path | None = Field(
        None, description="a .safetensors or .pth for the one model, or 'random'; else timm's hub"
    )
    limit: int | None = Field(None, ge=1, description="measure accuracy on so many images, evenly spaced")
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    dtype: Dtype = "fp32"
    batch_size: tuple[pydantic.PositiveInt, ...] = Field((32,), min_length=1, description="of the timed batches")
    accuracy_batch: pydantic.PositiveInt = Field(50, description="images a batch when accuracy is measured")
    workers: pydantic.NonNegativeInt = Field(0, description="processes that decode images")
    cache: Path | None = Field(None, description="a folder that keeps preprocessed images for the next run")
    memory: pydantic.PositiveInt = Field(
        1024, description="MiB of decoded images that wait, and as many of tokens that cells share, at most"
    )
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1, description="of the stochastic methods")
    only: tuple[Measurement, ...] = Field(("macs", "latency", "accuracy"), min_length=1)
    mode: tuple[Mode, ...] = Field(("eager",), min_length=1, description="how timed models run")
    seconds: pydantic.PositiveFloat = Field(1.0, description="of timing a row at most; ten rounds are always taken")
    precision: pydantic.NonNegativeFloat = Field(
        0.01, description="a row is timed until the half width of its speedup's interval is this fraction"
    )
    threads: pydantic.PositiveInt | None = Field(None, description="of the CPU for computing; default: torch's own")
    analyse: bool = Field(False, description="measure redundancy besides: spectra and reconstruction errors")


def as_lists(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings as `Suite` takes them, where a setting that is a list may be given as a single value."""

    def is_list(name: str) -> bool:
        return name in Suite.model_fields and get_origin(Suite.model_fields[name].annotation) is tuple

    return {
        name: [value] if is_list(name) and (isinstance(value, str) or not isinstance(value, Iterable)) else value
        for name, value in settings.items()
    }


class Check(BaseModel):
    """What `tokbench check` lets pass, and how long it measures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gmacs: pydantic.NonNegativeFloat = Field(default=0.0, description="percent that they may grow by")
    top1: pydantic.NonNegativeFloat = Field(
        default=0.5, description="points that may be lost, where machines are unlike"
    )
    speedup: pydantic.NonNegativeFloat = Field(default=5.0, description="percent of slowdown that may stay in doubt")
    seconds: pydantic.PositiveFloat = Field(default=10.0, description="of timing two versions of a row with --against")
    precision: pydantic.NonNegativeFloat = Field(
        default=0.01, description="half width at which that timing stops earlier"
    )


class Config(BaseModel):
    """All of a `tokbench.toml`, laid over the packaged one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    default_suite: str = EMBEDDED
    defaults: dict[str, Any] = {}
    suites: dict[str, dict[str, Any]] = {}
    methods: dict[str, dict[str, Any]] = {}
    plugins: dict[Literal["paths"], tuple[Path, ...]] = {}
    check: Check = Check()

    @property
    def plugin_paths(self) -> tuple[Path, ...]:
        """Folders and files of the user's own methods."""
        return self.plugins.get("paths", ())

    def suite(self, name: str, overrides: dict[str, Any]) -> Suite:
        """A suite with the defaults below it and the command line's settings above it.

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
            raise UserError(f"suite '{name}': {_explain(error, list(Suite.model_fields))}") from None


def load_config(path: Path | None = None) -> Config:
    """Read the packaged `tokbench.toml` and lay the user's over it.

    Args:
        path: The user's file; None takes the current folder's, where there is one.

    Raises:
        UserError: The file is missing, is no TOML, or has an unknown key or a wrong type.
    """
    if path is not None and not path.is_file():
        raise UserError(f"no config file at {path}: --config names a {FILE_NAME}")
    packaged = _read(importlib.resources.files("tokbench").joinpath(FILE_NAME).read_text(encoding="utf-8"), FILE_NAME)
    own = path or Path(FILE_NAME)
    user = _absolute(_read(own.read_text(encoding="utf-8"), str(own)), own.parent) if own.is_file() else {}
    try:
        return Config(**_lay_over(packaged, user))
    except pydantic.ValidationError as error:
        raise UserError(f"{own}: {_explain(error, [*Config.model_fields, *Check.model_fields])}") from None


def _read(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{name} is no valid TOML: {error}") from None


def _lay_over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Tables are merged key by key; anything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _lay_over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def _absolute(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A file's paths are relative to the file."""

    def settle(table: Any) -> Any:
        if not isinstance(table, dict):
            return table
        settled = dict(table)
        for key in ("data", "weights", "cache"):
            value = settled.get(key)
            if isinstance(value, str) and value not in (EMBEDDED, RANDOM) and not value.startswith("hfds/"):
                settled[key] = str(folder / Path(value).expanduser())
        return settled

    settled = dict(config)
    if "defaults" in settled:
        settled["defaults"] = settle(settled["defaults"])
    if isinstance(settled.get("suites"), dict):
        settled["suites"] = {name: settle(suite) for name, suite in settled["suites"].items()}
    plugins = settled.get("plugins")
    if isinstance(plugins, dict) and isinstance(plugins.get("paths"), list):
        paths = [str(folder / Path(path).expanduser()) if isinstance(path, str) else path for path in plugins["paths"]]
        settled["plugins"] = {**plugins, "paths": paths}
    return settled


def _explain(error: pydantic.ValidationError, known: list[str]) -> str:
    problem = error.errors()[0]
    if problem["type"] == "extra_forbidden":
        key = str(problem["loc"][-1])
        return f"unknown key '{key}': {did_you_mean(key, known)}"
    return first_problem(error)
