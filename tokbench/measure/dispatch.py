"""A second, independent MAC count, from the operators that PyTorch actually runs.

The tracer in `macs` reads the graph of the functions that a model calls (`linear`, `cdist`). Here each operator is
counted when it is dispatched, after PyTorch has decomposed composite functions (`addmm`, `_cdist_forward`), and from
the tensors themselves: products by PyTorch's own formulas, everything else by the formulas below. The two counts share
the convention and the names of the operators that cost nothing (`operators`), but no arithmetic.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from tokbench.measure.operators import COMPARISON, ELEMENTWISE, MOVEMENT, Shares
from tokbench.vit.backbone import METHOD_PARTS, DownsampledViT

Formula = Callable[..., int]

# Operators that cost nothing and have another name once dispatched than in the lists of `operators`.
DISPATCHED_FREE = frozenset(
    """
    _conj _fused_rms_norm _fused_sdp_choice _local_scalar_dense _log_softmax _reshape_alias _safe_softmax _softmax
    _to_copy _unsafe_index _unsafe_view empty_strided item lift native_batch_norm native_dropout native_group_norm
    native_layer_norm new_empty_strided
    """.split()
)


@contextmanager
def count_dispatched(model: DownsampledViT) -> Iterator[DispatchCounter]:
    """Count the operators that the model runs inside the `with` block.

    Args:
        model: Its modules `METHOD_PARTS` count as the method, the rest as the backbone.

    Yields:
        The counter; its figures are sums over all images of all calls.
    """
    counter = DispatchCounter()
    modules = dict(model.named_children())
    shares: list[tuple[nn.Module | None, Counter[str]]] = [(model, counter.shares.backbone)]
    shares += [(modules.get(name), counter.shares.method) for name in METHOD_PARTS]
    hooks = []
    for module, share in shares:
        if module is not None:
            hooks.append(module.register_forward_pre_hook(counter.on_enter(share)))
            hooks.append(module.register_forward_hook(counter.on_exit))
    try:
        with counter:
            yield counter
    finally:
        for hook in hooks:
            hook.remove()


class DispatchCounter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators that run while a module is being called.

    Attributes:
        shares: MACs by operator, summed over images.
        unknown: Operators that ran and are on none of the lists.
    """

    def __init__(self) -> None:
        """Start with empty counts."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.shares = Shares(Counter(), Counter())
        self.unknown: set[str] = set()
        self._active: list[Counter[str]] = []  # the shares of the modules being called, innermost last

    def on_enter(self, share: Counter[str]) -> Callable[[nn.Module, Any], None]:
        """A forward pre-hook that counts the following operators in `share`."""
        return lambda module, inputs: self._active.append(share)

    def on_exit(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """The forward hook that ends what `on_enter` began."""
        self._active.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator and count it."""
        kwargs = kwargs or {}
        name = base_name(func)
        formula = FORMULAS.get(name)
        free = name in ELEMENTWISE or name in COMPARISON or name in MOVEMENT or name in DISPATCHED_FREE
        if formula is None and not free:
            # Without gradients PyTorch passes composite operators undecomposed: decompose them, count the parts.
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if not self._active:
            return result
        if formula is not None:
            self._active[-1][name] += formula(result, *args, **kwargs)
        elif not free:
            self.unknown.add(name)
        return result


def base_name(func: Any) -> str:
    """An operator's name without the ATen namespace, the overload and the underscore of in-place operators."""
    name = str(func._schema.name).removeprefix("aten::")
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def _by_pytorch(name: str) -> Formula:
    """PyTorch's own formula, halved because it counts a multiply-accumulate as two operations."""

    def formula(result: Any, *args: Any, **kwargs: Any) -> int:
        return int(flop_registry[getattr(torch.ops.aten, name)](*args, **kwargs, out_val=result)) // 2

    return formula


def _attention(result: Any, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any) -> int:
    """(B, H, n, Dk) on (B, H, m, Dk), then (B, H, n, m) on (B, H, m, Dv)."""
    pairs = query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2]
    return pairs * query.shape[3] + pairs * value.shape[3]


