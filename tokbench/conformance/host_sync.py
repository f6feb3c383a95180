"""What makes the host wait for a GPU: reading values, shapes that depend on values, and copies to and from the host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Number
from typing import Any

import torch
from torch import Tensor

from tokbench.measure.dispatch import base_name

FIXED_SHAPES = "keep shapes that do not depend on values: topk or argsort with K, torch.where, masked_fill"

# Operators that wait, how they appear in a method's code, and what to write instead.
OPERATORS = {
    "_local_scalar_dense": ".item(), or a tensor as a Python number or truth value; compute with tensors, torch.where",
    "nonzero": f"nonzero(), or torch.where with one argument; {FIXED_SHAPES}",
    "masked_select": f"masked_select(); {FIXED_SHAPES}",
    "unique_dim": f"unique(); {FIXED_SHAPES}",
    "unique_consecutive": f"unique_consecutive(); {FIXED_SHAPES}",
    "unique_dim_consecutive": f"unique_consecutive(); {FIXED_SHAPES}",
    "_unique": f"unique(); {FIXED_SHAPES}",
    "_unique2": f"unique(); {FIXED_SHAPES}",
    "bincount": "bincount(); add ones with scatter_add",
    "allclose": "torch.allclose(); compute with torch.isclose(a, b).all()",
    "equal": "torch.equal(); compute with (a == b).all()",
    "multinomial": "multinomial(); draw with context.noise and topk",
    "_linalg_check_errors": "a function of torch.linalg that checks its result; use its variant in _ex",
    "_linalg_svd": "a singular value decomposition",
}

FROM_NUMBERS = frozenset({torch.tensor, torch.as_tensor, torch.asarray})


class HostSyncError(Exception):
    """The method would stall a GPU."""


def waits_in_operator(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """What the host waits for in an operator on a GPU, or nothing.

    Args:
        func: The operator, as dispatched.
        args: Its arguments.
        kwargs: Its keyword arguments.
    """
    name = base_name(func)
    if name == "repeat_interleave" and kwargs.get("output_size") is None:
        return "repeat_interleave() without output_size"
    if name == "index" and any(map(_is_mask, args[1])):
        return f"a boolean mask as an index; {FIXED_SHAPES}"
    if name == "index_put" and any(map(_is_mask, args[1])) and args[2].dim():
        return f"a boolean mask as an index; {FIXED_SHAPES}"
    return OPERATORS.get(name, "")


def waits_in_call(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """What the host waits for in a call of a function on a GPU's tensor or for a GPU that no operator tells of.

    Args:
        func: The function or method of torch.
        args: Its arguments.
        kwargs: Its keyword arguments.
    """
    if func in (Tensor.tolist, Tensor.numpy, Tensor.__array__):
        return f".{func.__name__}(); compute with tensors"
    if func is Tensor.new_tensor or (func in FROM_NUMBERS and not isinstance(args[0], Tensor)):
        return f"torch.{func.__name__}() of Python or numpy values, a copy to the GPU; use arange, full or a buffer"
    if func is Tensor.__setitem__ and isinstance(args[2], Number) and _is_one_place(args[0], args[1]):
        # A blocking copy up to torch 2.14; of several places, and in later versions, it is a kernel.
        return "a Python number assigned to one place; use F.pad, torch.where or masked_fill"
    return ""


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype in (torch.bool, torch.uint8)


def _is_one_place(tensor: Tensor, index: Any) -> bool:
    """Whether numbers alone select one element."""
    parts = index if isinstance(index, tuple) else (index,)
    return len(parts) == tensor.dim() and all(isinstance(part, int) for part in parts)
