"""Sums over groups on a GPU: the operator against a loop over tokens, and the Triton kernel, interpreted, likewise."""

import json
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor

from tokbench.measure.dispatch import FORMULAS, base_name
from tokbench.token_groups import group_sum, group_sums, summed

Case = tuple[int, int, int, int, torch.dtype]
CASES: tuple[Case, ...] = (  # B, N, D, K
    (2, 70, 20, 9, torch.float32),
    (1, 32, 1, 40, torch.float32),
    (3, 33, 300, 2, torch.float32),
    (2, 1, 256, 1, torch.float16),
    (2, 65, 3, 5, torch.float64),
)


def inputs(case: Case) -> tuple[Tensor, Tensor, int]:
    """Values, as a slice of a wider tensor as patch tokens are, the owner of each, and the number of groups."""
    batch, n, dim, count, dtype = case
    g = torch.Generator().manual_seed(n)
    values = torch.randn(batch, n + 1, dim, generator=g).to(dtype)[:, 1:]
    return values, torch.randint(-1, count, (batch, n), generator=g), count


def by_loop(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """(B, K, D) in float64, one token after another."""
    sums = torch.zeros(values.shape[0], count, values.shape[2], dtype=torch.float64)
    for b in range(owner.shape[0]):
        for i, group in enumerate(owner[b].tolist()):
            if group >= 0:
                sums[b, group] += values[b, i].double()
    return sums


def error(result: Tensor, expected: Tensor) -> float:
    """The largest difference, in roundings of a sum of a few values of about 1 in the result's type."""
    return float((result.double() - expected).abs().max() / 16 / torch.finfo(result.dtype).eps)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_operator_equals_a_loop_over_tokens(case: Case):
    values, owner, count = inputs(case)
    result = summed(values, owner, count)
    assert result.dtype == values.dtype
    assert error(result, by_loop(values, owner, count)) < 1
    assert torch.equal(group_sum(values, owner, count), result)


def test_sums_of_the_same_groups_are_those_of_each():
    values, owner, count = inputs(CASES[0])
    together = group_sums([values, values[..., :1], -values], owner, count)
    for sums, each in zip(together, (values, values[..., :1], -values), strict=True):
        assert torch.equal(sums, group_sum(each, owner, count))


def test_compiler_counter_and_gradients_see_one_operator():
    values, owner, count = inputs((2, 7, 3, 4, torch.float64))
    torch.library.opcheck(summed, (values.contiguous().requires_grad_(), owner, count))
    assert torch.autograd.gradcheck(lambda values: summed(values, owner, count), values.requires_grad_())


def test_it_counts_as_what_it_consists_of():
    values, owner, count = inputs(CASES[0])
    zeros = values.new_zeros(count, values.shape[2])
    parts = FORMULAS[base_name(torch.ops.aten.index_add.default)](
        zeros.expand(2, *zeros.shape), zeros.repeat(2, 1), 0, owner.flatten(), values.flatten(0, 1)
    )
    assert FORMULAS["tokbench::group_sum"](summed(values, owner, count), values, owner, count) == parts


def interpreted() -> None:
    """Print the error of the interpreted kernel in each case."""
    from tokbench import group_kernel

    errors = {}
    for case in CASES:
        result = group_kernel.group_sums(*inputs(case))
        errors[str(case)] = error(result, by_loop(*inputs(case)))
    print(json.dumps(errors))


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton comes with torch's CUDA builds only")
def test_the_kernel_equals_a_loop_over_tokens(run_interpreted: Callable[[str], str]):
    printed = run_interpreted(__file__)
    errors = json.loads(printed)
    assert set(errors) == set(map(str, CASES))
    assert max(errors.values()) < 1, errors


if __name__ == "__main__":
    interpreted()
