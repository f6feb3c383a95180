"""Reading `tokbench.toml`: suites, defaults, parameters of methods, plugin paths and the thresholds of `check`."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from tokbench.errors import UserError, did_you_mean
from tokbench.names import EMBEDDED, EMBEDDED_MODELS, PLAIN, PUBLISHED, RANDOM, Dtype, Mode, Site
from tokbench.notation import first_problem, parse_call, shortened, split_list
from tokbench.schedule import Schedule, takes_keep
from tokbench.user_files import exists, expanded, parse_toml, read_toml

FILE_NAME = "tokbench.toml"

MAX_THREADS = 1024  # more than any machine has cores; the operating system may not give so many
MAX_IMAGES = 2**20  # in a batch
MAX_SEED = 2**32

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
        min_length=1, description=f"timm ViT models, or those of tokbench: {', '.join(EMBEDDED_MODELS)}."
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
        le=2**62,
        description="Measure accuracy on this many images, evenly spaced; default: all.",
    )
    device: str = Field("auto", description="Where models run: auto, cpu, cuda or cuda:N.")
    dtype: Dtype = Field("fp32", description="Precision of the models: fp32, bf16 or fp16.")
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
        ("macs", "latency", "accuracy"), min_length=1, description="Measure only these: macs, latency, accuracy."
    )
    mode: tuple[Mode, ...] = Field(
        ("eager",), min_length=1, description="How timed models run: eager, compile, cudagraph."
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
        description="Stop timing a row once its speedup is known to within this fraction (half the width of its "
        "95 % interval).",
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

    def check_texts(self) -> None:
        """Check what pydantic sees as any text: paths, the schedule, and how methods are written.

        Not a part of the validation, because the paths of a plan may be those of another machine.

        Raises:
            UserError: A setting is wrong; the message begins with its name.
        """
        for name in ("data", "weights", "cache"):
            if (path := getattr(self, name)) is not None:
                with _about(name):
                    expanded(str(path))
        for call in (call for text in self.methods for call in split_list(text)):
            with _about("methods"):
                parse_call(call)
        if self.schedule != PUBLISHED:
            with _about("schedule"):
                Schedule.parse(self.schedule, 0.5 if takes_keep(self.schedule) else None)


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
    seconds: float = Field(
        default=10.0,
        gt=0,
        allow_inf_nan=False,
        description="Time limit per row, in seconds, for timing two versions of a method.",
    )
    precision: float = Field(
        default=0.01,
        ge=0,
        allow_inf_nan=False,
        description="Half width of the interval at which that timing stops early, as a fraction.",
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
            raise UserError(f"unknown suite '{shortened(name)}': {did_you_mean(name, list(self.suites))}")
        with _about(f"suite '{name}'", list(Suite.model_fields)):
            suite = Suite(**{**self.defaults, **self.suites[name], **overrides})
            suite.check_texts()
        return suite


def load_config(path: Path | None = None) -> Config:
    """Read the packaged `tokbench.toml` and merge the user's over it.

    All of the file is checked, also suites that are not used and values that others replace.

    Args:
        path: The user's file; None takes the one in the current folder, if there is one.

    Raises:
        UserError: The file is missing or cannot be read, is not valid TOML, or has an unknown key or a wrong value.
    """
    own = path or Path(FILE_NAME)
    packaged = parse_toml(importlib.resources.files("tokbench").joinpath(FILE_NAME).read_bytes(), FILE_NAME)
    user = {} if path is None and not exists(own) else read_toml(own)
    with _about(str(own), [*Config.model_fields, *Check.model_fields]):
        config = Config(**_merge(packaged, _resolve_paths(user, own.parent)))
        _check_tables(config)
    return config


def _check_tables(config: Config) -> None:
    """Check each table of settings by itself, since others may replace its values.

    Raises:
        UserError: A value is wrong; the message names the table and the key.
    """
    required = {key: (PLAIN,) for key, field in Suite.model_fields.items() if field.is_required()}
    tables = {"defaults": config.defaults, **{f"suites.{name}": table for name, table in config.suites.items()}}
    for name, table in tables.items():
        with _about(f"[{shortened(name)}]", list(Suite.model_fields)):
            Suite(**{**required, **table}).check_texts()
    if config.default_suite not in config.suites:
        problem = did_you_mean(config.default_suite, list(config.suites))
        raise UserError(f"default_suite: unknown suite '{shortened(config.default_suite)}': {problem}")


@contextmanager
def _about(what: str, keys: list[str] | None = None) -> Iterator[None]:
    """Let the message of an error begin with what it is about.

    Args:
        what: What is wrong.
        keys: The keys that there are, for a model of pydantic.

    Raises:
        UserError: There was an error.
    """
    try:
        yield
    except pydantic.ValidationError as error:
        raise UserError(f"{what}: {_first_error(error, keys or [])}") from None
    except UserError as error:
        raise UserError(f"{what}: {error}") from None


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
        resolved["defaults"] = _resolve_suite("defaults", resolved["defaults"], folder)
    if isinstance(resolved.get("suites"), dict):
        resolved["suites"] = {
            name: _resolve_suite(f"suites.{name}", suite, folder) for name, suite in resolved["suites"].items()
        }
    plugins = resolved.get("plugins")
    if isinstance(plugins, dict) and isinstance(plugins.get("paths"), list):
        with _about("[plugins]: paths"):
            paths = [str(folder / expanded(path)) if isinstance(path, str) else path for path in plugins["paths"]]
        resolved["plugins"] = {**plugins, "paths": paths}
    return resolved


def _resolve_suite(table: str, suite: Any, folder: Path) -> Any:
    """Resolve the paths of one table of settings; pydantic reports later what is not a table."""
    if not isinstance(suite, dict):
        return suite
    resolved = dict(suite)
    for key in ("data", "weights", "cache"):
        value = resolved.get(key)
        if isinstance(value, str) and value not in (EMBEDDED, RANDOM) and not value.startswith("hfds/"):
            with _about(f"[{shortened(table)}]: {key}"):
                resolved[key] = str(folder / expanded(value))
    return resolved


def _first_error(error: pydantic.ValidationError, known: list[str]) -> str:
    problem = error.errors()[0]
    if problem["type"] == "extra_forbidden":
        key = str(problem["loc"][-1])
        return f"unknown key '{shortened(key)}': {did_you_mean(key, known)}"
    return first_problem(error)
