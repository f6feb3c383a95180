"""Clustering of the tokens of each image, on the tokens' device and without host synchronisation.

Each image of a batch is clustered independently. The squared distances d_ij = |f_i - f_j|² between an image's points
are computed once, by one matrix product; everything else is sums and comparisons of rows of d.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from tokbench.ops.distances import (
    argmin_per_cluster,
    best_members,
    distances_between,
    least,
    own,
    row_sums,
    rows,
    sums,
    to_medoids,
    wide,
)
from tokbench.token_groups import gather_rows


def kmeans(f: Tensor, weight: Tensor, start: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Cluster points by Lloyd's algorithm.

    With s_i = w_i / Σ_{j∈k} w_j, a point's distance to the centre c_k = Σ_{j∈k} s_j f_j follows from d alone:

        |f_i - c_k|² = Σ_{j∈k} s_j d_ij - ½ Σ_{i,j∈k} s_i s_j d_ij

    An empty cluster takes the point with the largest weighted distance to its centre, so the objective still falls.

    Args:
        f: (B, N, D) points.
        weight: (B, N) their weights, positive.
        start: (B, K) indices of the points that are the first centres, distinct in each row.
        iterations: Rounds of assignment and update, at least 1.

    Returns:
        (B, N) the cluster of each point, where no cluster is empty, and (B, K, D) the clusters' weighted means, in
        float32 or wider.
    """
    count = start.shape[1]
    f = wide(f)
    weight = weight.to(f.dtype)
    between = distances_between(f)

    def assign(to_centre: Tensor) -> tuple[Tensor, Tensor]:
        distance, owner = least(to_centre)
        owner = _fill_empty(owner, weight * distance, count)
        return owner, sums(weight, owner, count)[..., None]

    owner, mass = assign(rows(between, start))
    between.mul_(weight[..., None])
    for _ in range(iterations - 1):
        to_members = row_sums(between, owner, count)
        spread = sums(weight * own(to_members, owner), owner, count)[..., None] / mass.square()
        owner, mass = assign(torch.addcdiv(-spread / 2, to_members, mass))
    share = weight / mass[..., 0].gather(1, owner)
    return owner, row_sums(f * share[..., None], owner, count)


def kmedoids(f: Tensor, weight: Tensor, start: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Cluster points around medoids, which are points themselves.

    Each round assigns every point to its nearest medoid, then moves each medoid to the member with the lowest cost for
    its cluster, Σ_{i∈k} w_i d_ij.

    Args:
        f: (B, N, D) points.
        weight: (B, N) their weights, positive.
        start: (B, K) indices of the points that are the first medoids, distinct in each row.
        iterations: Rounds.

    Returns:
        (B, N) the cluster of each point, where no cluster is empty, and (B, K, D) the clusters' medoids.
    """
    between = distances_between(f)
    weight = weight.to(between.dtype)
    medoids = start
    for _ in range(iterations):
        _, owner = to_medoids(between, medoids)
        medoids = best_members(between, weight, owner, start.shape[1])
    return to_medoids(between, medoids)[1], gather_rows(f, medoids)


def farthest_first(f: Tensor, count: int, first: Literal["central", "isolated"] = "central") -> Tensor:
    """Choose points far from each other: after the first, always the one farthest from the chosen.

    Args:
        f: (B, N, D) points.
        count: K.
        first: The first point: `central`, the one nearest the mean; `isolated`, the one farthest from its nearest
            neighbour. Of equal points, the earlier.

    Returns:
        (B, K) indices, distinct in each row.
    """
    f = wide(f)
    between = distances_between(f)
    if first == "central":
        start = (f - f.mean(dim=1, keepdim=True)).square().sum(dim=2).argmin(dim=1, keepdim=True)
    else:
        between.diagonal(dim1=1, dim2=2).fill_(torch.inf)  # no point is its own neighbour
        start = between.amin(dim=2).argmax(dim=1, keepdim=True)
    between.diagonal(dim1=1, dim2=2).fill_(-1)  # a chosen point's gap, so that it is not chosen again
    chosen = [start]
    gap = torch.full_like(between[:, 0], torch.inf)
    for _ in range(count - 1):
        gap = torch.minimum(gap, rows(between, chosen[-1])[:, 0])
        chosen.append(gap.argmax(dim=1, keepdim=True))
    return torch.cat(chosen, dim=1)


def nearest_members(f: Tensor, owner: Tensor, centres: Tensor) -> Tensor:
    """The member of each cluster that is nearest to the cluster's centre.

    Args:
        f: (B, N, D) points.
        owner: (B, N) the cluster of each point; no cluster may be empty.
        centres: (B, K, D).

    Returns:
        (B, K) indices of points.
    """
    gap = (wide(f) - gather_rows(centres, owner)).square().sum(dim=2)
    return argmin_per_cluster(gap, owner, centres.shape[1])


def _fill_empty(owner: Tensor, loss: Tensor, count: int) -> Tensor:
    """Move one point into each empty cluster: the points with the largest `loss` (B, N). Returns the clusters (B, N).

    The first point of every cluster stays, so that no cluster is emptied to fill another one.
    """
    batch, n = owner.shape
    position = torch.arange(n, device=owner.device).expand_as(owner)
    first = owner.new_full((batch, count), n).scatter_reduce_(1, owner, position, "amin")
    staying = first.gather(1, owner) == position
    worst = loss.masked_fill(staying, -torch.inf).argsort(dim=1, descending=True, stable=True)
    filled = first < n
    turn = (~filled).cumsum(dim=1).sub_(1).clamp_min_(0)
    moved = worst.gather(1, turn).masked_fill_(filled, n)  # n: an extra column for writes to be ignored
    return pad(owner, (0, 1)).scatter_(1, moved, position[:, :count])[:, :n]
