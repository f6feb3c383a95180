"""Catching what makes a GPU wait for the program: looks at values, and shapes that depend on them.

On a GPU torch tells of it itself. These modes find the same on a CPU, where nothing waits and nothing would be told.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# What each operator is called in a method's code.
WAITING = {
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
LEAVING = frozenset({"tolist", "numpy", "cpu", "__array__"})
ARRIVING = frozenset({torch.tensor, torch.as_tensor, torch.from_numpy})


class HostSyncError(Exception):
    """The method would make a GPU wait."""


class OperatorWatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Refuses operators whose result's shape or value the program must wait for."""

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run an operator, or refuse it."""
        name = func.overloadpacket.__name__
        if name in WAITING:
            raise HostSyncError(WAITING[name])
        if name == "repeat_interleave" and (kwargs or {}).get("output_size") is None:
            raise HostSyncError("repeat_interleave() without output_size")
        if name == "index" and any(_is_mask(index) for index in args[1]):
            raise HostSyncError("a boolean mask as an index")
        if name == "_to_copy" and _moves(args[0], (kwargs or {}).get("device")):
            raise HostSyncError("a copy to another device")
        return func(*args, **(kwargs or {}))


class CallWatch(TorchFunctionMode):
    """Refuses calls that take data to the host or bring them from it, which on a CPU are no operators at all."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run a function, or refuse it."""
        name = getattr(func, "__name__", "")
        if name in LEAVING:
            raise HostSyncError(f".{name}()")
        # A device object may be the tokens' own, a string is a choice of the method's.
        if name == "to" and "cpu" in [
            given for given in (*args[1:], *(kwargs or {}).values()) if isinstance(given, str)
        ]:
            raise HostSyncError('.to("cpu")')
        if func in ARRIVING:
            raise HostSyncError(f"torch.{name}() of the program's numbers, a copy to the device")
        return func(*args, **(kwargs or {}))


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _moves(tensor: Tensor, device: torch.device | None) -> bool:
    return device is not None and torch.device(device).type != tensor.device.type
