"""From a model to a program of a fixed batch: torch's own format, then ONNX.

`torch.export` records the operators that a model runs on one batch, so that shapes and Python's decisions are fixed.
"""

from __future__ import annotations

import io
import logging
import re
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from tokbench.deploy.translations import decompositions, translations
from tokbench.errors import NotExportableError, describe
from tokbench.vit.backbone import DownsampledViT

INPUT, OUTPUT = "images", "logits"
MAX_BYTES = 2**31 - 1  # of a protocol buffer


def export_program(model: nn.Module, images: Tensor) -> ExportedProgram:
    """Record the operators that a model runs on a batch.

    Args:
        model: In evaluation mode.
        images: (B, C, H, W), of the shape, dtype and device of all later batches.

    Returns:
        A program from images to logits, of torch's operators only.

    Raises:
        NotExportableError: What the model does depends on the images' content, or torch cannot trace it.
        Exception: Whatever the model itself raises.
    """
    if isinstance(model, DownsampledViT) and model.downsampler is not None and model.downsampler.adaptive:
        raise NotExportableError("the number of tokens depends on the images, while an exported model has fixed shapes")
    with torch.no_grad():
        model(images)  # what fails here is the model's own error
        try:
            with _quiet(), _attributes_kept(model):
                program: ExportedProgram = torch.export.export(model, (images.clone(),), strict=False)
                decomposed: ExportedProgram = program.run_decompositions(decompositions())
                return decomposed
        except Exception as error:
            raise NotExportableError(_untraceable(error)) from error


def export_onnx(model: nn.Module, images: Tensor) -> bytes:
    """Translate a model to ONNX.

    Args:
        model: In evaluation mode.
        images: As for `export_program`.

    Returns:
        The content of an ONNX file with one input, `images`, and one output, `logits`.

    Raises:
        NotExportableError: The model cannot be exported, ONNX has no equivalent for an operator, or the weights do not
            fit into one file.
        Exception: Whatever the model itself raises.
    """
    program = export_program(model, images)
    try:
        # With gradients, torch would take another kernel of attention, whose output has another layout than recorded.
        with _quiet(), torch.no_grad():
            exported: Any = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                custom_translation_table=translations(),
                verbose=False,
            )
    except Exception as error:
        raise NotExportableError(_untranslatable(error)) from error
    proto = exported.model_proto
    if proto.ByteSize() > MAX_BYTES:
        raise NotExportableError("the model is larger than the 2 GiB that one ONNX file can hold")
    return bytes(proto.SerializeToString())


def _untraceable(error: Exception) -> str:
    """Why torch.export cannot record a model."""
    text = str(error)
    if "data-dependent" in text or "GuardOnDataDependent" in type(error).__name__:
        return f"torch.export cannot record a decision that depends on the images' content ({_place(error)})"
    return f"torch.export cannot record it: {describe(error)}"


def _place(error: BaseException) -> str:
    """The last line of tokbench's or the user's own that was running: file and number."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    return f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}"


def _untranslatable(error: BaseException) -> str:
    """Which operator has no equivalent in ONNX."""
    cause: BaseException | None = error
    while cause is not None:
        operator = re.search(r"target=torch\.ops\.([\w.]+)\]", str(cause))
        if operator:
            return f"ONNX has no equivalent of the operator {operator[1]}"
        cause = cause.__cause__
    return f"it cannot be translated to ONNX: {describe(error)}"


@contextmanager
def _attributes_kept(model: nn.Module) -> Iterator[None]:
    """Put the objects that modules hold back: torch.export replaces lists and dicts by copies."""
    before = [(module, dict(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes in before:
            vars(module).update(attributes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters log and print of their progress, which would be among the results."""
    disabled, printed = logging.root.manager.disable, io.StringIO()
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(printed), redirect_stderr(printed):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
