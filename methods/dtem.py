"""DTEM: merge tokens by an embedding learned only for merging (Lee and Hong 2024, arXiv 2412.10569).

    z_i = W x_i + b  (64 channels),    c_ij = cos(z_i, z_j)

This is ToMe's matching applied to z: patch tokens at odd positions are sources, those at even positions targets (the
class token comes before them). Each source is paired with its most similar target, and the N-K most similar pairs
become one token each, the mean weighted by size; later attention adds log(size). At most half of the tokens can be
removed.

Training keeps all tokens. With l_ij = c_ij / 0.1 for the three best targets j of each source i, the choice of r = N-K
pairs is relaxed to a sum of r softmaxes over all pairs of the image, in which a source that was chosen counts less:

    repeat r times:  q = softmax(l / 0.1),    a_ij ← a_ij + q_ij,    l_ij ← l_ij + log(1 - Σ_j q_ij)

(row sums above 1 are divided by themselves, a constant for the gradient). With masses m, 1 before the first reduction,

    x_j ← (m_j x_j + Σ_i a_ij m_i x_i) / m_j',    m_j' = m_j + Σ_i a_ij m_i,    m_i' = m_i (1 - Σ_j a_ij)

and later attention multiplies exp(logit) by m: a token of mass m < 1 has presence m, one of mass m >= 1 has size m. The
r sources of which the most was merged take no part in later reductions. The constants are those of the public code.
That code trains the embeddings only. A backbone that is trained, too, gets used to soft merging and then does worse in
evaluation. So with `choice=hard`, the default, a is the choice of evaluation, 0 or 1, with the gradient of the soft one
(straight-through).

Decided here: which positions are sources is the same in training as in evaluation. z is computed from the token to be
merged, detached, because the embedding should be independent of the backbone's features. The public code computes it
from what the block's attention reads, LN(x before the attention), as is done here with `reads=attention_input`: this
norm has weights of its own, which for the public checkpoints are those of the block's norm.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokbench import (
    Context,
    Downsampler,
    Geometry,
    Paper,
    Tokens,
    bipartite_matching,
    gather_rows,
    register,
    relaxed_matching,
)

TEMPERATURE = 0.1
EPSILON = 1e-6  # of timm's norms


@register("dtem")
class DTEM(Downsampler):
    """Merge the tokens whose learned embeddings are most similar."""

    proportional = True
    trained = True
    schedule = "every_block(r=12)"
    paper = Paper(
        "Learning to Merge Tokens via Decoupled Embedding for Efficient Vision Transformers",
        "NeurIPS",
        2024,
        "2412.10569",
    )

    def __init__(
        self,
        channels: int = 64,
        reads: Literal["tokens", "attention_input"] = "tokens",
        choice: Literal["hard", "soft"] = "hard",
    ) -> None:
        """Choose the embedding and its training.

        Args:
            channels: The number of channels of z.
            reads: What z is computed from: the `tokens` to be merged, or what the block's attention read, as in the
                public checkpoints.
            choice: How training merges: as evaluation does, with the gradient of the soft choice (`hard`), or softly
                (`soft`), as the public code, which trains the embeddings only.

        Raises:
            ValueError: `channels` is less than 1.
        """
        super().__init__()
        if channels < 1:
            raise ValueError(f"channels={channels}: must be at least 1")
        self.channels = channels
        self.choice = choice
        self.norms = nn.ModuleList()
        self.reads = reads
        if reads == "attention_input":
            self.sites = ("after_attention",)
            self.needs = frozenset({"update"})
        self.temperature = TEMPERATURE
        self.counts: tuple[int, ...] = ()
        self.embeddings = nn.ModuleList()

    def setup(self, geometry: Geometry) -> None:
        self.embeddings = nn.ModuleList(nn.Linear(geometry.dim, self.channels) for _ in geometry.depths)
        self.counts = geometry.counts
        if self.reads == "attention_input":
            self.norms = nn.ModuleList(nn.LayerNorm(geometry.dim, eps=EPSILON) for _ in geometry.depths)

    def count(self, keep: int, n_patches: int, depth: int, layout: tuple[int, int] | None) -> int:
        return max(keep, n_patches - n_patches // 2)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        n, device = tokens.n_patches, tokens.x.device
        similarity = self._similarity(tokens, n, context)
        source, target = torch.arange(1, n, 2, device=device), torch.arange(0, n, 2, device=device)
        merged = n - self.count(keep, n, context.depth, tokens.layout)
        owner = bipartite_matching(similarity, source, target, n, merged)
        return tokens.merge(owner, n - merged)

    def relaxed(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        n, device = tokens.n_patches, tokens.x.device
        left = n if tokens.presence is None else self.counts[context.stage - 1]
        r = left - self.count(keep, left, context.depth, None)
        source, target = torch.arange(1, left, 2, device=device), torch.arange(0, left, 2, device=device)
        similarity = self._similarity(tokens, left, context)
        share = relaxed_matching(similarity, r, self.temperature)
        if self.choice == "hard":
            share = best_pairs(similarity, r).to(share.dtype) + (share - share.detach())
        stays = 1 - share.sum(dim=2)
        stays = stays + (stays.clamp_min(0) - stays).detach()  # rounding may make it negative

        mass = tokens.size if tokens.presence is None else tokens.size * tokens.presence
        patches = tokens.patches.to(share.dtype)
        moved = share * mass[:, source, None]
        received = mass[:, target] + moved.sum(dim=1)
        sums = mass[:, target, None] * patches[:, target] + moved.mT @ patches[:, source]
        patches = patches.index_copy(1, target, sums / received[..., None])
        mass = mass.to(share.dtype).index_copy(1, source, mass[:, source] * stays).index_copy(1, target, received)

        # In evaluation, the sources that stay come first, and then the targets.
        by_stay = stays.argsort(dim=1, descending=True)
        staying, gone = by_stay[:, : len(source) - r].sort(dim=1).values, by_stay[:, len(source) - r :]
        place = torch.arange(n, device=device).expand_as(mass)
        owner = torch.where(place < left, place, -1).scatter(
            1, source[gone], target[gather_rows(share, gone).argmax(dim=2)]
        )
        order = torch.cat([source[staying], place[:, target], source[gone], place[:, left:]], dim=1)
        tokens = tokens.stay(owner, torch.where(mass < 1, mass, 1.0))
        return tokens.replace(patches=patches, size=torch.where(mass < 1, 1.0, mass)).select(order)

    def _similarity(self, tokens: Tokens, n: int, context: Context) -> Tensor:
        """(B, S, T), c of each source and target among the first n patch tokens, in float32 or wider."""
        wide = torch.promote_types(tokens.x.dtype, torch.float32)
        x = tokens.patches[:, :n].detach()
        if self.reads == "attention_input":
            x = self.norms[context.stage](x - context.update[:, :n].detach())
        z = F.normalize(self.embeddings[context.stage](x).to(wide), dim=2)
        return z[:, 1::2] @ z[:, 0::2].mT


def best_pairs(similarity: Tensor, r: int) -> Tensor:
    """Which source is merged into which target in evaluation: (B, S, T) bool, from similarities (B, S, T)."""
    best, partner = similarity.max(dim=2, keepdim=True)
    merged = torch.zeros_like(best, dtype=torch.bool).scatter(
        1, best.argsort(dim=1, descending=True, stable=True)[:, :r], True
    )
    return torch.zeros_like(similarity, dtype=torch.bool).scatter(2, partner, merged)
