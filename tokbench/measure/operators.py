"""What each operator of a traced model counts as.

One MAC is one multiply-accumulate of a matrix product, a convolution, an attention product, a distance or a sum over
tokens or channels (weighted or not, scattered or not). Normalisation, softmax, activations and other element-wise
work count nothing, comparisons (top-k, sort, argmin) nothing, and moving data nothing: their price shows in the time.
An operator on none of these lists is an error, never a silent zero.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from fvcore.nn.jit_handles import einsum_flop_jit, get_shape

Handle = Callable[[list[Any], list[Any]], float]


def _shape(value: Any) -> list[int]:
    return list(get_shape(value) or ())


def _size(value: Any) -> int:
    return math.prod(_shape(value))


def _product(a: int) -> Handle:
    """A product of matrices, of which operand `a` is the left one: each output sums over its last dimension."""
    return lambda inputs, outputs: _size(outputs[0]) * _shape(inputs[a])[-1]


def _convolution(inputs: list[Any], outputs: list[Any]) -> float:
    weight = _shape(inputs[1])
    transposed = inputs[6].toIValue()
    positions = _size(inputs[0]) if transposed else _size(outputs[0])
    return positions * math.prod(weight) / weight[0]


def _attention(inputs: list[Any], outputs: list[Any]) -> float:
    """Both products of fused attention, q·k and weights·v."""
    query, key, value = (_shape(tensor) for tensor in inputs[:3])
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _sum_of(argument: int) -> Handle:
    """One addition for each element of an argument."""
    return lambda inputs, outputs: _size(inputs[argument])


def _scatter_reduce(inputs: list[Any], outputs: list[Any]) -> float:
    return _size(inputs[3]) if inputs[4].toIValue() in ("sum", "mean") else 0


def _index_put(inputs: list[Any], outputs: list[Any]) -> float:
    return _size(inputs[2]) if inputs[3].toIValue() else 0


COUNTED: dict[str, Handle] = {
    "linear": _product(0),
    "matmul": _product(0),
    "mm": _product(0),
    "bmm": _product(0),
    "mv": _product(0),
    "dot": _product(0),
    "addmm": _product(1),
    "baddbmm": _product(1),
    "einsum": einsum_flop_jit,
    "_convolution": _convolution,
    "scaled_dot_product_attention": _attention,
    "cdist": _product(0),
    "sum": _sum_of(0),
    "mean": _sum_of(0),
    "cumsum": _sum_of(0),
    "index_add": _sum_of(3),
    "scatter_add": _sum_of(3),
    "scatter_reduce": _scatter_reduce,
    "index_put": _index_put,
    "segment_reduce": _sum_of(0),
}

ELEMENTWISE = frozenset(
    """
    abs add addcdiv addcmul bitwise_and bitwise_not bitwise_or bitwise_xor __and__ __or__ __xor__ __rshift__ __lshift__
    bitwise_left_shift bitwise_right_shift ceil clamp clamp_max clamp_min cos div dropout elu erf exp expm1 floor
    floor_divide fmod frac gelu layer_norm leaky_relu lerp linalg_norm linalg_vector_norm log log1p log_softmax
    logaddexp logical_and logical_not logical_or logical_xor logsumexp mul nan_to_num neg norm normalize pow prod
    reciprocal relu remainder rms_norm round rsqrt rsub sigmoid sign silu sin softmax softplus sqrt square std std_mean
    sub tan tanh trunc var var_mean xlogy hardtanh hardswish mish
    """.split()
)

COMPARISON = frozenset(
    """
    all amax amin any argmax argmin argsort bincount bucketize count_nonzero cummax cummin eq fmax fmin ge gt isfinite
    isinf isnan kthvalue le lt masked_fill max maximum median min minimum msort ne nonzero searchsorted sort topk
    unique_consecutive where _unique2
    """.split()
)

MOVEMENT = frozenset(
    """
    Int Bool Float ScalarImplicit NumToTensor alias arange as_strided broadcast_tensors cat chunk clone constant_pad_nd
    contiguous copy detach diag diag_embed diagonal empty empty_like expand expand_as eye fill flatten flip full
    full_like gather index index_copy index_fill index_select lift_fresh linspace masked_scatter masked_select meshgrid
    mT moveaxis movedim narrow new_empty new_full new_ones new_zeros numpy_T one_hot ones ones_like pad permute
    repeat repeat_interleave reshape reshape_as resolve_conj roll scalar_tensor scatter select size slice split
    split_with_sizes squeeze stack swapaxes t take_along_dim tensor_split tile to transpose tril triu type_as unbind
    unflatten unfold unsqueeze view view_as zero zeros zeros_like matrix_H adjoint
    """.split()
)


def handles() -> dict[str, Handle | None]:
    """Every known operator by its traced name, in place or not: how to count it, or None where it counts nothing."""
    free = dict.fromkeys(ELEMENTWISE | COMPARISON | MOVEMENT)
    known: dict[str, Handle | None] = {**free, **COUNTED}
    return {f"aten::{name}{suffix}": handle for name, handle in known.items() for suffix in ("", "_")}
