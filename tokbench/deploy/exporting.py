"""Exporting a model with a method in it: by torch.export, and from there to ONNX.

The number of images is fixed, since that is how models are deployed for the least latency, and a method's number of
tokens follows from it. A method that decides by the content of the images cannot be exported.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from tokbench.errors import NotExportableError, describe
from tokbench.vit.attention import received_from_matrix

# torch.export on a size that only the images' content decides.
DATA_DEPENDENT = re.compile(r"data-dependent|GuardOnDataDependentSymNode|PendingUnbackedSymbolNotFound")
NO_EQUIVALENT = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)', overload='([^']+)'\)>")


def export_program(model: nn.Module, images: Tensor) -> ExportedProgram:
    """Trace a model by torch.export.

    Args:
        model: In evaluation mode.
        images: (B, C, H, W), an example with the shape and dtype of all later batches.

    Raises:
        NotExportableError: The model has something that cannot be traced.
        Exception: Whatever the model itself raises.
    """
    with torch.no_grad():
        model(images)  # what fails here is the model's own error
        with _quietly(), _attributes_kept(model):
            try:
                program = torch.export.export(model, (images.clone(),))
                return program.run_decompositions(_own_operators())
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
                if DATA_DEPENDENT.search(text):
                    reason = "how many tokens it keeps depends on the images, and an exported model has fixed shapes"
                    raise NotExportableError(f"cannot be exported: {reason}") from error
                raise NotExportableError(f"cannot be exported by torch.export: {describe(error)}") from error


def export_onnx(model: nn.Module, images: Tensor) -> bytes:
    """Convert a model to ONNX.

    Args:
        model: In evaluation mode.
        images: As for `export_program`.

    Returns:
        The serialised model, with its weights.

    Raises:
        NotExportableError: ONNX has no equivalent for an operator of the model.
        Exception: Whatever the model itself raises.
    """
    from tokbench.deploy.onnx_operators import translations

    program = export_program(model, images)
    with _quietly():
        try:
            exported: Any = torch.onnx.export(
                program, dynamo=True, verbose=False, optimize=True, custom_translation_table=translations()
            )
        except Exception as error:
            raise NotExportableError(_no_equivalent(error)) from error
    return bytes(exported.model_proto.SerializeToString())


def _own_operators() -> dict[Any, Callable[..., Any]]:
    """What operators are made of: tokbench's own, and one of PyTorch's."""
    return {
        torch.ops.tokbench.received.default: received_from_matrix,
        torch.ops.aten.diagonal_scatter.default: _diagonal_scatter,
    }


def _diagonal_scatter(values: Tensor, diagonal: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """Square matrices with another diagonal; PyTorch's own decomposition writes in place, which ONNX cannot."""
    moved = values.movedim((dim1, dim2), (-2, -1))
    if offset or moved.shape[-2] != moved.shape[-1]:
        raise NotExportableError("cannot be exported to ONNX: it has no equivalent of a diagonal beside the main one")
    on_diagonal = torch.eye(moved.shape[-1], dtype=torch.bool, device=values.device)
    return torch.where(on_diagonal, diagonal[..., None], moved).movedim((-2, -1), (dim1, dim2))


def _no_equivalent(error: BaseException) -> str:
    """Which operator an exporter could not convert, from the errors that led to this one."""
    cause: BaseException | None = error
    last = error
    while cause is not None:
        found = NO_EQUIVALENT.search(str(cause))
        if found:
            return f"cannot be exported to ONNX: it has no equivalent of {found[1]} ({found[2]})"
        last, cause = cause, cause.__cause__ or cause.__context__
    return f"cannot be exported to ONNX: {describe(last)}"


@contextlib.contextmanager
def _attributes_kept(model: nn.Module) -> Iterator[None]:
    """Put the objects that modules hold back: torch.export replaces lists and dicts by copies."""
    before = [(module, dict(vars(module))) for module in model.modules()]
    try:
        yield
    finally:
        for module, attributes in before:
            vars(module).update(attributes)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Keep what exporters print and log to themselves; errors carry what matters."""
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        printed = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
