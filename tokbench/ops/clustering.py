"""Batched clustering of the tokens of each image, on the tokens' device and without host synchronisation.

Each image of a batch is clustered independently. The squared distances d_ij = |f_i - f_j|² between an image's points
are computed once, by one matrix product; everything else is sums and comparisons of rows of d.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from tokbench.tokens import gather_rows


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
    """Cluster points around medoids, which are points themselves.

    Each round swaps some medoids for other points, then moves each medoid to the member with the lowest cost for its
    cluster. Without the swaps, the result is far from the best medoids if most clusters have only one or two members.

    Args:
        f: (B, N, D) points.
        weight: (B, N) their weights, positive.
        start: (B, K) indices of the points that are the first medoids, distinct in each row.
        iterations: Rounds.

    Returns:
        (B, N) the cluster of each point, where no cluster is empty, and (B, K, D) the clusters' medoids.
    """
    count = start.shape[1]
    between = _distances_between(f)
    weight = weight.to(between.dtype)
    medoids = start
    limit = torch.full_like(start[:, :1], count)
    for iteration in range(iterations):
        # In the first round a medoid may be far from most points, and a single candidate would exclude all others.
        reach = 1.0 if iteration else 0.0
        medoids, owner, limit = _swap(between, weight, medoids, limit, reach)
        cost = _own(_weighted_sums(between, weight, owner, count), owner)
        medoids = _argmin_per_cluster(cost, owner, count)
    return _nearest(between, medoids)[1], gather_rows(f, medoids)


def _swap(
    between: Tensor, weight: Tensor, medoids: Tensor, limit: Tensor, reach: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Swap medoids (B, K) for other points, at most `limit` (B, 1) per image, if that lowers the image's objective.

    Adding a point c as a further medoid changes the objective by -gain_c. Removing the medoid of cluster k, so that its
    members go to their second-nearest medoid, changes it by loss_k. Doing both changes it by at most loss_k - gain_c:

        gain_c = Σ_i w_i max(0, d_i,nearest - d_ic),    loss_k = Σ_{i∈k} w_i (d_i,second - d_i,nearest).

    The largest gains are paired with the smallest losses. These sums ignore interactions between simultaneous swaps,
    so an image whose objective does not fall keeps its medoids, and the number of its swaps is halved from then on.

    Args:
        between: (B, N, N) squared distances.
        weight: (B, N) weights.
        medoids: (B, K) indices of the medoids.
        limit: (B, 1) how many medoids may be swapped.
        reach: See `_candidates`.

    Returns:
        The medoids, the cluster (B, N) of each point, and the new `limit`.
    """
    count = medoids.shape[1]
    to_medoid, owner = _nearest(between, medoids)
    nearest = _own(to_medoid, owner)
    objective = (weight * nearest).sum(dim=1, keepdim=True)
    gain, candidate = _candidates(between, weight, medoids, owner, nearest, reach)
    loss, removable = _removable(to_medoid, weight, owner, nearest)

    swapped = (gain > loss) & (torch.arange(count, device=between.device) < limit)
    proposed = medoids.scatter(1, removable, torch.where(swapped, candidate, medoids.gather(1, removable)))
    to_proposed, proposed_owner = _nearest(between, proposed)
    lower = (weight * _own(to_proposed, proposed_owner)).sum(dim=1, keepdim=True) < objective
    new_limit = torch.where(lower, limit, swapped.sum(dim=1, keepdim=True) // 2)
    return torch.where(lower, proposed, medoids), torch.where(lower, proposed_owner, owner), new_limit


def _candidates(
    between: Tensor, weight: Tensor, medoids: Tensor, owner: Tensor, nearest: Tensor, reach: float
) -> tuple[Tensor, Tensor]:
    """The best new medoid of each cluster: the gains (B, K), in descending order, and the points (B, K).

    The gains of two candidates close to each other come from the same points and must not be counted twice. So a
    candidate whose distance to one of larger gain is less than `reach` times its distance to its own medoid is
    excluded: its gain becomes -inf. Of equal gains, which are common for two neighbours, the first counts as larger.
    """
    cost = (weight[:, None] @ torch.minimum(between, nearest[..., None]))[:, 0].scatter(1, medoids, torch.inf)
    point = _argmin_per_cluster(cost, owner, medoids.shape[1])
    gain = (weight * nearest).sum(dim=1, keepdim=True) - cost.gather(1, point)
    gain, order = gain.sort(dim=1, descending=True, stable=True)
    point = point.gather(1, order)
    mutual = _rows(between, point).gather(2, point[:, None].expand(-1, point.shape[1], -1))
    too_close = (mutual < reach * nearest.gather(1, point)[:, None]).triu(diagonal=1).any(dim=1)
    gain, order = gain.masked_fill(too_close, -torch.inf).sort(dim=1, descending=True, stable=True)
    return gain, point.gather(1, order)


def _removable(to_medoid: Tensor, weight: Tensor, owner: Tensor, nearest: Tensor) -> tuple[Tensor, Tensor]:
    """The loss (B, K), in ascending order, of removing each cluster's medoid, and the clusters (B, K).

    Removing a medoid sends its members to their second-nearest medoid, which must not be removed too. So if some point
    has two clusters as its first and second choice, only the one with the smaller loss can be removed, and the loss of
    the other becomes inf. Of equal losses, the first counts as smaller.
    """
    to_second, second = to_medoid.scatter(1, owner[:, None], torch.inf).min(dim=1)
    loss = _sums(weight * (to_second - nearest), owner, to_medoid.shape[1])
    rank = loss.argsort(dim=1, stable=True).argsort(dim=1)
    link = torch.minimum(rank.gather(1, owner), rank.gather(1, second))
    lowest = rank.scatter_reduce(1, owner, link, "amin").scatter_reduce(1, second, link, "amin")
    return loss.masked_fill(rank > lowest, torch.inf).sort(dim=1, stable=True)


def farthest_first(f: Tensor, count: int) -> Tensor:
    """Choose points far from each other: first the one nearest the mean, then always the one farthest from the chosen.

    Args:
        f: (B, N, D) points.
        count: K.

    Returns:
        (B, K) indices.
    """
    f = _wide(f)
    between = _distances_between(f)
    chosen = [(f - f.mean(dim=1, keepdim=True)).square().sum(dim=2).argmin(dim=1, keepdim=True)]
    gap = torch.full_like(between[:, 0], torch.inf)
    for _ in range(count - 1):
        gap = torch.minimum(gap, _rows(between, chosen[-1])[:, 0]).scatter(1, chosen[-1], -1.0)
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
    gap = (_wide(f) - gather_rows(centres, owner)).square().sum(dim=2)
    return _argmin_per_cluster(gap, owner, centres.shape[1])


def _wide(f: Tensor) -> Tensor:
    """Convert to float32, unless the type is wider."""
    return f.to(torch.promote_types(f.dtype, torch.float32))


def _distances_between(f: Tensor) -> Tensor:
    """Squared distances between the points (B, N, D): (B, N, N), zero on the diagonal."""
    f = _wide(f)
    f = f - f.mean(dim=1, keepdim=True)  # leaves distances unchanged and reduces rounding errors
    product = f @ f.mT
    norm = product.diagonal(dim1=1, dim2=2).clone()
    return (norm[:, :, None] + norm[:, None]).sub_(product, alpha=2).clamp_min_(0)


def _rows(between: Tensor, index: Tensor) -> Tensor:
    """The rows `index` (B, K) of `between` (B, N, N): (B, K, N)."""
    batch, n, _ = between.shape
    row = index + n * torch.arange(batch, device=index.device)[:, None]
    return between.flatten(0, 1).index_select(0, row.flatten()).view(batch, -1, n)


def _own(to_centre: Tensor, owner: Tensor) -> Tensor:
    """The entries of (B, K, N) for each point and its own cluster: (B, N)."""
    return to_centre.gather(1, owner[:, None])[:, 0]


def _nearest(between: Tensor, medoids: Tensor) -> tuple[Tensor, Tensor]:
    """(B, K, N) the distances to the medoids, and (B, N) which medoid is nearest.

    A medoid stays in its own cluster even if another medoid has the same vector, so that no cluster is empty.
    """
    to_medoid = _rows(between, medoids)
    own = torch.arange(medoids.shape[1], device=medoids.device).expand_as(medoids)
    return to_medoid, to_medoid.min(dim=1).indices.scatter(1, medoids, own)


def _argmin_per_cluster(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """(B, K) the point with the smallest value (B, N) in each cluster; the first of equal ones."""
    n = values.shape[1]
    least = values.new_full((len(values), count), torch.inf).scatter_reduce(1, owner, values, "amin")
    position = torch.arange(n, device=values.device)
    first = torch.where(values == least.gather(1, owner), position, n)
    return torch.full_like(least, n, dtype=torch.int64).scatter_reduce(1, owner, first, "amin")


def _sums(values: Tensor, owner: Tensor, count: int) -> Tensor:
    """(B, N) -> (B, K), each cluster's sum, added in the same order on every run."""
    if values.is_cuda:
        return _weighted_sums(torch.ones_like(values)[..., None], values, owner, count)[..., 0]
    return values.new_zeros(len(values), count).scatter_add(1, owner, values)


def _weighted_sums(values: Tensor, weight: Tensor, owner: Tensor, count: int) -> Tensor:
    """(B, N, D) -> (B, K, D), each cluster's weighted sum, added in the same order on every run."""
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
    """Move one point into each empty cluster: the points with the largest `loss` (B, N). Returns the clusters (B, N).

    The first point of every cluster stays, so that no cluster is emptied to fill another one.
    """
    batch, n = owner.shape
    position = torch.arange(n, device=owner.device).expand_as(owner)
    first = torch.full((batch, count), n, device=owner.device).scatter_reduce(1, owner, position, "amin")
    empty = first == n
    staying = first.gather(1, owner) == position
    worst = loss.masked_fill(staying, -torch.inf).argsort(dim=1, descending=True, stable=True)
    turn = (empty.cumsum(dim=1) - 1).clamp_min(0)
    moved = torch.where(empty, worst.gather(1, turn), n)  # n: an extra column for writes to be ignored
    cluster = torch.arange(count, device=owner.device).expand_as(moved)
    return pad(owner, (0, 1)).scatter(1, moved, cluster)[:, :n]
