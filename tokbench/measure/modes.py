"""The ways in which a model can be run when it is timed: as it is, compiled, or replayed as one CUDA graph."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from tokbench.errors import UserError
from tokbench.measure.latency import Forward
from tokbench.names import Mode

WARM_UP_CALLS = 3  # before capture, so that lazy initialisation is not captured


def check_mode(mode: Mode, device: torch.device) -> None:
    """Refuse a mode that a device does not have.

    Raises:
        UserError: CUDA graphs on another device.
    """
    if mode == "cudagraph" and device.type != "cuda":
        raise UserError(f"mode 'cudagraph' needs a CUDA device, not {device.type}: use --mode eager or compile")


def forget_compiled() -> None:
    """Forget all that was compiled: torch gives up compiling one function for the ninth model, silently."""
    torch.compiler.reset()


def in_mode(model: nn.Module, mode: Mode, images: Tensor) -> Forward:
    """A model as a function that runs in a mode.

    Args:
        model: In evaluation mode.
        mode: `eager`; `compile`, by torch.compile with its defaults and fixed shapes, compiled at the first call; or
            `cudagraph`, captured here and replayed at each call, without the host in between.
        images: (B, C, H, W), of the shape, type and device of those to come.

    Raises:
        RuntimeError: The model cannot be captured, since it asks the host for something in between.
    """
    match mode:
        case "eager":
            return cast(Forward, model)
        case "compile":
            return cast(Forward, torch.compile(model, dynamic=False))
        case "cudagraph":
            return _captured(model, images)


def _captured(model: nn.Module, images: Tensor) -> Forward:
    static = images.clone()
    side = torch.cuda.Stream(images.device)  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream(images.device))
    with torch.cuda.stream(side), torch.inference_mode():
        for _ in range(WARM_UP_CALLS):
            model(static)
    torch.cuda.current_stream(images.device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        logits = model(static)

    def replay(batch: Tensor) -> Tensor:
        static.copy_(batch)
        graph.replay()
        return cast(Tensor, logits)

    return replay
