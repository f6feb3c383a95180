"""ONNX Runtime: on a CPU, and on NVIDIA's GPUs with its own kernels or TensorRT's."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tokbench.deploy.exporting import INPUT, OUTPUT
from tokbench.errors import NotExportableError, UserError, describe
from tokbench.names import Mode

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
ERRORS_ONLY = 3  # the lowest severity that is logged


def check_provider(mode: Mode, device: torch.device) -> None:
    """Check that the installed ONNX Runtime has what a mode needs on a device.

    Raises:
        UserError: It has not.
    """
    import onnxruntime

    wanted = _providers(mode, device)[0]
    if wanted not in onnxruntime.get_available_providers():
        raise UserError(
            f"the installed ONNX Runtime has no {wanted}: for a GPU, pip uninstall onnxruntime and "
            "pip install onnxruntime-gpu"
        )


def open_session(program: bytes, mode: Mode, images: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """Open a model.

    Args:
        program: The content of an ONNX file from images to logits.
        mode: `onnxruntime` or `tensorrt`.
        images: (B, C, H, W), an example, whose device is used; None for the CPU.

    Returns:
        A function from images to logits on the images' device. On a GPU nothing is copied to the host.

    Raises:
        NotExportableError: ONNX Runtime has no kernel for an operator, or leaves the model to another provider.
    """
    import onnxruntime

    device = torch.device("cpu") if images is None else images.device
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = ERRORS_ONLY
    # Threads that wait for the next call in a loop would take the CPUs from the other model of a pair.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
    providers = _providers(mode, device)
    settings = [_settings(provider, device, stream) for provider in providers]
    try:
        session = onnxruntime.InferenceSession(program, options, providers=providers, provider_options=settings)
    except Exception as error:  # its classes have no common base
        raise NotExportableError(_unopenable(error)) from error
    if session.get_providers()[0] != providers[0]:
        raise NotExportableError(f"ONNX Runtime could not start {providers[0]}, and would have used another provider")
    if stream is None or images is None:
        return lambda batch: torch.from_numpy(session.run([OUTPUT], {INPUT: batch.contiguous().numpy()})[0])
    return _on_gpu(session, stream, images)


def _on_gpu(session: Any, stream: torch.cuda.Stream, images: Tensor) -> Callable[[Tensor], Tensor]:
    """A function that runs a session on a stream of its own, between what torch has queued before and queues after."""
    import onnxruntime

    shape = session.get_outputs()[0].shape
    logits = torch.empty(shape, dtype=images.dtype, device=images.device)
    queue_only = onnxruntime.RunOptions()
    queue_only.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def run(batch: Tensor) -> Tensor:
        batch = batch.contiguous()
        current = torch.cuda.current_stream(batch.device)
        stream.wait_stream(current)
        batch.record_stream(stream)
        binding = session.io_binding()
        for bind, name, tensor in (
            (binding.bind_input, INPUT, batch),
            (binding.bind_output, OUTPUT, logits),
        ):
            bind(name, "cuda", batch.device.index or 0, _element_type(tensor), tuple(tensor.shape), tensor.data_ptr())
        session.run_with_iobinding(binding, queue_only)
        current.wait_stream(stream)
        return logits

    return run


def _providers(mode: Mode, device: torch.device) -> list[str]:
    """The providers that a mode uses, the first of which must be there; the others take what it leaves."""
    if mode == "tensorrt":
        return [TENSORRT, CUDA, CPU]
    return [CUDA, CPU] if device.type == "cuda" else [CPU]


def _settings(provider: str, device: torch.device, stream: torch.cuda.Stream | None) -> dict[str, str]:
    if provider == CPU or stream is None:
        return {}
    settings = {"device_id": str(device.index or 0), "user_compute_stream": str(stream.cuda_stream)}
    if provider == CUDA:  # its own default is TF32, where torch's is not
        settings["use_tf32"] = str(int(torch.backends.cuda.matmul.allow_tf32))
    return settings


def _element_type(tensor: Tensor) -> int:
    """ONNX's number of a type."""
    from onnx import TensorProto

    types = {torch.float32: TensorProto.FLOAT, torch.float16: TensorProto.FLOAT16, torch.bfloat16: TensorProto.BFLOAT16}
    return int(types[tensor.dtype])


def _unopenable(error: Exception) -> str:
    """Why ONNX Runtime cannot open a model."""
    operator = re.search(r"Could not find an implementation for (\w+)", str(error))
    if operator:
        return f"ONNX Runtime has no kernel for the operator {operator[1]} of this type"
    return f"ONNX Runtime cannot open it: {describe(error)}"
