"""DCT: resample the sequence of tokens by its lowest frequencies (He et al. 2023, arXiv 2305.15099).

Along the token axis: the orthonormal cosine transform (DCT-II) of length N, its first K coefficients, and the inverse
transform of length K, scaled by √(K/N) so that a constant stays what it is. That is x' = M x with

    M[k, i] = 1/N Σ_{m<K} c_m cos(π m (2k+1) / 2K) cos(π m (2i+1) / 2N),    c_0 = 1, c_m = 2.

The Fourier Transformer's spectral filter, for text; used on ViTs as a baseline (Tran et al. 2024, arXiv 2405.16148),
in every block, by code that leaves the scale out, so that a constant grows by √(N/K). Prefix tokens are left alone.
The axis is the order of the patches row by row, so what is smoothed are rows and hardly columns. M has negative
entries, so sizes are not mixed by it: of the K new tokens, at the centres of K equal parts of the sequence, each patch
is counted to the one whose part it lies in.
"""

import torch
from torch import Tensor

from tokbench import Context, Downsampler, Paper, Tokens, register


@register("dct")
class DCT(Downsampler):
    """Keep the K lowest frequencies of the sequence."""

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
    """M, (K, N) float64: the sums run over up to N terms, and single precision may be TF32 on a GPU."""
    frequency = torch.arange(keep, device=device, dtype=torch.float64)
    c = torch.where(frequency == 0, 1.0, 2.0)[:, None]
    return cosines(keep, frequency).mT @ (c * cosines(n, frequency) / n)


def cosines(n: int, frequency: Tensor) -> Tensor:
    """cos(π m (2i+1) / 2N) for frequencies m (K,) and i < N: (K, N)."""
    centre = (2 * torch.arange(n, device=frequency.device, dtype=frequency.dtype) + 1) / (2 * n)
    return (torch.pi * frequency[:, None] * centre).cos()