def _received(result: Tensor, q: Tensor, k: Tensor, *args: Any, **kwargs: Any) -> int:
    """One product of (B, H, n, Dh) with itself, then the sum of (B, H, n, N).

    The product counts once, even where a kernel computes it twice.
    """
    queries = q.numel() // q.shape[-1]
    return queries * k.shape[2] * k.shape[3] + queries * result.shape[1]


def _distances(result: Tensor, a: Tensor, b: Tensor, *args: Any, **kwargs: Any) -> int:
    return result.numel() * b.shape[-1]


def _times_vector(result: Tensor, *operands: Any, **kwargs: Any) -> int:
    """A product with a vector on the right: each element of the left operand is used once."""
    left = next(operand for operand in operands[-2:] if isinstance(operand, Tensor))
    return left.numel()


def _all_elements(result: Any, values: Tensor, *args: Any, **kwargs: Any) -> int:
    return values.numel()


def _both_sums(result: Any, values: Tensor, *args: Any, **kwargs: Any) -> int:
    """The sum for the mean and the sum of squares."""
    return 2 * values.numel()


def _index_add(result: Tensor, into: Tensor, dim: int, index: Tensor, *args: Any, **kwargs: Any) -> int:
    return index.numel() * (into.numel() // into.shape[dim]) if into.numel() else 0


def _scatter_add(result: Tensor, into: Tensor, dim: int, index: Tensor, *args: Any, **kwargs: Any) -> int:
    return index.numel()


def _scatter(result: Tensor, into: Tensor, dim: int, index: Tensor, *args: Any, reduce: str = "", **kwargs: Any) -> int:
    reduction = reduce or next((value for value in args if isinstance(value, str)), "")
    return index.numel() if reduction in ("sum", "mean", "add") else 0


def _embedding_bag(result: Any, rows: Tensor, indices: Tensor, *args: Any, **kwargs: Any) -> int:
    return indices.numel() * rows.shape[1]


def _index_put(
    result: Tensor, into: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False, *rest: Any
) -> int:
    if not accumulate:
        return 0
    return into[tuple(slice(None) if index is None else index for index in indices)].numel()


def _segment_reduce(result: Tensor, values: Tensor, reduce: str, *args: Any, **kwargs: Any) -> int:
    return math.prod(values.shape) if reduce in ("sum", "mean") else 0


FORMULAS: dict[str, Formula] = {
    **{name: _by_pytorch(name) for name in ("mm", "bmm", "addmm", "baddbmm", "convolution", "_convolution")},
    **dict.fromkeys(("mv", "dot", "vdot", "addmv"), _times_vector),
    **dict.fromkeys(
        (
            "_scaled_dot_product_attention_math_for_mps",
            "_scaled_dot_product_cudnn_attention",
            "_scaled_dot_product_efficient_attention",
            "_scaled_dot_product_flash_attention",
            "_scaled_dot_product_flash_attention_for_cpu",
            "_scaled_dot_product_fused_attention_overrideable",
        ),
        _attention,
    ),
    "tokbench::received": _received,
    "tokbench::group_sum": _all_elements,
    "tokbench::uniform": lambda *inputs, **options: 0,
    **dict.fromkeys(("_cdist_forward", "_euclidean_dist"), _distances),
    **dict.fromkeys(("sum", "nansum", "mean", "cumsum", "norm", "linalg_vector_norm"), _all_elements),
    **dict.fromkeys(("std", "std_mean", "var", "var_mean"), _both_sums),
    "index_add": _index_add,
    "scatter_add": _scatter_add,
    **dict.fromkeys(("scatter", "scatter_reduce"), _scatter),
    **dict.fromkeys(("_embedding_bag", "_embedding_bag_forward_only"), _embedding_bag),
    **dict.fromkeys(("index_put", "_index_put_impl", "_unsafe_index_put"), _index_put),
    "segment_reduce": _segment_reduce,
}
