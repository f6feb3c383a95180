"""DPC-KNN: density peaks clustering with k nearest neighbours (Zeng et al. 2022, arXiv 2204.08680).

Cluster centres are tokens of high density ρ, far from denser tokens (Du et al. 2016). With d_ij = |x_i - x_j| / √D:

    ρ_i = exp(-mean of d_ij² over the k nearest neighbours j of i)
    δ_i = min of d_ij over the denser j, and max of d_ij over all j for the densest token

The K tokens with the largest ρ_i δ_i are the centres. Each token joins its nearest centre (a centre joins itself), and
a cluster is replaced by the mean of its tokens. TCFormer learns the weights of this mean; without training they are
equal. In TCFormer, the next attention reads the tokens before clustering, so that a cluster has the weight of all its
tokens; here it reads only the clusters, and proportional attention gives them this weight.

Decided here: k is at most N-1, and a token is not its own neighbour. Of tokens with equal density, the earlier counts
as denser; the public code breaks ties with unseeded noise, so its result can vary. ρδ is compared by its logarithm,
because ρ underflows for large activations.
"""

import torch
from torch import Tensor

from tokbench import Context, Downsampler, Paper, Tokens, register


@register("dpc_knn")
class DPCKNN(Downsampler):
    """Cluster the tokens around their density peaks."""

    site = "before_block"
    proportional = True
    paper = Paper(
        "Not All Tokens Are Equal: Human-centric Visual Analysis via Token Clustering Transformer",
        "CVPR",
        2022,
        "2204.08680",
    )

    def __init__(self, neighbours: int = 5) -> None:
        """Choose the neighbourhood of the density.

        Args:
            neighbours: k, the number of nearest neighbours that define the density; at most N-1 are used.

        Raises:
            ValueError: `neighbours` is less than 1.
        """
        super().__init__()
        if neighbours < 1:
            raise ValueError(f"neighbours={neighbours}: must be at least 1")
        self.neighbours = neighbours

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        with torch.no_grad():
            x = tokens.patches.to(torch.promote_types(tokens.x.dtype, torch.float32))
            squared = squared_distances(x) / x.shape[2]
            centres = peaks(squared, min(self.neighbours, tokens.n_patches - 1), keep)
            to_centre = squared.gather(1, centres[..., None].expand(-1, -1, tokens.n_patches))
            own = torch.arange(keep, device=x.device).expand_as(centres)
            # A centre stays in its own cluster even if another one has the same vector, so that no cluster is empty.
            owner = to_centre.min(dim=1).indices.scatter(1, centres, own)
        return tokens.merge(owner, keep, torch.ones_like(tokens.size))


def peaks(squared: Tensor, k: int, count: int) -> Tensor:
    """The density peaks of points with squared distances (B, N, N): indices (B, K), in ascending order."""
    others = squared.clone()
    others.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    log_density = -others.topk(k, dim=2, largest=False).values.mean(dim=2)
    rank = log_density.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    denser = rank[:, None] < rank[:, :, None]
    nearest = squared.masked_fill(~denser, torch.inf).amin(dim=2)
    delta = torch.where(rank == 0, squared.amax(dim=2), nearest).sqrt()
    score = log_density + delta.log()
    return score.argsort(dim=1, descending=True, stable=True)[:, :count].sort(dim=1).values


def squared_distances(x: Tensor) -> Tensor:
    """(B, N, D) -> (B, N, N), exactly 0 on the diagonal."""
    x = x - x.mean(dim=1, keepdim=True)  # leaves distances unchanged and reduces rounding errors
    norms = x.square().sum(dim=2)
    squared = (norms[:, :, None] + norms[:, None] - 2 * (x @ x.mT)).clamp_min(0)
    squared.diagonal(dim1=1, dim2=2).zero_()
    return squared
