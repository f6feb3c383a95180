"""Clustering the tokens of each image of a batch, on its device and without waiting for it.

Every function treats the images of a batch alike and apart. The squared distances d_ij = |f_i - f_j|² between an
image's points come out of one matrix product, once; the rest is sums and comparisons of rows of d.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from tokbench.tokens import gather_rows


def kmeans(f: Tensor, weight: Tensor, start: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Cluster points by Lloyd's algorithm.

    With s_i = w_i / Σ_{j∈k} w_j, a point's distance to the centre c_k = Σ_{j∈k} s_j f_j needs no centre:

        |f_i - c_k|² = Σ_{j∈k} s_j d_ij - ½ Σ_{i,j∈k} s_i s_j d_ij

    A cluster that comes out empty takes over the point that is worst off, so that the objective falls all the same.

    Args:
        f: (B, N, D) points.
        weight: (B, N) their weights, positive.
        start: (B, K) which points are the first centres, distinct in each row.
        iterations: Rounds of assignment and update, at least 1.

    Returns:
        (B, N) the cluster of each point, none empty, and (B, K, D) the clusters' weighted means, in float32 at least.
    """
    count = start.shape[1]
    f = _wide(f)
    weight = weight.to(f.dtype)
    between = _distances_between(f)

    def assign(to_centre: Tensor) -> tuple[Tensor, Tensor]:
        distance, owner = to_centre.min(dim=1)
        owner = _fill_empty(owner, weight * distance, count)
        return owner, weight / _sums(weight, owner, count).gather(1, owner)

    owner, share = assign(_rows(between, start))
    for _ in range(iterations - 1):
        to_members = _weighted_sums(between, share, owner, count)
        spread = _sums(share * _own(to_members, owner), owner, count)
        owner, share = assign(to_members.sub_(spread[..., None] / 2))
    return owner, _weighted_sums(f, share, owner, count)


