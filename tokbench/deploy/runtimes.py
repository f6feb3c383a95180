"""The runtimes in which people deploy models: which there are, and how a model gets into one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from types import MappingProxyType

import torch
from torch import Tensor, nn

from tokbench.errors import UserError
from tokbench.names import Mode

PACKAGES: Mapping[Mode, tuple[str, ...]] = MappingProxyType(
    {
        "onnxruntime": ("onnx", "onnxscript", "onnxruntime"),
        "tensorrt": ("onnx", "onnxscript", "onnxruntime"),
        "openvino": ("onnx", "onnxscript", "openvino"),
    }
)
EXTRAS: Mapping[Mode, str] = MappingProxyType({"onnxruntime": "onnx", "tensorrt": "onnx", "openvino": "openvino"})
DEVICES: Mapping[Mode, tuple[str, ...]] = MappingProxyType(
    {"onnxruntime": ("cpu", "cuda"), "tensorrt": ("cuda",), "openvino": ("cpu",)}
)


def check_runtime(mode: Mode, device: torch.device) -> None:
    """Check that a runtime is installed and can use a device.

    Raises:
        UserError: It is not, or it cannot.
    """
    if device.type not in DEVICES[mode]:
        raise UserError(
            f"mode '{mode}' runs on {' or '.join(DEVICES[mode])}, not {device.type}: choose another --mode or --device"
        )
    missing = [name for name in PACKAGES[mode] if find_spec(name) is None]
    if missing:
        raise UserError(f"mode '{mode}' needs {', '.join(missing)}: pip install 'tokbench[{EXTRAS[mode]}]'")
    if mode != "openvino":
        from tokbench.deploy.onnx_runtime import check_provider

        check_provider(mode, device)


def runtime_versions(mode: Mode) -> dict[str, str]:
    """The versions of the packages that export a model and run it."""
    return {name: str(import_module(name).__version__) for name in PACKAGES[mode]}


def opener(model: nn.Module, mode: Mode, images: Tensor) -> Callable[[], Callable[[Tensor], Tensor]]:
    """Export a model once; the function that is returned opens it in a runtime, anew at each call.

    Args:
        model: In evaluation mode.
        mode: `onnxruntime`, `tensorrt` or `openvino`, checked before by `check_runtime`.
        images: (B, C, H, W), an example with the shape, dtype and device of all later batches.

    Returns:
        A function that gives a function from images to logits (B, classes) on the images' device; these are valid until
        its next call. It raises NotExportableError where the runtime cannot run what was exported.

    Raises:
        NotExportableError: The model cannot be exported.
        Exception: Whatever the model itself raises.
    """
    from tokbench.deploy.exporting import export_onnx

    exported = export_onnx(model, images)
    if mode == "openvino":
        from tokbench.deploy.openvino_runtime import open_model, read

        return lambda: open_model(read(exported))
    from tokbench.deploy.onnx_runtime import open_session

    return lambda: open_session(exported, mode, images)
