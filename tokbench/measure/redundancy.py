"""Redundancy: what attention filters out of the tokens, and how well fewer tokens stand for all of them.

The premise of Token Pooling (Marin et al. 2021, arXiv 2110.03860) is that attention is a low-pass filter, so that the
tokens behind it are redundant and a few of them can reconstruct the rest. Both halves are measured on images.

The spectrum. An attention head replaces its values V (P+N, Dh) by A V, where the rows of A sum to one: each token
becomes a mean over all of them. V and A V are one signal without and with that mixing, and nothing else lies between
them. The residual streams before and after the layer would not do: they differ by a norm, two projections and a sum as
well. Prefix tokens take part in the mixing, as they do in the model; of the result the patch tokens are looked at, for
only these have a place on the grid. Its two-dimensional discrete Fourier transform is summed over heads and channels,
and over rings of modes whose distance from the mean is alike. A filter's energy after, divided by its energy before, is
its gain where it treats every place alike. Attention does not, so energy wanders between frequencies too, and the gain
only says what went in and came out.

The reconstruction error. Of a reduction from tokens f_i to tokens f̂_j, over patch tokens, it is the paper's loss in
units of the variance, which makes models, depths and scales comparable:

    Σ_i min_j |f_i - f̂_j|² / Σ_i |f_i - mean|²

It is 0 where every token has one that is the same, 1 where a single token stands in their mean, and more where the
choice is worse than that. Every reduction is given the plain model's tokens, so that the methods which act at one site
of a block are compared on the same input.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor
from torch.nn import functional as F

from tokbench.data.loading import Batch
from tokbench.downsampler import Context, Downsampler, DownsamplerError, Geometry
from tokbench.schedule import Schedule
from tokbench.tokens import Tokens
from tokbench.vit.attention import Heads, attend
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.reduction import check_result

HIGH = 0.5  # of Nyquist, which is half a cycle a patch: what lies above counts as high frequency

Observer = Callable[[int, Tokens, Tokens], None]


@dataclass(frozen=True)
class Spectra:
    """The energy of each block's values by frequency, mean over images.

    Attributes:
        frequency: The middle of each ring, as a fraction of Nyquist; 0 for the mean of all patch tokens alone.
        before: For each block the energy of V in each ring, as a fraction of an image's whole; it sums to 1.
        after: The energy of A V, in the same unit.
        images: How many there were.
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