def kmedoids(f: Tensor, weight: Tensor, start: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Cluster points around points of their own.

    A round swaps medoids for points elsewhere, then moves each medoid to where its cluster costs least. The moves
    alone end far from the best medoids wherever most clusters have one or two members.

    Args:
        f: (B, N, D) points.
        weight: (B, N) their weights, positive.
        start: (B, K) which points are the first medoids, distinct in each row.
        iterations: Rounds.

    Returns:
        (B, N) the cluster of each point, none empty, and (B, K, D) the clusters' medoids.
    """
    count = start.shape[1]
    between = _distances_between(f)
    weight = weight.to(between.dtype)
    medoids = start
    most = torch.full_like(start[:, :1], count)
    for turn in range(iterations):
        # At first a medoid may be far from most points, and one newcomer would hold off all others.
        reach = 1.0 if turn else 0.0
        medoids, owner, most = _swap(between, weight, medoids, most, reach)
        cost = _own(_weighted_sums(between, weight, owner, count), owner)
        medoids = _least_of_each(cost, owner, count)
    return _nearest(between, medoids)[1], gather_rows(f, medoids)


def _swap(
    between: Tensor, weight: Tensor, medoids: Tensor, most: Tensor, reach: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Swap medoids (B, K) for other points, at most `most` (B, 1) of an image, where that lowers its objective.

    A point c that comes as one medoid more, and a cluster k left to its members' second choices, change the objective
    by -gain_c and loss_k, and both together by loss_k - gain_c at most:

        gain_c = Σ_i w_i max(0, d_i,nearest - d_ic),    loss_k = Σ_{i∈k} w_i (d_i,second - d_i,nearest).

    The greatest gains are paired with the smallest losses. What several swaps at once do to each other is not in the
    sums: where an image's objective does not fall, it keeps its medoids, and from then on half as many swap.

    Args:
        between: (B, N, N) squared distances.
        weight: (B, N) weights.
        medoids: (B, K) which points are medoids.
        most: (B, 1) how many may be swapped.
        reach: See `_coming`.

    Returns:
        The medoids, the cluster (B, N) of each point, and the new `most`.
    """
    count = medoids.shape[1]
    to_medoid, owner = _nearest(between, medoids)
    nearest = _own(to_medoid, owner)
    objective = (weight * nearest).sum(dim=1, keepdim=True)
    gain, coming = _coming(between, weight, medoids, owner, nearest, reach)
    loss, leaving = _leaving(to_medoid, weight, owner, nearest)

    swapped = (gain > loss) & (torch.arange(count, device=between.device) < most)
    others = medoids.scatter(1, leaving, torch.where(swapped, coming, medoids.gather(1, leaving)))
    to_others, owner_of_others = _nearest(between, others)
    lower = (weight * _own(to_others, owner_of_others)).sum(dim=1, keepdim=True) < objective
    fewer = torch.where(lower, most, swapped.sum(dim=1, keepdim=True) // 2)
    return torch.where(lower, others, medoids), torch.where(lower, owner_of_others, owner), fewer


def _coming(
    between: Tensor, weight: Tensor, medoids: Tensor, owner: Tensor, nearest: Tensor, reach: float
) -> tuple[Tensor, Tensor]:
    """The gain (B, K), falling, of the best new medoid in each cluster, and which point (B, K) it is.

    So that a gain is not counted twice, a point that is nearer to one of greater gain than `reach` times its distance
    from its medoid does not come: its gain is -inf. Of equal gains, which two neighbours often have, the first counts
    as greater.
    """
    with_it = (weight[:, None] @ torch.minimum(between, nearest[..., None]))[:, 0].scatter(1, medoids, torch.inf)
    point = _least_of_each(with_it, owner, medoids.shape[1])
    gain = (weight * nearest).sum(dim=1, keepdim=True) - with_it.gather(1, point)
    gain, order = gain.sort(dim=1, descending=True, stable=True)
    point = point.gather(1, order)
    apart = _rows(between, point).gather(2, point[:, None].expand(-1, point.shape[1], -1))
    crowded = (apart < reach * nearest.gather(1, point)[:, None]).triu(diagonal=1).any(dim=1)
    gain, order = gain.masked_fill(crowded, -torch.inf).sort(dim=1, descending=True, stable=True)
    return gain, point.gather(1, order)


def _leaving(to_medoid: Tensor, weight: Tensor, owner: Tensor, nearest: Tensor) -> tuple[Tensor, Tensor]:
    """The loss (B, K), rising, of leaving each cluster to its members' second choices, and which cluster (B, K).

    So that no point is sent to a medoid that leaves too, a cluster does not leave that is linked with a cheaper one,
    as first and second choice of some point: its loss is inf. Of equal losses the first counts as cheaper.
    """
    spare, second = to_medoid.scatter(1, owner[:, None], torch.inf).min(dim=1)
    loss = _sums(weight * (spare - nearest), owner, to_medoid.shape[1])
    rank = loss.argsort(dim=1, stable=True).argsort(dim=1)
    link = torch.minimum(rank.gather(1, owner), rank.gather(1, second))
    cheapest = rank.scatter_reduce(1, owner, link, "amin").scatter_reduce(1, second, link, "amin")
    return loss.masked_fill(rank > cheapest, torch.inf).sort(dim=1, stable=True)


def farthest_first(f: Tensor, count: int) -> Tensor:
    """(B, K) indices: the point of (B, N, D) nearest the mean, then each time the one farthest from those chosen."""
    f = _wide(f)
    between = _distances_between(f)
    chosen = [(f - f.mean(dim=1, keepdim=True)).square().sum(dim=2).argmin(dim=1, keepdim=True)]
    gap = torch.full_like(between[:, 0], torch.inf)
    for _ in range(count - 1):
        gap = torch.minimum(gap, _rows(between, chosen[-1])[:, 0]).scatter(1, chosen[-1], -1.0)
        chosen.append(gap.argmax(dim=1, keepdim=True))
    return torch.cat(chosen, dim=1)


def nearest_members(f: Tensor, owner: Tensor, centres: Tensor) -> Tensor:
    """(B, K) the index of each cluster's point that is nearest to its centre (B, K, D); no cluster may be empty."""
    gap = (_wide(f) - gather_rows(centres, owner)).square().sum(dim=2)
    return _least_of_each(gap, owner, centres.shape[1])


def _wide(f: Tensor) -> Tensor:
    """In float32 at least."""
    return f.to(torch.promote_types(f.dtype, torch.float32))


def _distances_between(f: Tensor) -> Tensor:
    """Squared distances between the points (B, N, D): (B, N, N), zero on the diagonal."""
    f = _wide(f)
    f = f - f.mean(dim=1, keepdim=True)  # distances stay; the rounding error of computing them shrinks
    product = f @ f.mT
    norm = product.diagonal(dim1=1, dim2=2).clone()
    return (norm[:, :, None] + norm[:, None]).sub_(product, alpha=2).clamp_min_(0)


def _rows(between: Tensor, index: Tensor) -> Tensor:
    """(B, N, N) and (B, K) -> (B, K, N)."""
    batch, n, _ = between.shape
    row = index + n * torch.arange(batch, device=index.device)[:, None]
    return between.flatten(0, 1).index_select(0, row.flatten()).view(batch, -1, n)


def _own(to_centre: Tensor, owner: Tensor) -> Tensor:
    """What (B, K, N) holds of each point and the cluster it is in: (B, N)."""
    return to_centre.gather(1, owner[:, None])[:, 0]


def _nearest(between: Tensor, medoids: Tensor) -> tuple[Tensor, Tensor]:
    """(B, K, N) the distances to the medoids, and (B, N) which is nearest.

    A medoid stays in its own cluster even where another has the same vector, so that none comes out empty.
    """
    to_medoid = _rows(between, medoids)
    own = torch.arange(medoids.shape[1], device=medoids.device).expand_as(medoids)
    return to_medoid, to_medoid.min(dim=1).indices.scatter(1, medoids, own)


def _least_of_each(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """(B, K) the first point of each cluster whose value (B, N) is least in it."""
    n = values.shape[1]
    least = values.new_full((len(values), count), torch.inf).scatter_reduce(1, owner, values, "amin")
    position = torch.arange(n, device=values.device)
    first = torch.where(values == least.gather(1, owner), position, n)
    return torch.full_like(least, n, dtype=torch.int64).scatter_reduce(1, owner, first, "amin")


def _sums(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """(B, N) -> (B, K), each cluster's sum, in an order that is the same on every run."""
    if values.is_cuda:
        return _weighted_sums(torch.ones_like(values)[..., None], values, owner, count)[..., 0]
    return values.new_zeros(len(values), count).scatter_add(1, owner, values)


def _weighted_sums(values: Tensor, weight: Tensor, owner: Tensor, count: int) -> Tensor:
    """(B, N, D) -> (B, K, D), each cluster's weighted sum, in an order that is the same on every run."""
    device = owner.device
    if values.is_cuda:
        return torch.where(owner[:, None] == torch.arange(count, device=device)[:, None], weight[:, None], 0) @ values
    batch, n = owner.shape
    image = torch.arange(batch, device=device)[:, None]
    order = (owner.argsort(dim=1, stable=True) + n * image).flatten()
    sizes = owner.new_zeros(batch, count).scatter_add(1, owner, torch.ones_like(owner)).flatten()
    first = sizes.cumsum(dim=0) - sizes
    share = weight.flatten()[order]
    summed = embedding_bag(order, values.flatten(0, 1), first, mode="sum", per_sample_weights=share)
    return summed.view(batch, count, values.shape[2])


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
    return pad(owner, (0, 1)).scatter(1, moved, cluster)[:, :n]
