"""The deployment runtimes that models can be timed in."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from tokbench.errors import UserError
from tokbench.names import Mode


def check_runtime(mode: Mode, device: torch.device) -> None:
    """Check that a runtime is installed and can use a device.

    Raises:
        UserError: It is not, or it cannot.
    """
    extra = "openvino" if mode == "openvino" else "onnx"
    package = "openvino" if mode == "openvino" else "onnxruntime"
    missing = [name for name in ("onnx", "onnxscript", package) if find_spec(name) is None]
    if missing:
        raise UserError(f"mode '{mode}' needs the package {missing[0]}: pip install 'tokbench[{extra}]'")
    if mode == "openvino":
        if device.type != "cpu":
            raise UserError(f"mode 'openvino' runs on a CPU, not on {device.type}: use --device cpu")
        return
    from tokbench.deploy.onnx_runtime import available_providers, provider_of

    wanted = provider_of(mode, device)
    if wanted not in available_providers():
        raise UserError(
            f"mode '{mode}' needs ONNX Runtime's {wanted} for {device.type}, which the installed onnxruntime lacks: "
            "on an NVIDIA GPU, pip install onnxruntime-gpu"
        )


def opener(model: nn.Module, mode: Mode, images: Tensor) -> Callable[[], Callable[[Tensor], Tensor]]:
    """Export a model once; the function that is returned opens it in a runtime, anew at each call.

    Args:
        model: In evaluation mode.
        mode: `onnxruntime`, `tensorrt` or `openvino`.
        images: (B, C, H, W), an example with the shape, dtype and device of all later batches.

    Returns:
        A function that gives the function that runs the model. It raises NotExportableError where the runtime cannot
        run what was exported.

    Raises:
        NotExportableError: The model cannot be exported.
        Exception: Whatever the model itself raises.
    """
    from tokbench.deploy.exporting import export_onnx

    exported = export_onnx(model, images)
    if mode == "openvino":
        from tokbench.deploy.openvino_runtime import open_model

        return lambda: open_model(exported)
    from tokbench.deploy.onnx_runtime import open_session

    return lambda: open_session(exported, mode, images)