def measure_spectra(vit: VisionTransformer, batches: Sequence[Batch]) -> Spectra:
    """The spectrum of each block's values, without and with the mixing by attention.

    Args:
        vit: A timm ViT in evaluation mode.
        batches: Images, at least one.

    Raises:
        ValueError: An energy is not a finite number.
    """
    model = DownsampledViT(vit)
    weight = vit.patch_embed.proj.weight
    shares = []
    with torch.inference_mode():
        for batch in batches:
            tokens = model.embed(batch.images.to(weight))
            x, blocks = tokens.x, []
            for block in vit.blocks:
                _, heads = attend(block.attn, block.norm1(x), matrix=True)
                energies = torch.stack(mixing_energies(heads, tokens.n_prefix, tokens.grid))
                blocks.append(energies / energies[0].sum(dim=-1, keepdim=True))
                x = block(x)
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
        n_prefix: P.
        grid: (h, w) of the patches.

    Returns:
        Twice (B, rings), summed over heads and channels.
    """
    assert heads.matrix is not None
    signals = (heads.v, heads.matrix @ heads.v)
    before, after = (ring_energies(signal[:, :, n_prefix:], grid).sum(dim=1) for signal in signals)
    return before, after


def ring_energies(signal: Tensor, grid: tuple[int, int]) -> Tensor:
    """The energy of a signal on the patch grid by ring; their sum is the sum of its squares (Parseval).

    Args:
        signal: (..., h*w, C), in row-major order.
        grid: (h, w).

    Returns:
        (..., rings), float32 at least.
    """
    wide = signal.to(torch.promote_types(signal.dtype, torch.float32))
    modes = torch.fft.fft2(wide.reshape(*wide.shape[:-2], *grid, wide.shape[-1]), dim=(-3, -2), norm="ortho")
    energy: Tensor = modes.abs().square().sum(dim=-1).flatten(-2)
    return energy @ F.one_hot(rings(grid).flatten()).to(energy)


def rings(grid: tuple[int, int]) -> Tensor:
    """(h, w) int64: the ring of each mode of the discrete Fourier transform, 0 for the mean.

    Rings are equally wide, closed on the outside, at least as wide as the lowest frequency of the longer side, and one
    of them ends at half of Nyquist.
    """
    y, x = (torch.fft.fftfreq(side, dtype=torch.float64) for side in grid)
    radius = 2 * torch.hypot(y[:, None], x[None, :])
    rounding = 1e-9  # a mode on a ring's edge stays inside of it
    return (radius * _rings_to_nyquist(grid) - rounding).ceil().long()


def ring_frequencies(grid: tuple[int, int]) -> tuple[float, ...]:
    """The middle of each ring as a fraction of Nyquist; 0 for the mean."""
    count = int(rings(grid).max()) + 1
    return (0.0, *((ring - 0.5) / _rings_to_nyquist(grid) for ring in range(1, count)))


def measure_reconstruction(
    vit: VisionTransformer,
    method: Downsampler,
    schedule: Schedule,
    batches: Sequence[Batch],
    ids: Tensor,
    *,
    site: str | None = None,
    seed: int = 0,
) -> tuple[Reconstruction, ...]:
    """How well a method's tokens stand for the plain model's, at each depth where its schedule acts.

    Each reduction starts from all N patch tokens; K is what the schedule leaves of them there.

    Args:
        vit: A timm ViT in evaluation mode.
        method: Made anew: it is set up for these reductions.
        schedule: When it acts.
        batches: Images, at least one.
        ids: (images of the whole set,) int64, each image's identity for the method's noise.
        site: Overrides the method's own.
        seed: Of the method's noise.

    Returns:
        One for each depth.

    Raises:
        DownsamplerError: The method broke its contract, or an error is not a finite number.
        UserError: Method, site, schedule and model do not fit together.
    """
    errors: dict[int, list[Tensor]] = {}
    left: dict[int, list[Tensor]] = {}

    def observe(depth: int, before: Tokens, after: Tokens) -> None:
        valid = torch.ones_like(after.size, dtype=torch.bool) if after.valid is None else after.valid
        errors.setdefault(depth, []).append(reconstruction_error(before.patches, after.patches, valid).cpu())
        left.setdefault(depth, []).append(valid.sum(dim=1).double().cpu())

    weight = vit.patch_embed.proj.weight
    model = DownsampledViT(vit, _Watched(method, schedule, observe), schedule, site=site, seed=seed).eval()
    with torch.inference_mode():
        for batch in batches:
            model(batch.images.to(weight), ids[batch.index].to(weight.device))
    n = vit.patch_embed.num_patches
    return tuple(
        _mean(depth, n, torch.cat(errors[depth]), torch.cat(left[depth]))
        if depth in errors
        else Reconstruction(depth, n, tokens=n, error=0.0, error_sd=0.0)  # K >= N: nothing was reduced
        for depth in model.depths
    )


def reconstruction_error(before: Tensor, after: Tensor, valid: Tensor | None = None) -> Tensor:
    """The loss of a reduction in units of the variance, (B,) float64.

    Args:
        before: (B, N, D) patch tokens.
        after: (B, K, D) those that stand for them.
        valid: (B, K) bool, False for padding; None where there is none.
    """
    # In double precision, where the distances that a matrix product gives are good to many digits.
    f, reduced = before.double(), after.double()
    centre = f.mean(dim=1, keepdim=True)
    f, reduced = f - centre, reduced - centre
    distance = torch.cdist(f, reduced).square()
    if valid is not None:
        distance = distance.masked_fill(~valid[:, None], torch.inf)
    return distance.amin(dim=2).sum(dim=1) / f.square().sum(dim=(1, 2))


class _Watched(Downsampler):
    """Shows an observer what a method makes of the tokens, and hands them on as they were."""

    def __init__(self, method: Downsampler, planned: Schedule, observe: Observer) -> None:
        super().__init__()
        self.method = method
        self.planned = planned
        self.observe = observe
        self.name, self.site, self.sites, self.needs = method.name, method.site, method.sites, method.needs

    def setup(self, geometry: Geometry) -> None:
        n = math.prod(geometry.grid)
        counts = []
        for stage, depth in enumerate(geometry.depths):
            keep = self.planned.target(stage, n)
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


def _mean(depth: int, n: int, errors: Tensor, left: Tensor) -> Reconstruction:
    if not torch.isfinite(errors).all():
        raise DownsamplerError(f"the reconstruction error at depth {depth} is not finite (NaN or infinity)")
    spread = float(errors.std()) if len(errors) > 1 else 0.0
    return Reconstruction(depth, n, float(left.mean()), float(errors.mean()), spread)
