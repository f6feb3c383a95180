"""`tokbench new`: write the template of a new method."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tokbench.cli.options import ConfigFile


class Family(StrEnum):
    """How the new method gets from N tokens to K."""

    SELECT = "select"
    MERGE = "merge"
    POOL = "pool"


class Where(StrEnum):
    """Where in a block the new method reduces tokens."""

    BEFORE_BLOCK = "before_block"
    AFTER_ATTENTION = "after_attention"
    AFTER_BLOCK = "after_block"


def new(
    name: Annotated[str, typer.Argument(help="The name of the method.")],
    family: Annotated[Family, typer.Option(help="Drop tokens, merge groups of tokens, or mix all tokens softly.")] = (
        Family.SELECT
    ),
    site: Annotated[Where, typer.Option(help="Where in a block to reduce.")] = Where.AFTER_ATTENTION,
    out: Annotated[Path, typer.Option(metavar="DIR", help="The folder to write to.")] = Path(),
    config: ConfigFile = None,
) -> None:
    """Write a small working method and its test.

    The files are NAME.py and test_NAME.py.

    Example: tokbench new my_method --family merge
    """
    from tokbench.config import load_config
    from tokbench.conformance.scaffold import write_method

    method, test = write_method(name, family.value, site.value, out, load_config(config).plugin_paths)
    typer.echo(f"{method}\n{test}\nNext: edit {method.name}, then tokbench verify {method}")
