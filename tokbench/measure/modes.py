"""The modes in which a model can be timed: eager, compiled, or replayed as one CUDA graph."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from tokbench.errors import UserError
from tokbench.measure.latency import Forward
from tokbench.names import Mode

WARM_UP_CALLS = 3  # before capture, so that lazy initialisation is not captured


def check_mode(mode: Mode, device: torch.device) -> None:
    """Check that a device supports a mode.

    Raises:
        UserError: CUDA graphs were requested on a device other than CUDA.
    """
    if mode == "cudagraph" and device.type != "cuda":
        raise UserError(f"mode 'cudagraph' needs a CUDA device, not {device.type}: use --mode eager or compile")


def forget_compiled() -> None:
    """Clear torch's compile cache: without this torch silently stops compiling a function at the ninth model."""
    torch.compiler.reset()


def in_mode(model: nn.Module, mode: Mode, images: Tensor) -> Forward:
    """Return a function that runs the model in a mode.

    Args:
        model: In evaluation mode.
        mode: `eager`; `compile`, which is torch.compile with its defaults and static shapes, compiled at the first
            call; or `cudagraph`, which is captured here and replayed at each call without involving the host.
        images: (B, C, H, W), an example with the shape, dtype and device of all later batches.

    Raises:
        RuntimeError: The model cannot be captured because it synchronises with the host.
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
