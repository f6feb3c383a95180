"""The counting convention: what each operator counts as, and fvcore handles that count a traced model.

One MAC is one multiply-accumulate of a matrix product, a convolution, an attention product, a distance or a sum over
tokens or channels (weighted or not, scattered or not). A norm counts as its sum, a variance as two sums. Normalisation
layers, softmax, activations and other element-wise work count as zero, and so do comparisons (top-k, sort, argmin) and
data movement: their cost shows in the measured time. An operator on none of these lists is an error, not a silent zero.

All counting code (`macs`, `dispatch`, `ledger`) follows this convention; docs/counting.md describes how other tools
differ from it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from fvcore.nn.jit_handles import einsum_flop_jit, get_shape

Handle = Callable[[list[Any], list[Any]], float]


class CountError(RuntimeError):
    """MACs cannot be counted; the message names the unknown operator or the counts that disagree."""


@dataclass(frozen=True)
class Shares:
    """MACs by operator.

    Attributes:
        backbone: Those of the ViT.
        method: Those of the downsampler, including the computation of the context that it requests.
    """

    backbone: Counter[str]
    method: Counter[str]


def refuse_unknown(names: Collection[str], route: str) -> None:
    """Raise an error if any operator is unknown.

    Args:
        names: Operators that ran and are not on any list.
        route: The counter that found them, for the message.

    Raises:
        CountError: `names` is not empty.
    """
    if names:
        raise CountError(
            f"operator {min(names)} ({route}) is not on the lists of counted, element-wise and comparison operators, "
            "so its MACs are unknown; use another operator, or add this one to tokbench/measure"
        )


def _shape(value: Any) -> list[int]:
    return list(get_shape(value) or ())


def _size(value: Any) -> int:
    return math.prod(_shape(value))


def _product(a: int) -> Handle:
    """A matrix product whose left operand is input `a`: each output sums over that operand's last dimension."""
    return lambda inputs, outputs: _size(outputs[0]) * _shape(inputs[a])[-1]


def _convolution(inputs: list[Any], outputs: list[Any]) -> float:
    weight = _shape(inputs[1])
    transposed = inputs[6].toIValue()
    positions = _size(inputs[0]) if transposed else _size(outputs[0])
    return positions * math.prod(weight) / weight[0]


