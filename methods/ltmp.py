"""LTMP: merge above a learned similarity, prune below a learned importance (Bonnaerens and Dambre 2023, 2307.10780).

    merge:  tokens at odd positions are sources, those at even positions targets; a source is merged into its most
            similar target (cosine of keys) if that similarity is above θ_m
    prune:  of the remaining tokens, drop those with importance s_i = mean_{h,q} A[h, q, i] below θ_p

with two learned thresholds per reduction, initially θ_m = 0.9 and θ_p = 0. Only the thresholds decide, so the number of
tokens left differs between images and K is ignored: it is the target of training. `count` therefore returns N, the
upper bound.

Training keeps all tokens. A decision x > θ is 0 or 1 with the gradient of sigmoid((x - θ) / 0.1) (straight-through),
and the presence of a token becomes p_i ← p_i (1 - [merged]) [not pruned]. The loss has the term 10 (f - f*)², where f
is the share of the plain model's multiply-accumulates that is left:

    f = mean over blocks l of (2 n_l D² + n_l² D + 4 n_{l+1} D²) / (6 n_0 D² + n_0² D)

with n_l present tokens, the prefix included, in block l's attention and n_{l+1} in its MLP, on average over the batch;
f* is f for the schedule's K. The means of merged tokens have no gradient to the thresholds.

Decided here: a merged token is the mean weighted by size and has its target's importance; attention does not include
sizes; the most important token is always kept; padding queries and absent ones are excluded from s. In training,
present tokens are moved to the front, so that they have the same partners as in evaluation. The public code also clips
the thresholds to [0, 1] after every step.

Checkpoints of the public code need `variant=authors`, its inference (Mxbonn/ltmp, lt_mergeprune_inference.py): a merged
token has the largest importance of its members, the sources that are left come before the targets, and attention adds
log(size). Its training leaves removed tokens in place, so that its later pairs are others.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokbench import Context, Downsampler, Geometry, Paper, Tokens, register

TEMPERATURE = 0.1
LOSS_WEIGHT = 10.0


@dataclass(frozen=True, eq=False)
class Choice:
    """What the thresholds decide.

    Attributes:
        merge_margin: (B, S), the largest similarity of each source minus θ_m.
        partner: (B, S) int64, the position of its target.
        merging: (B, S), whether it is merged.
        prune_margin: (B, N), s - θ_p.
        kept: (B, N), whether each token is neither merged nor pruned, nor was absent before.
    """

    merge_margin: Tensor
    partner: Tensor
    merging: Tensor
    prune_margin: Tensor
    kept: Tensor

    def with_sources(self, owner: Tensor) -> Tensor:
        """(B, N), the owners of all tokens, from those of the kept ones: a merged source shares its target's."""
        merged = torch.where(self.merging, owner.gather(1, self.partner), owner[:, 1::2])
        return owner.scatter(1, sources(owner), merged)


