"""Redundancy: which frequencies attention removes from the tokens, and how well fewer tokens represent all of them.

The premise of Token Pooling (Marin et al. 2021, arXiv 2110.03860) is that attention is a low-pass filter, so that the
tokens after it are redundant and can be reconstructed from a few of them. Both parts are measured on images.

The spectrum. An attention head replaces its values V (P+N, Dh) by A V, where the rows of A sum to one: each token
becomes a weighted mean of all tokens. V and A V are the same signal before and after this mixing, and nothing else
happens between them. The residual streams before and after the layer would not serve, because they also differ by a
norm, two projections and a sum. Prefix tokens take part in the mixing, as in the model; of the result only the patch
tokens are used, because only they have a position on the grid. The energy of the two-dimensional discrete Fourier
transform is summed over heads, channels and rings of modes of similar distance from the mean. For a
translation-invariant filter, the energy after divided by the energy before is its gain. Attention is not
translation-invariant, so energy also moves between frequencies, and the gain only relates input and output energy.

The reconstruction error. For a reduction from patch tokens f_i to patch tokens f̂_j it is the paper's loss in units of
the variance, which makes models, depths and scales comparable:

    Σ_i min_j |f_i - f̂_j|² / Σ_i |f_i - mean|²

It is 0 if every token has an identical reduced token, 1 if a single token at the mean represents all, and larger if the
choice is worse than that. Every reduction gets the plain model's tokens, so that methods which act at the same site of
a block are compared on the same input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from tokbench.context import Context
from tokbench.data.loading import Batch
from tokbench.downsampler import Downsampler, DownsamplerError, Geometry
from tokbench.measure.double_precision import in_double
from tokbench.schedule import Schedule
from tokbench.tokens import Tokens
from tokbench.vit.adapters import TimmViT
from tokbench.vit.attention import Heads
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.reduction import check_result

Observer = Callable[[int, Tokens, Tokens], None]


@dataclass(frozen=True)
class Spectra:
    """The energy of each block's values by frequency, mean over images.

    Attributes:
        frequency: The centre of each ring, as a fraction of Nyquist; 0 is the mean of all patch tokens.
        before: For each block the energy of V in each ring, as a fraction of the image's total energy; it sums to 1.
        after: The energy of A V, in the same unit.
        images: Number of images.
    """

    frequency: tuple[float, ...]
    before: tuple[tuple[float, ...], ...]
    after: tuple[tuple[float, ...], ...]
    images: int


@dataclass(frozen=True)
class Reconstruction:
    """One reduction of the plain model's tokens.

    Attributes:
        depth: The block's index.
        patches: N, the patch tokens before.
        tokens: The patch tokens after, mean over images.
        error: The reconstruction error, mean over images.
        error_sd: Its standard deviation over images (the sample's), 0 for a single image.
    """

    depth: int
    patches: int
    tokens: float
    error: float
    error_sd: float


def measure_spectra(vit: TimmViT, batches: Sequence[Batch]) -> Spectra:
    """The spectrum of each block's values, before and after attention mixes them.

    Args:
        vit: A timm ViT in evaluation mode.
        batches: At least one batch of images.

    Raises:
        ValueError: An energy is not a finite number.
    """
    model = DownsampledViT(vit)
    weight = vit.patch_embed.proj.weight
    shares = []
    with torch.inference_mode():
        for batch in batches:
            tokens, ids = model.embed(batch.images.to(weight)), batch.index.to(weight.device)
            blocks = []
            for depth in range(len(vit.blocks)):
                energies = torch.stack(mixing_energies(model.heads(tokens, depth), tokens.n_prefix, tokens.grid))
                blocks.append(energies / energies[0].sum(dim=-1, keepdim=True))
                tokens = model.through(tokens, range(depth, depth + 1), ids)
            shares.append(torch.stack(blocks).cpu())
    before, after = torch.cat(shares, dim=2).double().mean(dim=2).unbind(1)
    if not (torch.isfinite(before).all() and torch.isfinite(after).all()):
        raise ValueError("the energy of a block's values is not a finite number")
    return Spectra(
        frequency=ring_frequencies(tokens.grid),
        before=tuple(map(tuple, before.tolist())),
        after=tuple(map(tuple, after.tolist())),
        images=sum(len(batch.index) for batch in batches),
    )


def mixing_energies(heads: Heads, n_prefix: int, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The energy by ring of one block's values, before and after attention mixes them.

    Args:
        heads: The block's attention, with its matrix.
        n_prefix: P, the number of prefix tokens.
        grid: (h, w) of the patches.

    Returns:
        Two tensors (B, rings), summed over heads and channels.
    """
    assert heads.matrix is not None
    signals = (heads.v, heads.matrix @ heads.v)
    before, after = (ring_energies(signal[:, :, n_prefix:], grid).sum(dim=1) for signal in signals)
    return before, after


def ring_energies(signal: Tensor, grid: tuple[int, int]) -> Tensor:
    """The energy of a signal on the patch grid by ring; the energies add up to the sum of its squares (Parseval).

    Args:
        signal: (..., h*w, C), in row-major order.
        grid: (h, w).

    Returns:
        (..., rings), in float32 or a wider type.
    """
    wide = signal.to(torch.promote_types(signal.dtype, torch.float32))
    modes = torch.fft.fft2(wide.reshape(*wide.shape[:-2], *grid, wide.shape[-1]), dim=(-3, -2), norm="ortho")
    energy: Tensor = modes.abs().square().sum(dim=-1).flatten(-2)
    return energy @ F.one_hot(rings(grid).flatten()).to(energy)


def rings(grid: tuple[int, int]) -> Tensor:
    """(h, w) int64: the ring of each mode of the discrete Fourier transform; 0 is the mean.

    All rings have the same width, which is at least the lowest frequency of the longer side. A ring includes its outer
    edge, and one ring ends at half of Nyquist.
    """
    y, x = (torch.fft.fftfreq(side, dtype=torch.float64) for side in grid)
    radius = 2 * torch.hypot(y[:, None], x[None, :])
    rounding = 1e-9  # so that a mode on the outer edge of a ring is inside it
    return (radius * _rings_to_nyquist(grid) - rounding).ceil().long()


def ring_frequencies(grid: tuple[int, int]) -> tuple[float, ...]:
    """The centre of each ring as a fraction of Nyquist; 0 for the mean."""
    count = int(rings(grid).max()) + 1
    return (0.0, *((ring - 0.5) / _rings_to_nyquist(grid) for ring in range(1, count)))


def measure_reconstruction(
    vit: TimmViT,
    method: Downsampler,
    schedule: Schedule,
    batches: Sequence[Batch],
    ids: Tensor,
    *,
    site: str | None = None,
    seed: int = 0,
    constants: Mapping[str, Tensor] | None = None,
) -> tuple[Reconstruction, ...]:
    """How well a method's tokens represent the plain model's, at each depth where its schedule reduces.

    Each reduction starts from all N patch tokens; K is what the schedule keeps of them at that depth.

    Args:
        vit: A timm ViT in evaluation mode.
        method: A new instance, because it is set up for these reductions.
        schedule: At which depths to reduce, and how far.
        batches: At least one batch of images.
        ids: (images of the whole set,) int64, the image ids that the method's noise depends on.
        site: Overrides the method's own site.
        seed: Seed of the method's noise.
        constants: The state of a calibrated method.

    Returns:
        One result per depth.

    Raises:
        DownsamplerError: The method broke its contract, or an error is not a finite number.
        UserError: Method, site, schedule and model do not fit together.
    """
    errors: dict[int, list[Tensor]] = {}
    counts: dict[int, list[Tensor]] = {}

    def observe(depth: int, before: Tokens, after: Tokens) -> None:
        valid = torch.ones_like(after.size, dtype=torch.bool) if after.valid is None else after.valid
        errors.setdefault(depth, []).append(reconstruction_error(before.patches, after.patches, valid).cpu())
        counts.setdefault(depth, []).append(valid.sum(dim=1).cpu().double())

    weight = vit.patch_embed.proj.weight
    model = DownsampledViT(vit, _Observed(method, schedule, observe), schedule, site=site, seed=seed).eval()
    if constants is not None:
        method.load_state_dict(constants)
    with torch.inference_mode():
        for batch in batches:
            model(batch.images.to(weight), ids[batch.index].to(weight.device))
    n = vit.patch_embed.num_patches
    return tuple(
        _mean(depth, n, torch.cat(errors[depth]), torch.cat(counts[depth]))
        if depth in errors
        else Reconstruction(depth, n, tokens=n, error=0.0, error_sd=0.0)  # K >= N: no reduction
        for depth in model.depths
    )


def reconstruction_error(before: Tensor, after: Tensor, valid: Tensor | None = None) -> Tensor:
    """The loss of a reduction in units of the variance, (B,) float64.

    Args:
        before: (B, N, D) patch tokens.
        after: (B, K, D) the reduced patch tokens.
        valid: (B, K) bool, False for padding; None if there is no padding.
    """
    # In double precision, because distances computed by a matrix product lose digits.
    f, reduced = in_double(before), in_double(after)
    centre = f.mean(dim=1, keepdim=True)
    f, reduced = f - centre, reduced - centre
    distance = torch.cdist(f, reduced).square()
    if valid is not None:
        distance = distance.masked_fill(~valid[:, None].to(distance.device), torch.inf)
    return distance.amin(dim=2).sum(dim=1) / f.square().sum(dim=(1, 2))


class _Observed(Downsampler):
    """Passes a method's result to an observer, and returns the tokens unchanged."""

    def __init__(self, method: Downsampler, schedule: Schedule, observe: Observer) -> None:
        super().__init__()
        self.method = method
        self.planned_schedule = schedule
        self.observe = observe
        self.name, self.site, self.sites, self.needs = method.name, method.site, method.sites, method.needs

    def setup(self, geometry: Geometry) -> None:
        n = math.prod(geometry.grid)
        counts = []
        for stage, depth in enumerate(geometry.depths):
            keep = self.planned_schedule.target(stage, n)
            counts.append(self.method.count(keep, n, depth, geometry.grid) if keep < n else n)
        self.method.setup(replace(geometry, counts=tuple(counts)))

    def count(self, keep: int, n_patches: int, depth: int, layout: tuple[int, int] | None) -> int:
        return n_patches

    def layout_after(self, keep: int, layout: tuple[int, int] | None) -> tuple[int, int] | None:
        return layout

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        reduced = self.method(tokens, keep, context)
        count = self.method.count(keep, tokens.n_patches, context.depth, tokens.layout)
        check_result(self.method, tokens, reduced, count, context.depth)
        self.observe(context.depth, tokens, reduced)
        return tokens


def _rings_to_nyquist(grid: tuple[int, int]) -> int:
    return 2 * max(1, max(grid) // 4)


def _mean(depth: int, n: int, errors: Tensor, counts: Tensor) -> Reconstruction:
    if not torch.isfinite(errors).all():
        raise DownsamplerError(f"the reconstruction error at depth {depth} is not finite (NaN or infinity)")
    spread = float(errors.std()) if len(errors) > 1 else 0.0
    return Reconstruction(depth, n, float(counts.mean()), float(errors.mean()), spread)
