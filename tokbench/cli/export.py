"""`tokbench export`: results for other programs."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tokbench.errors import UserError


class Format(StrEnum):
    """What can be written."""

    PYTEST_BENCHMARK = "pytest-benchmark"


def export(
    directory: Annotated[Path, typer.Argument(help="What tokbench compare wrote.")],
    form: Annotated[Format, typer.Option("--format", help="pytest-benchmark's JSON.")] = Format.PYTEST_BENCHMARK,
    out: Annotated[Path | None, typer.Option(help="The file to write; default: standard output.")] = None,
) -> None:
    """Write the times of a results directory for other programs.

    Example: tokbench export results/latency --out latency.json && pytest-benchmark compare latency.json
    """
    from tokbench.files import write_atomically
    from tokbench.report.export import pytest_benchmark_json
    from tokbench.results import Results

    match form:
        case Format.PYTEST_BENCHMARK:
            content = pytest_benchmark_json(Results(directory))
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    if out is None or str(out) == "-":
        typer.echo(text, nl=False)
        return
    try:
        write_atomically(out, lambda path: path.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror}): choose another file with --out FILE") from None
    typer.echo(f"{out}: {len(content['benchmarks'])} benchmarks", err=True)
