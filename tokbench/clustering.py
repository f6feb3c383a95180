"""Clustering the tokens of each image of a batch, on its device and without waiting for it.

Every function treats the images of a batch alike and apart. Squared distances come out of one matrix product.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tokbench.tokens import gather_rows, group_sum


def kmeans(f: Tensor, weight: Tensor, start: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Cluster points (B, N, D) of weight (B, N) by Lloyd's algorithm from the points at `start` (B, K).

    Returns:
        (B, N) the cluster of each point, none empty, and (B, K, D) the clusters' weighted means.
    """
    count = start.shape[1]
    centres = gather_rows(f, start)
    for _ in range(iterations):
        distance, owner = squared_distances(f, centres).min(dim=2)
        owner = _fill_empty(owner, weight * distance, count)
        mass = group_sum(weight[..., None], owner, count)
        centres = group_sum(weight[..., None] * f, owner, count) / mass
    return owner, centres


def kmedoids(f: Tensor, weight: Tensor, start: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Cluster points (B, N, D) of weight (B, N) around points of their own, from those at `start` (B, K).

    Returns:
        (B, N) the cluster of each point, none empty, and (B, K, D) the clusters' medoids.
    """
    count = start.shape[1]
    distance = squared_distances(f, f)
    distance.diagonal(dim1=1, dim2=2).zero_()

    def assign(medoids: Tensor) -> Tensor:
        nearest = gather_rows(distance, medoids).argmin(dim=1)
        # A medoid stays in its own cluster even where another has the same vector, so that none comes out empty.
        return nearest.scatter(1, medoids, torch.arange(count, device=f.device).expand_as(medoids))

    medoids = start
    for _ in range(iterations):
        owner = assign(medoids)
        together = owner[:, :, None] == owner[:, None, :]
        cost = (distance * together) @ weight[..., None].to(f.dtype)
        medoids = _members(owner, count, cost.mT).argmin(dim=2)
    return assign(medoids), gather_rows(f, medoids)


def farthest_first(f: Tensor, count: int) -> Tensor:
    """(B, K) indices: the point of (B, N, D) nearest the mean, then each time the one farthest from those chosen."""
    distance = squared_distances(f, f)
    chosen = [f.square().sum(dim=2).argmin(dim=1, keepdim=True)]
    gap = torch.full_like(distance[:, 0], torch.inf)
    for _ in range(count - 1):
        gap = torch.minimum(gap, gather_rows(distance, chosen[-1])[:, 0]).scatter(1, chosen[-1], -1.0)
        chosen.append(gap.argmax(dim=1, keepdim=True))
    return torch.cat(chosen, dim=1)


def _fill_empty(owner: Tensor, loss: Tensor, count: int) -> Tensor:
    """Give each empty cluster a point of its own, of those whose `loss` (B, N) is largest where they are (B, N).

    The first point of every cluster stays, so that no cluster is emptied to fill another.
    """
    batch, n = owner.shape
    position = torch.arange(n, device=owner.device).expand_as(owner)
    first = torch.full((batch, count), n, device=owner.device).scatter_reduce(1, owner, position, "amin")
    empty = first == n
    staying = first.gather(1, owner) == position
    worst = loss.masked_fill(staying, -torch.inf).argsort(dim=1, descending=True, stable=True)
    turn = (empty.cumsum(dim=1) - 1).clamp_min(0)
    moved = torch.where(empty, worst.gather(1, turn), n)  # n: a column for the writes that are not meant
    cluster = torch.arange(count, device=owner.device).expand_as(moved)
    return torch.nn.functional.pad(owner, (0, 1)).scatter(1, moved, cluster)[:, :n]


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """(B, N, D) and (B, K, D) -> (B, N, K)."""
    norms = a.square().sum(dim=2)[:, :, None] + b.square().sum(dim=2)[:, None]
    return (norms - 2 * (a @ b.mT)).clamp_min(0)


def nearest_members(f: Tensor, owner: Tensor, centres: Tensor) -> Tensor:
    """(B, K) the index of each cluster's point that is nearest to its centre (B, K, D)."""
    return _members(owner, centres.shape[1], squared_distances(centres, f)).argmin(dim=2)


def _members(owner: Tensor, count: int, values: Tensor) -> Tensor:
    """Values (B, 1 or K, N) laid out as (B, K, N), infinite where the point is not in the cluster."""
    cluster = torch.arange(count, device=owner.device)[:, None]
    return torch.where(owner[:, None] == cluster, values, torch.inf)
