"""Token Pooling: the K tokens that reconstruct the N given ones best (Marin et al. 2021, arXiv 2110.03860).

Tokens f_i are samples of a signal, and the loss of a coarser set F̂ is the weighted asymmetric Chamfer distance

    l(F̂) = Σ_i w_i min_j |f_i - f̂_j|²,    w_i = Σ_h Σ_q A[h, q, i] (the attention received), or 1,

which is the objective of clustering. Each iteration assigns every token to its nearest centre, then moves the centres:

    K-Means:   f̂_k = Σ_{i∈k} w_i f_i / Σ_{i∈k} w_i
    K-Medoids: f̂_k = the f_j, j∈k, for which Σ_{i∈k} w_i |f_i - f_j|² is least

Not known of the paper: whether K-Medoids emits medoids or cluster means, how class token and diagonal enter w, and K
for each layer. The K-Medoids of the public benchmark by Haurum et al. 2023 is not this: its update sums the distances
to all tokens rather than to those of the cluster, unsquared, and weights the candidate j rather than the members i,
so its objective can rise above that of its own start.
"""

from typing import Literal

import torch
from torch import Tensor

from tokbench import Context, Downsampler, Paper, Tokens, group_sum, register


@register("token_pooling")
class TokenPooling(Downsampler):
    """Cluster the tokens and keep one for each cluster."""

    site = "after_block"
    schedule = "every_block"
    paper = Paper("Token Pooling in Vision Transformers", "WACV", 2023, "2110.03860")

    def __init__(
        self,
        algorithm: Literal["kmeans", "kmedoids"] = "kmedoids",
        weighted: bool = True,
        iterations: int = 5,
        init: Literal["scores", "farthest"] = "scores",
        output: Literal["mean", "medoid"] = "mean",
    ) -> None:
        """Choose the clustering.

        Args:
            algorithm: Centres anywhere (`kmeans`) or among the tokens (`kmedoids`).
            weighted: Whether tokens count by the attention they receive.
            iterations: Rounds of assignment and update, at least 1; the paper says 5 usually suffice.
            init: Start from the K tokens that receive most attention, or farthest-first from the one nearest the mean.
            output: What a cluster becomes: the weighted mean of its tokens, or the one nearest its centre.

        Raises:
            ValueError: No iteration.
        """
        super().__init__()
        if iterations < 1:
            raise ValueError(f"iterations={iterations}: at least 1")
        self.algorithm = algorithm
        self.weighted = weighted
        self.iterations = iterations
        self.init = init
        self.output = output
        self.needs = frozenset({"received"}) if weighted or init == "scores" else frozenset()

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        # A token that nobody looks at still is somewhere: it weighs next to nothing, but not nothing.
        weight = context.received.clamp_min(1e-12) if self.weighted else torch.ones_like(tokens.size)
        with torch.no_grad():
            f = tokens.patches.to(torch.promote_types(tokens.x.dtype, torch.float32))
            f = f - f.mean(dim=1, keepdim=True)  # distances stay; the rounding error of computing them shrinks
            start = context.received.topk(keep).indices if self.init == "scores" else farthest_first(f, keep)
            if self.algorithm == "kmeans":
                owner, centres = kmeans(f, weight, start, self.iterations)
            else:
                owner, medoids = kmedoids(f, weight, start, self.iterations)
            if self.algorithm == "kmeans" and self.output == "medoid":
                medoids = members(owner, keep, squared_distances(centres, f)).argmin(dim=2)
        pooled = tokens.merge(owner, keep, weight)
        return pooled if self.output == "mean" else pooled.replace(patches=rows(tokens.patches, medoids))


def kmeans(f: Tensor, weight: Tensor, start: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Cluster points (B, N, D) of weight (B, N) by Lloyd's algorithm from the points at `start` (B, K).

    Returns:
        (B, N) the cluster of each point, none empty, and (B, K, D) the clusters' weighted means.
    """
    count = start.shape[1]
    centres = rows(f, start)
    for _ in range(iterations):
        distance, owner = squared_distances(f, centres).min(dim=2)
        owner = fill_empty(owner, weight * distance, count)
        mass = group_sum(weight[..., None], owner, count)
        centres = group_sum(weight[..., None] * f, owner, count) / mass
    return owner, centres


def kmedoids(f: Tensor, weight: Tensor, start: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Cluster points (B, N, D) of weight (B, N) around points of their own, from those at `start` (B, K).

    Returns:
        (B, N) the cluster of each point and (B, K) the index of each cluster's medoid.
    """
    count = start.shape[1]
    distance = squared_distances(f, f)
    distance.diagonal(dim1=1, dim2=2).zero_()

    def assign(medoids: Tensor) -> Tensor:
        nearest = rows(distance, medoids).argmin(dim=1)
        # A medoid stays in its own cluster even where another has the same vector, so that none comes out empty.
        return nearest.scatter(1, medoids, torch.arange(count, device=f.device).expand_as(medoids))

    medoids = start
    for _ in range(iterations):
        owner = assign(medoids)
        together = owner[:, :, None] == owner[:, None, :]
        cost = (distance * together) @ weight[..., None].to(f.dtype)
        medoids = members(owner, count, cost.mT).argmin(dim=2)
    return assign(medoids), medoids


def farthest_first(f: Tensor, count: int) -> Tensor:
    """(B, K) indices: the point of (B, N, D) nearest the mean, then each time the one farthest from those chosen."""
    distance = squared_distances(f, f)
    chosen = [f.square().sum(dim=2).argmin(dim=1, keepdim=True)]
    gap = torch.full_like(distance[:, 0], torch.inf)
    for _ in range(count - 1):
        gap = torch.minimum(gap, rows(distance, chosen[-1])[:, 0]).scatter(1, chosen[-1], -1.0)
        chosen.append(gap.argmax(dim=1, keepdim=True))
    return torch.cat(chosen, dim=1)


def fill_empty(owner: Tensor, loss: Tensor, count: int) -> Tensor:
    """Give each empty cluster a point of its own: those that lose most where they are.

    The first point of every cluster stays, so that no cluster is emptied to fill another.

    Args:
        owner: (B, N) in [0, K).
        loss: (B, N), each point's share of the objective.
        count: K <= N.
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


def members(owner: Tensor, count: int, values: Tensor) -> Tensor:
    """Values (B, 1 or K, N) laid out as (B, K, N), infinite where the point is not in the cluster."""
    cluster = torch.arange(count, device=owner.device)[:, None]
    return torch.where(owner[:, None] == cluster, values, torch.inf)


def rows(values: Tensor, index: Tensor) -> Tensor:
    """(B, N, D) at (B, K) -> (B, K, D)."""
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[2]))
