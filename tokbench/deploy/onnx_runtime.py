"""ONNX Runtime, with its providers for CPUs, CUDA and TensorRT."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tokbench.errors import NotExportableError, describe
from tokbench.names import Mode


def available_providers() -> list[str]:
    """The providers of the installed package."""
    import onnxruntime

    return list(onnxruntime.get_available_providers())


def provider_of(mode: Mode, device: torch.device) -> str:
    """The provider that a mode runs on a device."""
    if mode == "tensorrt":
        return "TensorrtExecutionProvider"
    return {"cuda": "CUDAExecutionProvider"}.get(device.type, "CPUExecutionProvider")


def open_session(exported: bytes, mode: Mode, images: Tensor) -> Callable[[Tensor], Tensor]:
    """Open a model in ONNX Runtime, with all of its optimisations.

    Args:
        exported: A serialised ONNX model.
        mode: `onnxruntime` or `tensorrt`.
        images: (B, C, H, W), an example of all later batches on their device.

    Returns:
        A function from images to logits on the same device.

    Raises:
        NotExportableError: The runtime cannot run the model on this device.
    """
    import onnxruntime

    wanted, device = provider_of(mode, images.device), images.device
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # nothing but what ends it, which is raised
    provider: Any = (wanted, {"device_id": device.index or 0}) if device.type == "cuda" else wanted
    try:
        session = onnxruntime.InferenceSession(exported, options, providers=[provider])
    except Exception as error:
        raise NotExportableError(f"ONNX Runtime cannot run it: {describe(error)}") from error
    if wanted not in session.get_providers():
        # It would run on a CPU instead, and say so in its log only.
        raise NotExportableError(f"ONNX Runtime could not start {wanted}: is its CUDA or TensorRT library installed?")
    return _on_cuda(session, images) if device.type == "cuda" else _on_cpu(session)


def _on_cpu(session: Any) -> Callable[[Tensor], Tensor]:
    name = session.get_inputs()[0].name

    def forward(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: images.numpy()})[0])  # neither is copied

    return forward


def _on_cuda(session: Any, example: Tensor) -> Callable[[Tensor], Tensor]:
    """The session reads and writes torch's memory. It runs in a stream of its own, and returns when it has finished."""
    read, written = session.get_inputs()[0].name, session.get_outputs()[0]
    logits = torch.empty(written.shape, dtype=example.dtype, device=example.device)
    index = example.device.index or 0

    def forward(images: Tensor) -> Tensor:
        numeric = torch.empty(0, dtype=images.dtype).numpy().dtype
        binding = session.io_binding()
        binding.bind_input(read, "cuda", index, numeric, tuple(images.shape), images.data_ptr())
        binding.bind_output(written.name, "cuda", index, numeric, tuple(logits.shape), logits.data_ptr())
        session.run_with_iobinding(binding)
        return logits

    return forward
