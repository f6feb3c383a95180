"""OpenVINO on a CPU."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tokbench.errors import NotExportableError, describe


def read(program: bytes) -> Any:
    """Translate a model from ONNX.

    OpenVINO's reader is used, not its converter, which would report its use over the network.

    Args:
        program: The content of an ONNX file.

    Returns:
        An `openvino.Model`.

    Raises:
        NotExportableError: OpenVINO has no equivalent for an operator.
    """
    import openvino

    try:
        model = openvino.Core().read_model(program)
    except RuntimeError as error:
        raise NotExportableError(_unreadable(error)) from error
    for operator in model.get_ops():
        if operator.get_type_name() == "TopK":
            # ONNX puts the first of equal elements first; the reader forgets to ask for that.
            operator.set_attribute("stable", True)
    return model


def open_model(model: Any) -> Callable[[Tensor], Tensor]:
    """Open a model.

    Args:
        model: An `openvino.Model` with one input and one output.

    Returns:
        A function from images to logits, which are overwritten by its next call.

    Raises:
        NotExportableError: OpenVINO cannot run the model.
    """
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "f32",  # else it takes bfloat16 where the CPU has it
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    try:
        request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    except RuntimeError as error:
        raise NotExportableError(_unreadable(error)) from error

    def run(batch: Tensor) -> Tensor:
        request.set_input_tensor(openvino.Tensor(batch.contiguous().numpy(), shared_memory=True))
        request.infer()
        return torch.from_numpy(request.get_output_tensor().data)

    return run


def _unreadable(error: Exception) -> str:
    """Why OpenVINO cannot run a model."""
    text = str(error)
    operator = re.search(r"(?:No conversion rule found for|not supported|unsupported) operations?:\s*([\w.:]+)", text)
    if operator:
        return f"OpenVINO has no equivalent of the operator {operator[1]}"
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("Exception from")]
    return f"OpenVINO cannot open it: {describe(RuntimeError(lines[-1] if lines else text))}"
