"""ATC: agglomerative clustering of the keys (Haurum et al. 2024, arXiv 2409.11923).

Each token is a cluster of its own; the two nearest clusters become one, N-K times. Tokens are as far apart as the
cosine of their keys (mean over heads) says, d_ij = 1 - cos(k_i, k_j), and clusters as the linkage says:

    single:   the least d_ij over i∈I, j∈J        d(I∪J, L) = min(d(I, L), d(J, L))
    complete: the greatest                        d(I∪J, L) = max(d(I, L), d(J, L))
    average:  the mean                            d(I∪J, L) = (|I| d(I, L) + |J| d(J, L)) / (|I| + |J|)

By the recurrences on the right (Lance and Williams 1967) all images of a batch take each step together. |I| counts the
tokens that cluster here, each once; the size of a token weighs only in the mean that a cluster becomes. Of equally
near pairs the first in the order of their tokens is merged. The class token takes no part.
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
    proportional = True
    paper = Paper("Agglomerative Token Clustering", "ECCV", 2024, "2409.11923")

    def __init__(self, linkage: Linkage = "average") -> None:
        """Choose the linkage.

        Args:
            linkage: How far two clusters are apart: `average`, `single` (nearest) or `complete` (farthest tokens).
        """
        super().__init__()
        self.linkage = linkage

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        with torch.no_grad():
            keys = context.keys
            keys = F.normalize(keys.to(torch.promote_types(keys.dtype, torch.float32)), dim=2)
            owner = agglomerate(1 - keys @ keys.mT, tokens.n_patches, keep, self.linkage)
        return tokens.merge(owner, keep)


def agglomerate(distance: Tensor, n: int, count: int, linkage: Linkage) -> Tensor:
    """Cluster by merging the nearest pair, n - count times.

    Args:
        distance: (B, N, N).
        n: N, as an integer where the tensor's shape is traced.
        count: K.
        linkage: See above.

    Returns:
        (B, N) the cluster of each token in [0, K), in the order of the clusters' first tokens.
    """
    # A matrix product need not round ij and ji alike; the nearest pair must be the same read either way.
    distance = torch.minimum(distance, distance.mT)
    distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    members = torch.ones_like(distance[:, 0])
    owner = torch.arange(n, device=distance.device).expand(members.shape)
    for _ in range(n - count):
        # Of the symmetric matrix the upper half is met first, so i < j. Only `amin` reads fast on a CPU.
        i = distance.amin(dim=2).min(dim=1, keepdim=True).indices
        d_i = row(distance, i)
        j = d_i.min(dim=1, keepdim=True).indices
        d_j = row(distance, j)
        m_i, m_j = members.gather(1, i), members.gather(1, j)
        if linkage == "single":
            joined = torch.minimum(d_i, d_j)
        elif linkage == "complete":
            joined = torch.maximum(d_i, d_j)
        else:
            joined = (m_i * d_i + m_j * d_j) / (m_i + m_j)
        joined = joined.scatter(1, i, torch.inf)
        write(distance, i, joined)
        write(distance, j, torch.full_like(joined, torch.inf))
        members = members.scatter(1, i, m_i + m_j)
        owner = torch.where(owner == j, i, owner)
    first = owner == torch.arange(n, device=owner.device)
    return (first.cumsum(dim=1) - 1).gather(1, owner)


def row(matrix: Tensor, i: Tensor) -> Tensor:
    """Row i (B, 1) of each matrix (B, N, N)."""
    return matrix.gather(1, i[..., None].expand(-1, -1, matrix.shape[2]))[:, 0]


def write(matrix: Tensor, i: Tensor, values: Tensor) -> None:
    """Set row and column i (B, 1) of each symmetric matrix (B, N, N) to values (B, N), in place."""
    matrix.scatter_(1, i[..., None].expand(-1, -1, matrix.shape[2]), values[:, None])
    matrix.scatter_(2, i[..., None].expand(-1, matrix.shape[1], -1), values[..., None])
