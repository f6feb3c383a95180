"""Sums, means and choices over groups of tokens, in an order that is the same on every device and run."""

from __future__ import annotations

import torch
from torch import Tensor


def group_sum(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """Sum the vectors of each group.

    The order of the additions is fixed on every device: on a CPU, `index_add` adds in order; on CUDA, `index_put` with
    `accumulate=True` sorts first, while `scatter_add` would add in random order.

    Args:
        values: (B, N, D).
        owner: (B, N) int64 in [-1, count); -1 means no group.
        count: K.

    Returns:
        (B, K, D).
    """
    batch, _, dim = values.shape
    bins = count + 1  # the last bin collects vectors without a group
    row = torch.where(owner < 0, count, owner) + torch.arange(batch, device=owner.device)[:, None] * bins
    flat = values.reshape(-1, dim)
    zeros = flat.new_zeros(batch * bins, dim)
    if values.is_cuda:
        summed = zeros.index_put((row.reshape(-1),), flat, accumulate=True)
    else:
        summed = zeros.index_add(0, row.reshape(-1), flat)
    return summed.view(batch, bins, dim)[:, :count]


def group_mean(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """The mean vector of each group, (B, K, D); 0 for a group without members. Arguments as in `group_sum`."""
    members = group_sum(torch.ones_like(values[..., :1]), owner, count)
    return group_sum(values, owner, count) / members.clamp_min(1)


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
