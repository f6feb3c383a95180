"""How many kernels an operator launches on a GPU.

A lower bound, by this convention. Views and operators that only make or describe a tensor launch nothing. Any other
operator launches one kernel, except for those below, which are known to launch many. Fused attention, sorting, top-k
and cumulative sums count one, although some launch two or three. tokbench's own operators count what their Triton
kernels launch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves

from tokbench.measure.dispatch import base_name

FREE = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "_unsafe_view"})
SORTED_SUM = 12  # an accumulating index_put computes linear indices, sorts them and sums (PyTorch's Indexing.cu)
MATRIX_DISTANCE = 12  # two squares, two sums, two columns of ones, a factor, two cat, a product, a bound and a root
RECEIVED = 3  # the two kernels of `tokbench.vit.kernels`, and a sum over heads


def launches_of(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> dict[str, int]:
    """The kernels that an operator launches at least, by the operator's name; empty if it launches none.

    Args:
        func: The operator, as dispatched; not a composite one.
        args: Its arguments.
        kwargs: Its keyword arguments.
        result: What it returned.
    """
    name = base_name(func)
    makes = any(isinstance(leaf, Tensor) for leaf in tree_leaves(result))
    if name in FREE or not makes or _is_view(func):
        return {}
    return {name: _number(name, args, kwargs)}


def _number(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> int:
    if name in ("index_put", "_index_put_impl", "_unsafe_index_put"):
        accumulates = args[3] if len(args) > 3 else kwargs.get("accumulate", False)
        return SORTED_SUM if accumulates else 1
    return {"_cdist_forward": MATRIX_DISTANCE, "_euclidean_dist": MATRIX_DISTANCE, "tokbench::received": RECEIVED}.get(
        name, 1
    )


@cache
def _is_view(func: Any) -> bool:
    aliases = [returned.alias_info for returned in func._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)
