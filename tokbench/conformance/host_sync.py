"""Detect host synchronisation: code that reads values, or whose shapes depend on values, and so stalls a GPU.

On a GPU, torch itself can report synchronisation. These modes find the same operations on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# Operators that synchronise, and how they appear in a method's code.
SYNCHRONISING = {
    "_local_scalar_dense": ".item(), or a tensor as a Python number or truth value",
    "nonzero": "nonzero(), or torch.where with one argument",
    "masked_select": "masked_select()",
    "unique_dim": "unique()",
    "unique_consecutive": "unique_consecutive()",
    "unique_dim_consecutive": "unique_consecutive()",
    "_unique": "unique()",
    "_unique2": "unique()",
    "bincount": "bincount()",
    "equal": "torch.equal()",
}
TO_HOST = frozenset({"tolist", "numpy", "cpu", "__array__"})
TO_DEVICE = frozenset({torch.tensor, torch.as_tensor, torch.from_numpy})


class HostSyncError(Exception):
    """The method would stall a GPU."""


class OperatorWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises an error at operators whose result, or its shape, the host must wait for."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator, or raise HostSyncError."""
        name = func.overloadpacket.__name__
        if name in SYNCHRONISING:
            raise HostSyncError(SYNCHRONISING[name])
        if name == "repeat_interleave" and (kwargs or {}).get("output_size") is None:
            raise HostSyncError("repeat_interleave() without output_size")
        if name == "index" and any(_is_mask(index) for index in args[1]):
            raise HostSyncError("a boolean mask as an index")
        if name == "_to_copy" and _moves(args[0], (kwargs or {}).get("device")):
            raise HostSyncError("a copy to another device")
        return func(*args, **(kwargs or {}))


class CallWatch(TorchFunctionMode):
    """Raises an error at calls that copy data to or from the host; on a CPU, these calls run no operator."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run a function, or raise HostSyncError."""
        name = getattr(func, "__name__", "")
        if name in TO_HOST:
            raise HostSyncError(f".{name}()")
        # A device object may be the tokens' own device; a string is hard-coded by the method.
        if name == "to" and "cpu" in [
            given for given in (*args[1:], *(kwargs or {}).values()) if isinstance(given, str)
        ]:
            raise HostSyncError('.to("cpu")')
        if func in TO_DEVICE:
            raise HostSyncError(f"torch.{name}() of Python or numpy values, a copy to the device")
        return func(*args, **(kwargs or {}))


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _moves(tensor: Tensor, device: torch.device | None) -> bool:
    return device is not None and torch.device(device).type != tensor.device.type
