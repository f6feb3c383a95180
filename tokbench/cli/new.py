"""`tokbench new`: start a method of one's own."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Family(StrEnum):
    """How the method that is written gets from N tokens to K."""

    SELECT = "select"
    MERGE = "merge"
    POOL = "pool"


class Where(StrEnum):
    """Where in a block it acts."""

    BEFORE_BLOCK = "before_block"
    AFTER_ATTENTION = "after_attention"
    AFTER_BLOCK = "after_block"


def new(
    name: Annotated[str, typer.Argument(help="What the method shall be called.")],
    family: Annotated[Family, typer.Option(help="Drop tokens, merge groups of them, or mix them softly.")] = (
        Family.SELECT
    ),
    site: Annotated[Where, typer.Option(help="Where in a block it acts.")] = Where.AFTER_ATTENTION,
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path(),
    config: Annotated[Path | None, typer.Option(help="A tokbench.toml; default: the current folder's.")] = None,
) -> None:
    """Write NAME.py, a small method that works, and test_NAME.py beside it.

    Example: tokbench new my_method --family merge
    """
    from tokbench.config import load_config
    from tokbench.conformance.scaffold import write_method

    method, test = write_method(name, family.value, site.value, out, load_config(config).plugin_paths)
    typer.echo(f"{method}\n{test}\nNext: edit {method.name}, then tokbench verify {method}")
