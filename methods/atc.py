"""ATC: agglomerative clustering of the keys (Haurum et al. 2024, arXiv 2409.11923).

Each token starts as its own cluster; the two nearest clusters are merged, N-K times. The distance of two tokens is
d_ij = 1 - cos(k_i, k_j), with the keys' mean over heads; the distance of two clusters I and J depends on the linkage:

    single:   the smallest d_ij over i∈I, j∈J     d(I∪J, L) = min(d(I, L), d(J, L))
    complete: the largest                         d(I∪J, L) = max(d(I, L), d(J, L))
    average:  the mean                            d(I∪J, L) = (|I| d(I, L) + |J| d(J, L)) / (|I| + |J|)

With the recurrences on the right (Lance and Williams 1967), all images of a batch are processed step by step together.
|I| is the number of tokens in the cluster, each counted once; token sizes only weight the mean that represents a
cluster. Of equally near pairs, the first in the order of their tokens is merged. The class token is not involved.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from tokbench import Context, Downsampler, Paper, Tokens, register

Linkage = Literal["average", "single", "complete"]


@register("atc")
class ATC(Downsampler):
    """Merge the two nearest clusters of tokens until K are left."""

    needs = frozenset({"keys"})
    paper = Paper("Agglomerative Token Clustering", "ECCV", 2024, "2409.11923")

    def __init__(self, linkage: Linkage = "average", proportional: bool = True) -> None:
        """Choose the linkage.

        Args:
            linkage: The distance of two clusters: `average`, `single` (nearest tokens) or `complete` (farthest tokens).
            proportional: Whether later attention and later means weight a token by its size; the public code has both
                or neither.
        """
        super().__init__()
        self.linkage = linkage
        self.proportional = proportional

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        with torch.no_grad():
            keys = context.keys
            keys = F.normalize(keys.to(torch.promote_types(keys.dtype, torch.float32)), dim=2)
            owner = agglomerate(1 - keys @ keys.mT, tokens.n_patches, keep, self.linkage)
        return tokens.merge(owner, keep, tokens.size if self.proportional else torch.ones_like(tokens.size))


def agglomerate(distance: Tensor, n: int, count: int, linkage: Linkage) -> Tensor:
    """Cluster by merging the nearest pair, n - count times.

    Args:
        distance: (B, N, N).
        n: N, as a Python integer even if shapes are traced.
        count: K.
        linkage: The distance of two clusters.

    Returns:
        (B, N) the cluster of each token in [0, K), in the order of the clusters' first tokens.
    """
    # A matrix product may round ij and ji differently, but the nearest pair must not depend on their order.
    distance = torch.minimum(distance, distance.mT)
    distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    members = torch.ones_like(distance[:, 0])
    gone = torch.full_like(members, torch.inf)
    parent = torch.arange(n, device=distance.device).repeat(members.shape[0], 1)
    for _ in range(n - count):
        # The matrix is symmetric, and the first minimum is in its upper half, so i < j. On a CPU, `amin` is fast.
        i = distance.amin(dim=2).min(dim=1, keepdim=True).indices
        d_i = row(distance, i)
        j = d_i.min(dim=1, keepdim=True).indices
        d_j = row(distance, j)
        pair = torch.cat([i, j], dim=1)
        m_i, m_j = members.gather(1, pair).chunk(2, dim=1)
        if linkage == "single":
            joined = torch.minimum(d_i, d_j)
        elif linkage == "complete":
            joined = torch.maximum(d_i, d_j)
        else:
            joined = (m_i * d_i + m_j * d_j) / (m_i + m_j)
        write(distance, pair, torch.stack([joined.scatter(1, pair, torch.inf), gone], dim=1))
        members.scatter_(1, i, m_i + m_j)
        parent.scatter_(1, j, i)
    for _ in range((n - 1).bit_length()):  # from the cluster that a token's was joined to, to the last one
        parent = parent.gather(1, parent)
    first = parent == torch.arange(n, device=parent.device)
    return (first.cumsum(dim=1) - 1).gather(1, parent)


def row(matrix: Tensor, i: Tensor) -> Tensor:
    """Row i (B, 1) of each matrix (B, N, N)."""
    return matrix.gather(1, i[..., None].expand(-1, -1, matrix.shape[2]))[:, 0]


def write(matrix: Tensor, pair: Tensor, values: Tensor) -> None:
    """Set two rows and columns, `pair` (B, 2), of each symmetric matrix (B, N, N) to values (B, 2, N), in place."""
    matrix.scatter_(1, pair[..., None].expand(values.shape), values)
    matrix.scatter_(2, pair[:, None].expand(values.mT.shape), values.mT)
