"""Files of exported models: ONNX, OpenVINO's own format, and PyTorch's."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tokbench.deploy.exporting import export_onnx, export_program
from tokbench.files import write_atomically

Format = Literal["onnx", "openvino", "torch"]
Write = Callable[[Path], None]

ENDINGS: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
WEIGHTS = ".bin"  # OpenVINO looks for a model's weights beside its description, under the same name


@dataclass(frozen=True, eq=False)
class Exported:
    """A model that has been exported and not yet written.

    Attributes:
        forward: Runs it on a CPU: from images (B, C, H, W) to logits (B, classes).
        write: Writes it to a file, completely or not at all.
    """

    forward: Callable[[Tensor], Tensor]
    write: Write


def export_model(model: nn.Module, images: Tensor, form: Format) -> Exported:
    """Export a model, and open it in the runtime that the format is for.

    Args:
        model: In evaluation mode, on a CPU.
        images: (B, C, H, W), an example with the shape and dtype of all later batches.
        form: `onnx`, which is opened in ONNX Runtime; `openvino`; or `torch`, which needs PyTorch alone.

    Raises:
        NotExportableError: The model cannot be exported, or the runtime cannot run what was exported.
        Exception: Whatever the model itself raises.
    """
    match form:
        case "torch":
            program = export_program(model, images)
            return Exported(program.module(), lambda file: write_atomically(file, lambda path: _save(program, path)))
        case "onnx":
            from tokbench.deploy.onnx_runtime import open_session

            exported = export_onnx(model, images)
            session = open_session(exported, "onnxruntime", images)
            return Exported(session, lambda file: write_atomically(file, lambda path: path.write_bytes(exported)))
        case "openvino":
            from tokbench.deploy.openvino_runtime import open_model, read

            made = read(export_onnx(model, images))
            return Exported(open_model(made), lambda file: _write_openvino(made, file))


def files_of(file: Path, form: Format) -> tuple[Path, ...]:
    """What a model's file consists of."""
    return (file, file.with_suffix(WEIGHTS)) if form == "openvino" else (file,)


def how_to_load(file: Path, form: Format) -> str:
    """Python that loads a model and runs it on images, in one line."""
    name = str(file)
    return {
        "onnx": f"onnxruntime.InferenceSession({name!r}).run(None, {{'images': images.numpy()}})[0]",
        "openvino": f"openvino.compile_model({name!r}, 'CPU')(images.numpy())[0]",
        "torch": f"torch.export.load({name!r}).module()(images)",
    }[form]


def _save(program: torch.export.ExportedProgram, path: Path) -> None:
    with path.open("wb") as file:  # by its name torch would refuse a path without its ending
        torch.export.save(program, file)


def _write_openvino(model: Any, file: Path) -> None:
    import openvino

    with tempfile.TemporaryDirectory(dir=file.parent, prefix=f".{file.name}.") as folder:
        made = Path(folder) / file.name
        openvino.save_model(model, made, compress_to_fp16=False)
        # A description never stands beside weights of another model: it goes first and comes last.
        write_atomically(file, lambda path: _move(made, file, path))


def _move(made: Path, file: Path, scratch: Path) -> None:
    file.unlink(missing_ok=True)
    weights = file.with_suffix(WEIGHTS)
    write_atomically(weights, made.with_suffix(WEIGHTS).replace)
    made.replace(scratch)
