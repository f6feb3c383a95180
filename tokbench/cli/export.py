"""`tokbench export`: results in formats of other programs."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from tokbench.cli.options import ResultsDirectory
from tokbench.cli.output import write_text


class Format(StrEnum):
    """The formats that can be written."""

    PYTEST_BENCHMARK = "pytest-benchmark"


def export(
    directory: ResultsDirectory,
    form: Annotated[Format, typer.Option("--format", help="The format to write.")] = Format.PYTEST_BENCHMARK,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The file to write; default: standard output.")
    ] = None,
) -> None:
    """Write the times of a results directory in another format.

    Example: tokbench export results/latency --out latency.json && pytest-benchmark compare latency.json
    """
    from tokbench.report.export import pytest_benchmark_json
    from tokbench.results import Results

    match form:
        case Format.PYTEST_BENCHMARK:
            content = pytest_benchmark_json(Results(directory))
    text = json.dumps(content, indent=2, allow_nan=False) + "\n"
    if out is None or str(out) == "-":
        typer.echo(text, nl=False)
        return
    write_text(out, text)
    typer.echo(f"{out}: {len(content['benchmarks'])} benchmarks", err=True)
