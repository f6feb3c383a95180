"""The modes in which a model can be timed: eager, compiled, replayed as CUDA graphs, or in a deployment runtime."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from tokbench.deploy.runtimes import check_runtime, opener
from tokbench.errors import UserError
from tokbench.measure.call_timer import Forward
from tokbench.names import GRAPHS, RUNTIMES, Mode
from tokbench.vit.backbone import DownsampledViT

WARM_UP_CALLS = 3  # before capture, so that lazy initialisation is not captured


def check_mode(mode: Mode, device: torch.device) -> None:
    """Check that a device supports a mode.

    Raises:
        UserError: CUDA graphs were requested on a device other than CUDA, or a runtime is not installed or cannot use
            the device.
    """
    if mode in GRAPHS and device.type != "cuda":
        raise UserError(f"mode '{mode}' needs a CUDA device, not {device.type}: use --mode eager or compile")
    if mode in RUNTIMES:
        check_runtime(mode, device)


def forget_compiled() -> None:
    """Clear torch's compile cache: without this torch silently stops compiling a function at the ninth model."""
    torch.compiler.reset()


def in_mode(model: nn.Module, mode: Mode, images: Tensor) -> Forward:
    """Return a function that runs the model in a mode.

    Args:
        model: In evaluation mode.
        mode: `eager`; `compile`, which is torch.compile with its defaults; `cudagraph`, which is captured here and
            replayed at each call without involving the host; `compile+cudagraph`, which is torch.compile's mode
            reduce-overhead; or a runtime that the model is exported to. What is compiled is compiled at the first call:
            for these shapes, or for any number of tokens where it depends on the images.
        images: (B, C, H, W), an example with the shape, dtype and device of all later batches.

    Raises:
        NotExportableError: The runtime has no equivalent for an operator of the model.
        RuntimeError: The model cannot be captured because it synchronises with the host.
    """
    match mode:
        case "eager":
            return cast(Forward, model)
        case "compile":
            # With static shapes, torch gives up after eight lengths and runs the rest uncompiled.
            return cast(Forward, torch.compile(model, dynamic=_is_adaptive(model)))
        case "compile+cudagraph":
            return cast(Forward, torch.compile(model, dynamic=False, mode="reduce-overhead"))
        case "cudagraph":
            return _captured(model, images)
        case _:
            return opener(model, mode, images)()


def rebuilding(model: nn.Module, mode: Mode, images: Tensor) -> Callable[[], Forward]:
    """A function that builds the model anew in a mode: from a copy of its weights, compiled or captured again.

    For a runtime the model is exported once, here, and opened again at each call. Arguments and errors are those of
    `in_mode`.
    """
    if mode in RUNTIMES:
        return opener(model, mode, images)
    return lambda: in_mode(copy.deepcopy(model), mode, images)


def _is_adaptive(model: nn.Module) -> bool:
    return isinstance(model, DownsampledViT) and model.downsampler is not None and model.downsampler.adaptive


def _captured(model: nn.Module, images: Tensor) -> Forward:
    device, static, held = images.device, images.clone(), images
    with torch.cuda.device(device), torch.inference_mode():  # streams are made on the current device
        side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_CALLS):
                model(static)
        torch.cuda.current_stream(device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=side):
            logits = model(static)

    def replay(batch: Tensor) -> Tensor:
        nonlocal held
        if batch is not held:  # the other modes copy nothing, so that a copy would be timed in this one alone
            static.copy_(batch)
            held = batch
        graph.replay()
        return cast(Tensor, logits)

    return replay
