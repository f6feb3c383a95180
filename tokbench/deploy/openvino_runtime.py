"""OpenVINO, on a CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tokbench.errors import NotExportableError, describe


def open_model(exported: bytes) -> Callable[[Tensor], Tensor]:
    """Open a model in OpenVINO, for the least latency, in the precision that it was exported in.

    Args:
        exported: A serialised ONNX model.

    Returns:
        A function from images (B, C, H, W) to logits.

    Raises:
        NotExportableError: The runtime cannot run the model.
    """
    import openvino
    from openvino import properties

    settings = {
        properties.hint.performance_mode: properties.hint.PerformanceMode.LATENCY,
        properties.hint.inference_precision: openvino.Type.f32,  # on some CPUs its own choice is bf16
        properties.inference_num_threads: torch.get_num_threads(),
    }
    core = openvino.Core()
    try:
        request = core.compile_model(core.read_model(exported), "CPU", settings).create_infer_request()
    except Exception as error:
        raise NotExportableError(f"OpenVINO cannot run it: {describe(error)}") from error

    def forward(images: Tensor) -> Tensor:
        # Both share memory, so that nothing is copied; the next call overwrites what this one returns.
        outputs = request.infer([images.numpy()], share_inputs=True, share_outputs=True)
        return torch.from_numpy(outputs[0])

    return forward
