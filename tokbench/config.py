"""Reading `tokbench.toml`: suites, defaults, parameters of methods, plugin paths and the thresholds of `check`."""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from tokbench.errors import UserError, did_you_mean
from tokbench.names import EMBEDDED, PLAIN
from tokbench.notation import shortened
from tokbench.suite import PATHS, Suite
from tokbench.user_files import about, exists, merged, parse_toml, read_toml, with_whole_paths

FILE_NAME = "tokbench.toml"


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
        description="Stop that timing once this precision is reached, as a fraction.",
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
        with about(f"suite '{name}'", list(Suite.model_fields)):
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
    with about(str(own), [*Config.model_fields, *Check.model_fields]):
        config = Config(**merged(packaged, with_whole_paths(user, own.parent, PATHS)))
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
        with about(f"[{shortened(name)}]", list(Suite.model_fields)):
            Suite(**{**required, **table}).check_texts()
    if config.default_suite not in config.suites:
        problem = did_you_mean(config.default_suite, list(config.suites))
        raise UserError(f"default_suite: unknown suite '{shortened(config.default_suite)}': {problem}")