@register("ltmp")
class LTMP(Downsampler):
    """Merge similar tokens and drop unimportant ones, by learned thresholds."""

    needs = frozenset({"received", "keys"})
    trained = True
    adaptive = True
    ignores_keep = True
    schedule = "every_block"
    paper = Paper("Learned Thresholds Token Merging and Pruning for Vision Transformers", "TMLR", 2023, "2307.10780")

    def __init__(self, variant: Literal["default", "authors"] = "default") -> None:
        """Choose what the paper leaves open; `setup` creates the thresholds.

        Args:
            variant: `default`: as decided here; `authors`: as in the public code's inference, for its checkpoints.
        """
        super().__init__()
        self.variant = variant
        self.proportional = variant == "authors"
        self.merge_thresholds = nn.Parameter(torch.empty(0))
        self.prune_thresholds = nn.Parameter(torch.empty(0))
        self.geometry: Geometry | None = None

    def setup(self, geometry: Geometry) -> None:
        self.geometry = geometry
        self.merge_thresholds = nn.Parameter(torch.full((len(geometry.depths),), 0.9))
        self.prune_thresholds = nn.Parameter(torch.zeros(len(geometry.depths)))

    def count(self, keep: int, n_patches: int, depth: int, layout: tuple[int, int] | None) -> int:
        return n_patches

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        valid = torch.ones_like(tokens.size, dtype=torch.bool) if tokens.valid is None else tokens.valid
        choice = self._choose(tokens, valid, context)
        order = self._order(choice.kept)
        rank = choice.kept[:, order].to(torch.int64).cumsum(dim=1) - 1
        place = torch.empty_like(rank).index_copy(1, order, rank).masked_fill(~choice.kept, -1)
        result = tokens.merge(choice.with_sources(place), tokens.n_patches)
        return dataclasses.replace(result, valid=result.size > 0)

    def relaxed(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        before = torch.ones_like(tokens.size) if tokens.presence is None else tokens.presence
        choice = self._choose(tokens, before > 0.5, context)
        staying = 1 - straight_through(choice.merging, choice.merge_margin)
        unpruned = straight_through(choice.kept, choice.prune_margin)
        place = torch.arange(tokens.n_patches, device=before.device).expand_as(choice.kept)
        merged = torch.zeros_like(choice.kept).scatter(1, sources(before), choice.merging)
        presence = before * torch.ones_like(before).scatter(1, sources(before), staying.to(before.dtype))
        presence = presence * torch.where(merged | (before < 0.5), 1.0, unpruned)

        owner = choice.with_sources(place.masked_fill(~choice.kept, -1))
        means = tokens.merge(owner, tokens.n_patches).patches
        patches = torch.where(choice.kept[..., None], means, tokens.patches)
        order = self._order(choice.kept)
        present_first = order[choice.kept[:, order].to(torch.uint8).argsort(dim=1, descending=True, stable=True)]
        return tokens.stay(owner, presence).replace(patches=patches).select(present_first)

    def loss(self, after: Sequence[Tokens]) -> Tensor:
        assert self.geometry is not None
        counts = [(torch.ones_like(t.size) if t.presence is None else t.presence).sum(dim=1).mean() for t in after]
        prefix = after[0].n_prefix
        reached = macs_left(self.geometry, [prefix + count for count in counts], prefix)
        wanted = macs_left(self.geometry, [prefix + count for count in self.geometry.targets], prefix)
        difference: Tensor = torch.as_tensor(reached) - wanted
        return LOSS_WEIGHT * difference.square()

    def _choose(self, tokens: Tokens, present: Tensor, context: Context) -> Choice:
        """Compare with the thresholds; (B, N) `present` tells which tokens there are."""
        assert self.geometry is not None
        wide = torch.promote_types(tokens.x.dtype, torch.float32)
        keys = F.normalize(context.keys.to(wide), dim=2)
        pairs = present[:, 1::2, None] & present[:, None, 0::2]
        similarity, partner = (keys[:, 1::2] @ keys[:, 0::2].mT).masked_fill(~pairs, -torch.inf).max(dim=2)
        merge_margin = similarity - self.merge_thresholds[context.stage].to(wide)
        merging = merge_margin > 0

        queries = tokens.n_prefix + present.sum(dim=1, keepdim=True)
        s = context.received / (self.geometry.heads * queries)
        if self.variant == "authors":
            of_merged = s[:, 1::2].masked_fill(~merging, -torch.inf)
            s = s.scatter_reduce(1, 2 * partner, of_merged, "amax")
        theta_p = self.prune_thresholds[context.stage].to(wide)
        merged = torch.zeros_like(present).scatter(1, sources(present), merging)
        candidates = s.masked_fill(merged | ~present, -torch.inf)
        kept = (candidates >= theta_p).scatter(1, candidates.argmax(dim=1, keepdim=True), 1)
        return Choice(merge_margin, 2 * partner, merging, s - theta_p, kept)

    def _order(self, like: Tensor) -> Tensor:
        """(N,) int64, the positions of tokens (B, N) in the order in which those that are left are returned."""
        place = torch.arange(like.shape[1], device=like.device)
        return torch.cat([place[1::2], place[0::2]]) if self.variant == "authors" else place


def sources(like: Tensor) -> Tensor:
    """(B, S) int64, the odd positions, for tokens (B, N)."""
    return torch.arange(1, like.shape[1], 2, device=like.device).expand(like.shape[0], -1)


def straight_through(decision: Tensor, margin: Tensor) -> Tensor:
    """The decision as 0 or 1, with the gradient of a soft threshold on the margin."""
    soft = (margin / TEMPERATURE).sigmoid()
    return decision.to(soft.dtype) + (soft - soft.detach())


def macs_left(geometry: Geometry, left: Sequence[Any], prefix: int) -> Any:
    """The share f of the plain model's multiply-accumulates, see above.

    Args:
        geometry: The model and the depths of the reductions.
        left: The tokens after each reduction, the prefix included, as numbers or scalar tensors.
        prefix: P.
    """
    dim, whole = geometry.dim, prefix + geometry.grid[0] * geometry.grid[1]
    after = dict(zip(geometry.depths, left, strict=True))
    n: Any = whole
    total: Any = 0.0
    for block in range(geometry.blocks):
        m = after.get(block, n)
        total = total + 2 * n * dim + n**2 + 4 * m * dim  # divided by D
        n = m
    return total / (geometry.blocks * (6 * whole * dim + whole**2))
