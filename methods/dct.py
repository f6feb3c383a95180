"""DCT: resample the token sequence from its lowest frequencies (He et al. 2023, arXiv 2305.15099).

Along the token axis: the orthonormal cosine transform (DCT-II) of length N, its first K coefficients, and the inverse
transform of length K, scaled by √(K/N) so that a constant sequence is unchanged. That is x' = M x with

    M[k, i] = 1/N Σ_{m<K} c_m cos(π m (2k+1) / 2K) cos(π m (2i+1) / 2N),    c_0 = 1, c_m = 2.

This is the spectral filter of the Fourier Transformer, a text model. Tran et al. (2024, arXiv 2405.16148) use it as a
baseline for ViTs, in every block; their code omits the scale, so that a constant grows by √(N/K). Prefix tokens are
unchanged. The sequence is the patches row by row, so the method smooths along rows and hardly along columns. M has
negative entries, so it does not determine sizes: the K new tokens represent K equal parts of the sequence, and each old
token belongs to the part that contains its centre.
"""

import torch
from torch import Tensor

from tokbench import Context, Downsampler, Paper, Tokens, register


@register("dct")
class DCT(Downsampler):
    """Resample the sequence from its K lowest frequencies."""

    schedule = "every_block"
    paper = Paper(
        "Fourier Transformer: Fast Long Range Modeling by Removing Sequence Redundancy with FFT Operator",
        "ACL Findings",
        2023,
        "2305.15099",
    )

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        n = tokens.n_patches
        centre = 2 * torch.arange(n, device=tokens.x.device) + 1  # of token i, in units of 1/2N of the sequence
        part = (centre * keep // (2 * n)).expand(tokens.size.shape)
        matrix = resampling(n, keep, tokens.x.device).to(tokens.x.dtype)
        return tokens.merge(part, keep).replace(patches=matrix @ tokens.patches)


def resampling(n: int, keep: int, device: torch.device) -> Tensor:
    """M, (K, N), in float64, since the sums have up to N terms and float32 products may be TF32 on a GPU."""
    frequency = torch.arange(keep, device=device, dtype=torch.float64)
    c = torch.where(frequency == 0, 1.0, 2.0)[:, None]
    return cosines(keep, frequency).mT @ (c * cosines(n, frequency) / n)


def cosines(n: int, frequency: Tensor) -> Tensor:
    """cos(π m (2i+1) / 2N) for frequencies m (K,) and i < N: (K, N)."""
    centre = (2 * torch.arange(n, device=frequency.device, dtype=frequency.dtype) + 1) / (2 * n)
    return (torch.pi * frequency[:, None] * centre).cos()
