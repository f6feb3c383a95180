"""Squared distances between the points of each image, and reductions of them to clusters.

B images of N points, K clusters. No function waits for the device, and none adds in random order.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from tokbench.token_groups import gather_rows, group_sum


def wide(f: Tensor) -> Tensor:
    """Convert to float32, unless the type is wider."""
    return f.to(torch.promote_types(f.dtype, torch.float32))


def distances_between(f: Tensor) -> Tensor:
    """Squared distances between the points (B, N, D): (B, N, N), zero on the diagonal."""
    f = wide(f)
    f = f - f.mean(dim=1, keepdim=True)  # leaves distances unchanged and reduces rounding errors
    product = f @ f.mT
    norm = product.diagonal(dim1=1, dim2=2).clone()
    return (norm[:, :, None] + norm[:, None]).sub_(product, alpha=2).clamp_min_(0)


def rows(between: Tensor, index: Tensor) -> Tensor:
    """The rows `index` (B, K) of `between` (B, N, N): (B, K, N)."""
    if between.is_cuda:
        return gather_rows(between, index)  # one kernel to launch, where the below is four; on a CPU it takes longer
    batch, n, _ = between.shape
    row = index + n * torch.arange(batch, device=index.device)[:, None]
    return between.flatten(0, 1).index_select(0, row.flatten()).view(batch, -1, n)


def least(values: Tensor) -> tuple[Tensor, Tensor]:
    """The smallest value (B, N) in each column of (B, K, N), and its row (B, N): the first of equal ones."""
    if values.is_cuda:
        return values.min(dim=1)
    # On a CPU, `min` takes one value after the other; max-pooling takes many columns at once, in a fifth of the time.
    columns = values.neg()[:, :, None].permute(0, 3, 1, 2)
    largest, row = max_pool2d(columns, (values.shape[1], 1), return_indices=True)
    return largest.flatten(1).neg(), row.flatten(1)


def to_medoids(between: Tensor, medoids: Tensor) -> tuple[Tensor, Tensor]:
    """The distances to the medoids.

    A medoid stays in its own cluster even if another medoid has the same vector, so that no cluster is empty.

    Args:
        between: (B, N, N).
        medoids: (B, K) indices of points.

    Returns:
        (B, K, N) the distances, and (B, N) the cluster of each point: that of the nearest medoid, the first of equals.
    """
    distance = rows(between, medoids)
    own_cluster = torch.arange(medoids.shape[1], device=medoids.device).expand_as(medoids)
    return distance, least(distance)[1].scatter(1, medoids, own_cluster)


def best_members(between: Tensor, weight: Tensor, owner: Tensor, count: int) -> Tensor:
    """The best medoid of each cluster: the member j with the smallest Σ_i w_i d_ij over the members i.

    Args:
        between: (B, N, N).
        weight: (B, N).
        owner: (B, N) the cluster of each point; no cluster may be empty.
        count: K.

    Returns:
        (B, K) indices of points; the first of equally good ones.
    """
    if between.is_cuda:
        together = owner[:, :, None] == owner[:, None]
        return argmin_per_cluster((weight[:, None] @ (together * between))[:, 0], owner, count)
    label = owner.to(between.dtype)
    # Whether two points share a cluster, as 1 and 0: on a CPU, comparing into booleans takes three times as long.
    together = (label[:, :, None] - label[:, None]).eq_(0)
    return argmin_per_cluster((weight[:, None] @ together.mul_(between))[:, 0], owner, count)


def argmin_per_cluster(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """(B, K) the point with the smallest value (B, N) in each cluster; the first of equal ones."""
    if values.is_cuda:  # four kernels instead of seven, which on a CPU are faster than these K·N values
        cluster = torch.arange(count, device=owner.device)[:, None]
        finite = values.clamp_max(torch.finfo(values.dtype).max)  # a member, even if all members have infinity
        return finite[:, None].masked_fill(owner[:, None] != cluster, torch.inf).argmin(dim=2)
    batch, n = values.shape
    smallest = values.new_full((batch, count), torch.inf).scatter_reduce_(1, owner, values, "amin")
    position = torch.arange(n, device=values.device)
    first = torch.add(position, values != smallest.gather(1, owner), alpha=n)
    return owner.new_full((batch, count), n).scatter_reduce_(1, owner, first, "amin")


def own(values: Tensor, owner: Tensor) -> Tensor:
    """The entries of (B, K, N) for each point and its own cluster: (B, N)."""
    return values.gather(1, owner[:, None])[:, 0]


def sums(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """(B, N) -> (B, K), the sum over each cluster, added in the same order on every run."""
    if values.is_cuda:
        return group_sum(values[..., None], owner, count)[..., 0]
    return values.new_zeros(len(values), count).scatter_add_(1, owner, values)


def row_sums(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """(B, N, D) -> (B, K, D), the sum over each cluster, added in the same order on every run."""
    if values.is_cuda:
        return group_sum(values, owner, count)
    batch, _, dim = values.shape
    row = owner + count * torch.arange(batch, device=owner.device)[:, None]
    zeros = values.new_zeros(batch * count, dim)
    return zeros.scatter_add_(0, row.view(-1, 1).expand(-1, dim), values.flatten(0, 1)).view(batch, count, dim)
