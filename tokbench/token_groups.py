"""Sums, means and choices over groups of tokens, in an order that is the same on every device and run."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor


def group_sum(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """Sum the vectors of each group, in an order that is the same on every run.

    Args:
        values: (B, N, D), floating-point.
        owner: (B, N) int64 in [-1, count); -1 means no group.
        count: K.

    Returns:
        (B, K, D).
    """
    return group_sums([values], owner, count)[0]


def group_sums(values: Sequence[Tensor], owner: Tensor, count: int) -> list[Tensor]:
    """Several sums over the same groups, as `group_sum` would compute each; all values are of one type.

    On a GPU all of them are one operator, as a small model's time there is that of launching its kernels. Elsewhere a
    compiler and an exporter see the operators of which each sum consists.
    """
    if not values[0].is_cuda:
        row = _bins(owner, count)
        return [_added_in_order(each, row, count) for each in values]
    if len(values) == 1:
        return [summed(values[0], owner, count)]
    sums = summed(torch.cat(list(values), dim=2), owner, count)
    return list(sums.split([each.shape[2] for each in values], dim=2))


@torch.library.custom_op(
    "tokbench::group_sum", mutates_args=(), schema="(Tensor values, Tensor owner, SymInt count) -> Tensor"
)
def summed(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """What `group_sum` does, as one operator, which a compiler does not replace by additions in random order."""
    if values.is_cuda and values.is_floating_point() and has_triton():
        from tokbench.group_kernel import group_sums  # Triton is not installed without a GPU

        with torch.cuda.device(values.device):
            return group_sums(values, owner, count)
    return summed_by_operators(values, owner, count)


def summed_by_operators(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """The same by PyTorch's operators; what exporters see of it."""
    return _added_in_order(values, _bins(owner, count), count).contiguous()


@cache
def has_triton() -> bool:
    """Whether Triton is installed, which comes with PyTorch's builds for GPUs."""
    return find_spec("triton") is not None


@summed.register_fake
def _(values: Tensor, owner: Tensor, count: int) -> Tensor:
    return values.new_empty(values.shape[0], count, values.shape[2])


def _keep_owner(ctx: Any, inputs: tuple[Tensor, Tensor, int], output: Tensor) -> None:
    ctx.save_for_backward(inputs[1])


def _to_members(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
    """Each member's gradient is that of its group's sum; without a group it is 0."""
    (owner,) = ctx.saved_tensors
    return gather_rows(gradient, owner.clamp_min(0)).masked_fill((owner < 0)[..., None], 0), None, None


summed.register_autograd(_to_members, setup_context=_keep_owner)


def _bins(owner: Tensor, count: int) -> Tensor:
    """(B·N,), the place of each vector's sum among those of the batch: K of each image, then one for the groupless."""
    first = torch.arange(owner.shape[0], device=owner.device)[:, None] * (count + 1)
    return (torch.where(owner < 0, count, owner) + first).reshape(-1)


def _added_in_order(values: Tensor, row: Tensor, count: int) -> Tensor:
    """Sum by PyTorch's operators: on a CPU, `index_add` adds in order; on CUDA, `index_put` sorts first."""
    batch, _, dim = values.shape
    flat = values.reshape(-1, dim)
    zeros = flat.new_zeros(batch * (count + 1), dim)
    added = zeros.index_put((row,), flat, accumulate=True) if values.is_cuda else zeros.index_add(0, row, flat)
    return added.view(batch, count + 1, dim)[:, :count]


def group_mean(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """The mean vector of each group, (B, K, D); 0 for a group without members. Arguments as in `group_sum`."""
    sums, members = group_sums([values, torch.ones_like(values[..., :1])], owner, count)
    return sums / members.clamp_min(1)


def grid_coordinates(grid: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """The row and the column of each patch, (h*w, 2) float32."""
    h, w = grid
    patch = torch.arange(h * w, device=device)
    return torch.stack([patch // w, patch % w], dim=1).to(torch.float32)


def central_patch(owner: Tensor, count: int, grid: tuple[int, int]) -> Tensor:
    """The patch of each token that is nearest to the mean position of its patches; the first of several.

    Args:
        owner: (B, N0) int64 in [-1, count), the token that each image patch is in.
        count: K.
        grid: (h, w), h*w = N0.

    Returns:
        (B, K) int64; any patch for a token without patches.
    """
    place = grid_coordinates(grid, owner.device).expand(owner.shape[0], -1, -1)
    centre = gather_rows(group_mean(place, owner, count), owner.clamp_min(0))
    nearness = -(place - centre).square().sum(dim=2)
    patch = torch.arange(owner.shape[1], device=owner.device).expand_as(owner)
    return of_largest(patch, nearness, owner, count)


def gather_rows(values: Tensor, index: Tensor) -> Tensor:
    """Select vectors by position: `values` (B, N, D) and `index` (B, K) give (B, K, D)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


def of_largest(values: Tensor, size: Tensor, owner: Tensor, count: int) -> Tensor:
    """The value of each group's largest member, the first of several.

    Minima and maxima are the same in whatever order a device computes them.

    Args:
        values: (B, N).
        size: (B, N).
        owner: (B, N) int64 in [-1, count); -1 means no group.
        count: K.

    Returns:
        (B, K); the last of the values for a group without members.
    """
    batch, n = owner.shape
    group = torch.where(owner < 0, count, owner)
    largest = size.new_full((batch, count + 1), -torch.inf).scatter_reduce(1, group, size, "amax")
    place = torch.arange(n, device=owner.device).expand_as(owner)
    candidate = torch.where(size == largest.gather(1, group), place, n - 1)
    first = torch.full_like(largest, n - 1, dtype=torch.int64).scatter_reduce(1, group, candidate, "amin")
    return values.gather(1, first[:, :count])
