"""DPC-KNN: density peaks clustering with k nearest neighbours (Zeng et al. 2022, arXiv 2204.08680).

Cluster centres are tokens of high density ρ, far from denser tokens (Du et al. 2016). With d_ij = |x_i - x_j| / √D:

    ρ_i = exp(-mean of d_ij² over the k nearest neighbours j of i)
    δ_i = min of d_ij over the denser j, and max of d_ij over all j for the densest token

The K tokens with the largest ρ_i δ_i are the centres. Each token joins its nearest centre (a centre joins itself), and
a cluster is replaced by the mean of its tokens. TCFormer learns the weights of this mean; without training they are
equal. In TCFormer, the next attention reads the tokens before clustering, so that a cluster has the weight of all its
tokens; here it reads only the clusters, and proportional attention gives them this weight.

Fine-tuned checkpoints of Haurum et al. 2023 need the variant `haurum`, what their code does
(JoakimHaurum/TokenReduction, models/dpcknn.py), and with learned weights:

    k counts the token itself;  ρ_i ← ρ_i + 10⁻⁶ u_i with u_i uniform in [0, 1), also at inference
    δ_i = max of d over all pairs for the densest token;    y_c = Σ_{i∈c} e^{s_i} x_i / (10⁻⁶ + Σ_{i∈c} e^{s_i})

with learned s_i = w·x_i + b, and attention without log(size). Where ρ underflows, its noise decides. Without learned
weights, the 10⁻⁶ in the mean is left out here.

Decided here: k is at most N-1, and a token is not its own neighbour. Of tokens with equal density, the earlier counts
as denser; the public code breaks ties with unseeded noise, so its result can vary. ρδ is compared by its logarithm,
because ρ underflows for large activations.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from tokbench import Context, Downsampler, Geometry, Paper, Tokens, group_sum, register

SMALL = 1e-6  # the variant `haurum` adds it to sums of weights, and up to it to densities


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

    def __init__(
        self,
        neighbours: int = 5,
        weights: Literal["equal", "learned"] = "equal",
        variant: Literal["default", "haurum"] = "default",
    ) -> None:
        """Choose the neighbourhood of the density and the weights of the means.

        Args:
            neighbours: k, the number of nearest neighbours that define the density; at most N-1 are used.
            weights: `equal`: plain means; `learned`: weights predicted from each token, which need training.
            variant: `default`: deterministic, with proportional attention; `haurum`: as in the code of Haurum et al.
                2023, for its checkpoints.

        Raises:
            ValueError: `neighbours` is less than 1.
        """
        super().__init__()
        if neighbours < 1:
            raise ValueError(f"neighbours={neighbours}: must be at least 1")
        self.neighbours = neighbours
        self.trained = weights == "learned"
        self.variant = variant
        self.stochastic = variant == "haurum"
        self.proportional = variant == "default"
        self.scores = nn.ModuleList()

    def setup(self, geometry: Geometry) -> None:
        if self.trained:
            self.scores = nn.ModuleList(nn.Linear(geometry.dim, 1) for _ in geometry.depths)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        wide = torch.promote_types(tokens.x.dtype, torch.float32)
        with torch.no_grad():
            x = tokens.patches.to(wide)
            squared = squared_distances(x) / x.shape[2]
            k = min(self.neighbours, tokens.n_patches - 1)
            noisy = self.variant == "haurum"
            centres = noisy_peaks(squared, k, keep, context.noise) if noisy else peaks(squared, k, keep)
            to_centre = squared.gather(1, centres[..., None].expand(-1, -1, tokens.n_patches))
            own = torch.arange(keep, device=x.device).expand_as(centres)
            # A centre stays in its own cluster even if another one has the same vector, so that no cluster is empty.
            owner = to_centre.min(dim=1).indices.scatter(1, centres, own)
        if not self.trained:
            return tokens.merge(owner, keep, torch.ones_like(tokens.size))
        s = self.scores[context.stage](tokens.patches)[..., 0].to(wide)
        # exp(s) may overflow, and vanish beside that of another cluster.
        largest = torch.full_like(s[:, :keep], -torch.inf).scatter_reduce(1, owner, s.detach(), "amax")
        weight = (s - largest.gather(1, owner)).exp()
        merged = tokens.merge(owner, keep, weight)
        if self.variant == "default":
            return merged
        total = group_sum(weight[..., None], owner, keep)
        factor = total / (total + SMALL * (-largest).exp()[..., None])
        return merged.replace(patches=(merged.patches * factor).to(tokens.x.dtype))


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


def noisy_peaks(squared: Tensor, k: int, count: int, noise: Tensor) -> Tensor:
    """The peaks in the variant `haurum`: indices (B, K), the best first.

    Args:
        squared: (B, N, N), squared distances.
        k: The number of nearest neighbours, the token itself among them.
        count: K.
        noise: (B, N), uniform in [0, 1).
    """
    density = (-squared.topk(k, dim=2, largest=False).values.mean(dim=2)).exp() + SMALL * noise
    denser = density[:, None] > density[:, :, None]
    delta = squared.where(denser, squared.amax(dim=(1, 2), keepdim=True)).amin(dim=2).sqrt()
    return (density * delta).argsort(dim=1, descending=True, stable=True)[:, :count]


def squared_distances(x: Tensor) -> Tensor:
    """(B, N, D) -> (B, N, N), exactly 0 on the diagonal."""
    x = x - x.mean(dim=1, keepdim=True)  # leaves distances unchanged and reduces rounding errors
    norms = x.square().sum(dim=2)
    squared = (norms[:, :, None] + norms[:, None] - 2 * (x @ x.mT)).clamp_min(0)
    squared.diagonal(dim1=1, dim2=2).zero_()
    return squared