def _attention(inputs: list[Any], outputs: list[Any]) -> float:
    """The two products of fused attention, q·k and weights·v."""
    query, key, value = (_shape(tensor) for tensor in inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _received(inputs: list[Any], outputs: list[Any]) -> float:
    """q·k for each pair, and the sum over heads and queries; counted once even if a kernel recomputes logits."""
    *heads, width = _shape(inputs[0])
    return math.prod(heads) * heads[-1] * width + math.prod(heads[1:]) * _size(outputs[0])


def _sum_of(argument: int, times: int = 1) -> Handle:
    """One or more additions for each element of an argument."""
    return lambda inputs, outputs: times * _size(inputs[argument])


def _cosine_similarity(inputs: list[Any], outputs: list[Any]) -> float:
    """Two norms, and one product for each pair that results from broadcasting."""
    a, b = _shape(inputs[0]), _shape(inputs[1])
    width = (a if len(a) >= len(b) else b)[int(inputs[2].toIValue())]
    return _size(inputs[0]) + _size(inputs[1]) + _size(outputs[0]) * width


def _einsum(inputs: list[Any], outputs: list[Any]) -> float:
    """Two operands: the product of all index sizes, or 0 if no index is summed over. Other cases are left to fvcore."""
    left, _, right = inputs[0].toIValue().replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != 2 or "." in left or not right:
        return float(einsum_flop_jit(inputs, outputs))
    shapes = [get_shape(operand) for operand in inputs[1].node().inputs()]
    sizes = {
        index: size for term, shape in zip(terms, shapes, strict=True) for index, size in zip(term, shape, strict=True)
    }
    summed = set(sizes) - set(right)
    return float(math.prod(sizes.values()) if summed else 0)


def _scatter(inputs: list[Any], outputs: list[Any]) -> float:
    """`scatter` and `scatter_reduce`: one addition per index if they add."""
    reduction = inputs[4].toIValue() if len(inputs) > 4 else None
    return _size(inputs[2]) if reduction in ("sum", "mean", "add") else 0


def _segment_reduce(inputs: list[Any], outputs: list[Any]) -> float:
    return _size(inputs[0]) if inputs[1].toIValue() in ("sum", "mean") else 0


def _embedding_bag(inputs: list[Any], outputs: list[Any]) -> float:
    """One addition of a row per index, weighted or not."""
    return _size(inputs[1]) * _shape(inputs[0])[-1]


def _index_put(inputs: list[Any], outputs: list[Any]) -> float:
    return _size(inputs[2]) if inputs[3].toIValue() else 0


COUNTED: dict[str, Handle] = {
    **dict.fromkeys(("linear", "matmul", "mm", "bmm", "mv", "dot", "vdot", "inner"), _product(0)),
    **dict.fromkeys(("addmm", "baddbmm", "addmv"), _product(1)),
    "einsum": _einsum,
    "_convolution": _convolution,
    "scaled_dot_product_attention": _attention,
    "cdist": _product(0),
    "cosine_similarity": _cosine_similarity,
    **dict.fromkeys(("sum", "nansum", "mean", "cumsum", "norm", "linalg_norm", "linalg_vector_norm"), _sum_of(0)),
    **dict.fromkeys(("std", "std_mean", "var", "var_mean"), _sum_of(0, times=2)),
    "index_add": _sum_of(3),
    "scatter_add": _sum_of(2),
    **dict.fromkeys(("scatter", "scatter_reduce"), _scatter),
    "embedding_bag": _embedding_bag,
    "index_put": _index_put,
    "segment_reduce": _segment_reduce,
}

ELEMENTWISE = frozenset(
    """
    abs add addcdiv addcmul batch_norm bitwise_and bitwise_not bitwise_or bitwise_xor __and__ __or__ __xor__ __rshift__
    __lshift__ __iand__ __ior__ __ixor__ bitwise_left_shift bitwise_right_shift ceil clamp clamp_max clamp_min cos div
    dropout elu erf exp expm1 floor floor_divide fmod frac gelu group_norm layer_norm leaky_relu lerp log log1p
    log_softmax logaddexp logical_and logical_not logical_or logical_xor logsumexp mul nan_to_num neg outer pow prod
    reciprocal relu remainder rms_norm round rsqrt rsub sigmoid sign silu sin softmax softplus sqrt square sub tan tanh
    trunc xlogy hardtanh hardswish mish
    """.split()
)

COMPARISON = frozenset(
    """
    all amax amin aminmax any argmax argmin argsort bincount bucketize count_nonzero cummax cummin eq fmax fmin ge
    gt isfinite isinf isnan kthvalue le lt masked_fill max max_pool2d_with_indices maximum median min minimum msort
    ne nonzero searchsorted sort topk unique_consecutive where _unique2
    """.split()
)

MOVEMENT = frozenset(
    """
    Int Bool Float ScalarImplicit NumToTensor alias arange as_strided broadcast_tensors cat chunk clone
    constant_pad_nd contiguous copy detach diag diag_embed diagonal empty empty_like expand expand_as eye fill
    flatten flip full full_like gather index index_copy index_fill index_select lift_fresh linspace masked_scatter
    masked_select meshgrid mT moveaxis movedim narrow numel new_empty new_full new_ones new_zeros numpy_T one_hot
    ones ones_like pad permute repeat repeat_interleave reshape reshape_as resolve_conj resolve_neg roll
    scalar_tensor select size slice split split_with_sizes squeeze stack swapaxes t take_along_dim tensor_split tile
    to transpose tril triu type_as unbind unflatten unfold unsqueeze view view_as zero zeros zeros_like matrix_H
    adjoint
    """.split()
)


def handles() -> dict[str, Handle | None]:
    """How to count each known operator, by its name in a trace (in-place or not); None if it counts as zero."""
    free = dict.fromkeys(ELEMENTWISE | COMPARISON | MOVEMENT)
    known: dict[str, Handle | None] = {**free, **COUNTED}
    traced = {f"aten::{name}{suffix}": handle for name, handle in known.items() for suffix in ("", "_")}
    return {**traced, "tokbench::received": _received, "tokbench::group_sum": _sum_of(0), "tokbench::uniform": None}
