"""The attention received: the operator, and the Triton kernel, interpreted, against a loop over queries in float64."""

import json
import math
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from tokbench.measure.dispatch import FORMULAS
from tokbench.vit.attention import AttentionProbe, Heads, received

BATCH, HEADS = 3, 2


def inputs(
    n: int, width: int, prefix: int, dtype: torch.dtype, biased: bool, padded: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """q, k (strided as a model's are), bias and valid."""
    g = torch.Generator().manual_seed(n)
    qkv = torch.randn(BATCH, n, 3, HEADS, width, generator=g).to(dtype).permute(2, 0, 3, 1, 4)
    bias = torch.randn(BATCH, 1, 1, n, generator=g).to(dtype) if biased or padded else None
    valid = torch.rand(BATCH, n - prefix, generator=g) > 0.4 if padded else None
    if bias is not None and valid is not None:
        bias[:, 0, 0, prefix:] = bias[:, 0, 0, prefix:].masked_fill(~valid, -math.inf)
    return qkv[0], qkv[1], bias, valid


def by_loop(q: Tensor, k: Tensor, bias: Tensor | None, valid: Tensor | None, scale: float, prefix: int) -> Tensor:
    """(B, N) in float64, one query after another."""
    total = torch.zeros(q.shape[0], q.shape[2], dtype=torch.float64)
    for b in range(q.shape[0]):
        for i in range(q.shape[2]):
            if valid is not None and i >= prefix and not valid[b, i - prefix]:
                continue
            for h in range(q.shape[1]):
                logits = scale * (k[b, h].double() @ q[b, h, i].double())
                total[b] += (logits if bias is None else logits + bias[b, 0, 0].double()).softmax(dim=0)
    return total[:, prefix:]


Case = tuple[int, int, int, torch.dtype, bool, bool]


def called(case: Case) -> str:
    n, width, prefix, dtype, biased, padded = case
    return f"n={n},width={width},prefix={prefix},{str(dtype)[6:]}{',bias' * biased}{',padding' * padded}"


CASES: tuple[Case, ...] = (
    (70, 20, 1, torch.float32, False, False),
    (65, 16, 0, torch.float32, True, False),
    (130, 8, 2, torch.float32, False, True),
    (64, 20, 1, torch.float32, True, True),
    (70, 20, 1, torch.float16, True, True),
    (3, 5, 1, torch.float16, False, False),
    (65, 64, 1, torch.float32, True, False),
    (71, 72, 0, torch.float16, False, False),
    (129, 80, 5, torch.float16, True, True),
)


@pytest.mark.parametrize("case", CASES, ids=called)
def test_the_operator_equals_a_loop_over_queries(case: Case):
    q, k, bias, valid = inputs(*case)
    scale, prefix = q.shape[3] ** -0.5, case[2]
    result = received(q, k, bias, valid, scale, prefix)
    assert result.dtype == torch.float32
    expected = by_loop(q, k, bias, valid, scale, prefix)
    assert torch.allclose(result.double(), expected, rtol=1e-5 if q.dtype == torch.float32 else 1e-2)


def test_gradients_flow_if_they_are_needed():
    q, k, bias, valid = inputs(9, 4, 1, torch.float32, True, True)
    q.requires_grad_()
    probe = AttentionProbe(frozenset({"received"}))
    learning = probe(Heads(q, k, k, 0.5, bias, None), 1, valid)["received"]
    with torch.no_grad():
        fixed = probe(Heads(q, k, k, 0.5, bias, None), 1, valid)["received"]
    assert torch.allclose(learning, fixed)
    learning.square().sum().backward()
    assert q.grad is not None
    assert q.grad.abs().sum() > 0


def test_compiler_and_counter_see_one_operator():
    q, k, bias, valid = inputs(9, 4, 1, torch.float16, True, True)
    arguments = (q, k, bias, valid, 0.5, 1)
    torch.library.opcheck(received, arguments, test_utils=("test_schema", "test_faketensor"))
    counted = FORMULAS["tokbench::received"](received(*arguments), *arguments)
    assert counted == BATCH * HEADS * 9 * (9 * 4 + 8)


def interpreted() -> None:
    """Print the relative difference between the interpreted kernel and the loop, for each case."""
    from tokbench.vit import kernels

    errors = {}
    for case in CASES:
        q, k, bias, valid = inputs(*case)
        result = kernels.received(q, k, bias, valid, q.shape[3] ** -0.5, case[2])
        expected = by_loop(q, k, bias, valid, q.shape[3] ** -0.5, case[2])
        errors[called(case)] = float((result - expected).abs().max() / expected.abs().max())
    print(json.dumps(errors))


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton comes with torch's CUDA builds only")
def test_the_interpreted_kernel_equals_a_loop_over_queries(run_interpreted: Callable[[str], str]):
    # The interpreter does not support bfloat16.
    printed = run_interpreted(__file__)
    errors = json.loads(printed)
    assert set(errors) == set(map(called, CASES))
    assert max(errors.values()) < 1e-6, errors


if __name__ == "__main__":
    interpreted()
