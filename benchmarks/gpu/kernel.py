"""The Triton kernel `received` and the plain version, both against float64; and how much faster the kernel is.

    python benchmarks/gpu/kernel.py DEVICE

The shapes are those of ViTs that tokbench supports, also with a bias for the keys and with padding. The error is the
largest difference from float64, divided by the largest value. The exit code is 1 if the kernel's exceeds the bound:
it keeps sums in float32 in all dtypes. The plain version multiplies in the tensors' dtype, and is less exact in halves.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch
from torch import Tensor

from tokbench.measure.devices import device_name, resolve_device
from tokbench.measure.latency import measure_latency
from tokbench.stats.times import compare_times
from tokbench.vit import kernels
from tokbench.vit.attention import Heads, _column_sums

BATCH = 32
CHECKED = 4  # images that are computed in float64
BOUND = 1e-5
SECONDS, PRECISION = 0.2, 0.02
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@dataclass(frozen=True)
class Shape:
    """The attention of a model: H heads of width Dh on n tokens, of which the first are no patches."""

    model: str
    heads: int
    n: int
    width: int = 64
    prefix: int = 1
    biased: bool = False
    padded: bool = False


SHAPES = (
    Shape("DeiT-Ti", 3, 197),
    Shape("DeiT-S", 6, 197),
    Shape("DeiT-S, half of the tokens", 6, 99),
    Shape("DeiT-S, bias", 6, 139, biased=True),
    Shape("DeiT-S, padding", 6, 139, biased=True, padded=True),
    Shape("DeiT-B", 12, 197),
    Shape("DeiT-B, 384 pixels", 12, 577),
    Shape("DINOv2-S with registers, 518 pixels", 6, 1374, prefix=5),
    Shape("ViT-H/14", 16, 257, width=80),
    Shape("SigLIP So400m/14, 384 pixels", 16, 729, width=72, prefix=0),
)


@dataclass(frozen=True, eq=False)
class Inputs:
    """The arguments of both versions."""

    q: Tensor
    k: Tensor
    bias: Tensor | None
    valid: Tensor | None
    scale: float
    prefix: int

    def first(self, count: int) -> Inputs:
        """Those of the first images."""
        bias = None if self.bias is None else self.bias[:count]
        valid = None if self.valid is None else self.valid[:count]
        return Inputs(self.q[:count], self.k[:count], bias, valid, self.scale, self.prefix)


def inputs(shape: Shape, dtype: torch.dtype, device: torch.device) -> Inputs:
    """Normally distributed queries and keys, strided as a model's are."""
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(BATCH, shape.n, 3, shape.heads, shape.width, generator=generator).to(device, dtype)
    q, k, _ = qkv.permute(2, 0, 3, 1, 4).unbind()
    bias = torch.rand(BATCH, 1, 1, shape.n, generator=generator).to(device, dtype) if shape.biased else None
    valid = None
    if shape.padded and bias is not None:
        valid = (torch.rand(BATCH, shape.n - shape.prefix, generator=generator) > 0.4).to(device)
        bias[:, 0, 0, shape.prefix :] = bias[:, 0, 0, shape.prefix :].masked_fill(~valid, -torch.inf)
    return Inputs(q, k, bias, valid, shape.width**-0.5, shape.prefix)


def kernel(x: Inputs) -> Tensor:
    return kernels.received(x.q, x.k, x.bias, x.valid, x.scale, x.prefix)


def plain(x: Inputs) -> Tensor:
    return _column_sums(Heads(x.q, x.k, x.k, x.scale, x.bias, None), x.valid, x.prefix)


def exact(x: Inputs) -> Tensor:
    """(B, N) in float64, image by image."""
    sums = []
    for image, (q, k) in enumerate(zip(x.q.double(), x.k.double(), strict=True)):
        logits = x.scale * (q @ k.mT)
        if x.bias is not None:
            logits += x.bias[image, 0, 0].double()
        rows = logits.softmax(dim=2).sum(dim=0)
        if x.valid is not None:
            rows = torch.cat([rows[: x.prefix], rows[x.prefix :][x.valid[image]]])
        sums.append(rows.sum(dim=0)[x.prefix :])
    return torch.stack(sums)


def main(name: str) -> int:
    """Compare both versions on all shapes; the exit code."""
    device = resolve_device(name)
    print(f"On {device_name(device)}; batch {BATCH}, {CHECKED} of them against float64; bound of the kernel {BOUND:g}.")
    print(f"{'shape':36} {'dtype':9} {'kernel error':>12} {'plain error':>12} {'times as fast':>13}  95 % interval")
    worst = 0.0
    for shape in SHAPES:
        for dtype in DTYPES:
            with torch.inference_mode():
                x = inputs(shape, dtype, device)
                few = x.first(CHECKED)
                truth = exact(few)
                of_kernel, of_plain = (
                    float((found.double() - truth).abs().max() / truth.abs().max())
                    for found in (kernel(few), plain(few))
                )
            worst = max(worst, of_kernel)
            timed = measure_latency(lambda _, x=x: plain(x), lambda _, x=x: kernel(x), [x.q], SECONDS, PRECISION)  # type: ignore[misc]
            ratio = compare_times(timed.base_s, timed.other_s).speedup
            interval = f"{ratio.lo:.2f} to {ratio.hi:.2f}"
            line = f"{shape.model:36} {str(dtype)[6:]:9} {of_kernel:12.1e} {of_plain:12.1e} {ratio.estimate:13.2f}"
            print(f"{line}  {interval}", flush=True)
    met = worst <= BOUND  # false for NaN
    print(f"Largest error of the kernel: {worst:.1e}, bound {BOUND:g}: {'met' if met else 'missed'}.")
    if not met:
        print(f"the kernel's error of {worst:.1e} is above {BOUND:g}", file=sys.stderr)
    return int(not met)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
