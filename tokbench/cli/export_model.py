"""`tokbench export-model`: the model of a row as a file for a deployment runtime."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tokbench.cli.options import (
    ConfigFile,
    PluginList,
    Settings,
    parse_settings,
    plugin_paths,
    resolve_suite,
    suite_options,
)
from tokbench.cli.output import warn_broken, writing
from tokbench.cli.show import MEASURE_NOTHING
from tokbench.errors import UserError
from tokbench.names import ALL, PLAIN, Mode
from tokbench.notation import parse_call, split_list

if TYPE_CHECKING:
    from tokbench.run.prepare import Prepared, Row

MIB = 2**20
DEFAULTS = {"keep": "0.7", "schedule": "stages(at=3-6-9)"}
# In which the model is compared with the eager one.
RUNTIMES: dict[str, Mode] = {"onnx": "onnxruntime", "openvino": "openvino"}


class Format(StrEnum):
    """The formats that can be written."""

    ONNX = "onnx"
    OPENVINO = "openvino"
    TORCH = "torch"


@suite_options(
    *("keep", "schedule", "site", "position", "weights", "checkpoint", "no_ema", "img_size"),
    *("calibration", "calibration_limit"),
    defaults=DEFAULTS,
    texts={"checkpoint": "Export a fine-tuned model: a checkpoint of tokbench finetune or of public code."},
)
def export_model(
    *,
    model: Annotated[str, typer.Argument(help="A model, as in --models.", metavar="MODEL")],
    method: Annotated[str, typer.Argument(help="A method, as in --methods; none for the plain model.")],
    out: Annotated[Path, typer.Argument(help="The file to write: .onnx, .xml or .pt2.", metavar="FILE")],
    settings: Settings,
    form: Annotated[Format, typer.Option("--format", help="The format to write.")] = Format.ONNX,
    batch_size: Annotated[
        int, typer.Option(metavar="INT", min=1, help="Images per batch, which is fixed in the file.")
    ] = 1,
    seed: Annotated[int, typer.Option(metavar="INT", help="Seed for stochastic methods.")] = 0,
    plugins: PluginList = None,
    config: ConfigFile = None,
) -> None:
    """Write a model with a method in it to a file for deployment.

    The file is written in fp32. The answers that it gives on a CPU are compared with those of the eager model.

    Example: tokbench export-model deit_tiny_patch16_224 tome tome.onnx --keep 0.7 --batch-size 8
    """
    import torch

    from tokbench.comparison import plan_comparison
    from tokbench.config import load_config
    from tokbench.deploy.agreement import compare_outputs
    from tokbench.deploy.model_files import ENDINGS, files_of, how_to_load
    from tokbench.deploy.model_files import export_model as export
    from tokbench.deploy.runtimes import check_runtime
    from tokbench.measure.sample_images import sample_images
    from tokbench.run.build import build_model, input_model
    from tokbench.run.contain import MethodFailedError, contained
    from tokbench.run.fine_tuned import choose_checkpoints
    from tokbench.schedule_text import refuse_searches

    if out.suffix != ENDINGS[form.value]:
        raise UserError(f"{out}: with --format {form} the file's name must end in {ENDINGS[form.value]}")
    if not out.parent.is_dir():
        raise UserError(f"there is no folder {out.parent}: make it, or choose another file")
    if form in RUNTIMES:
        check_runtime(RUNTIMES[form], torch.device("cpu"))
    if len(split_list(method)) != 1 or method == ALL:
        raise UserError(f"'{method}' is not one method: name one, as in tokbench export-model {model} tome {out}")
    loaded = load_config(config)
    one_row = {"models": (model,), "methods": (method,), "seeds": [seed], "batch_size": [batch_size]}
    base = {**MEASURE_NOTHING, "dtype": "fp32", "checkpoint": None, **parse_settings(DEFAULTS), **one_row}
    suite = resolve_suite(loaded, None, settings, base=base)
    refuse_searches(suite.schedule)
    suite = choose_checkpoints(suite, {*settings, "models"})
    comparison = plan_comparison(suite, loaded, plugin_paths(loaded, plugins))
    warn_broken(comparison.broken)
    row = _only_row(comparison.prepared, parse_call(method).name)
    pretrained = comparison.prepared.models[model]
    images = sample_images(input_model(row.cell, pretrained), None, batch_size)
    built = build_model(row.cell, pretrained)
    try:
        exported = contained(f"exporting {row.cell}", lambda: export(built, images, form.value), None)
    except MethodFailedError as error:
        raise UserError(f"{row.cell}: {error}") from None
    difference = compare_outputs(built, exported.forward, images)
    with writing(out):
        exported.write(out)
    files = files_of(out, form.value)
    size = sum(file.stat().st_size for file in files) / MIB
    shape = " x ".join(map(str, images.shape))
    typer.echo(f"{' and '.join(map(str, files))}: {size:.1f} MiB, for batches of {shape} in fp32")
    typer.echo(f"largest difference from a logit of the eager model, on noise: {difference.largest:.1e}")
    typer.echo(f"load and run it: {how_to_load(out, form.value)}")


def _only_row(prepared: Prepared, method: str) -> Row:
    """The row to export.

    Raises:
        UserError: There is none or there are several, or it cannot be built.
    """
    fine_tuned = prepared.suite.checkpoint is not None
    rows = [
        row
        for row in prepared.rows
        if row.cell.variant.method == method and (row.cell.variant.fine_tuned is not None) == fine_tuned
    ]
    if method == PLAIN and not fine_tuned:
        rows = rows[-1:]  # the first is the plain model, which is in every plan
    if not rows:
        raise UserError(f"no checkpoint is of the method '{method}': name one with --checkpoint FILE")
    if len(rows) > 1:
        raise UserError(f"these settings give {len(rows)} models, and one is written: give one keep and one schedule")
    row = rows[0]
    if reason := row.failed or row.cell.variant.skipped:
        raise UserError(f"{row.cell}: {reason}")
    return row
