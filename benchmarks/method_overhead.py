"""The overhead of each method: the model's time with it, relative to random selection with the same K.

    GOMP_SPINCOUNT=30000 python benchmarks/method_overhead.py [METHOD ...]

DeiT-S with random weights, keep 0.7 at depths 3, 6 and 9; float32 and batch 32 on a CPU, bf16 and batch 256 on a GPU.
Both models run in one process, in alternating order. The first ratio is to random selection at the method's site, so it
is the overhead of the method alone; the second is to random selection at its own site, so it includes the cost of
acting later in a block. The target for Token Pooling is at most 1.25 on a CPU and 1.10 on a GPU. A method may have
parameters: 'token_pooling(algorithm=kmeans)'.

Writes results/speed/method_overhead.txt (on a GPU in results/speed/cuda), unless methods are given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import timm
import torch
import typer
from output import SPEED, write_output
from rich.progress import track
from torch import Tensor

from tokbench.measure.devices import device_name
from tokbench.measure.latency import measure_latency
from tokbench.notation import parse_call
from tokbench.registry import create, discover
from tokbench.schedule import Stages
from tokbench.stats.proportions import Interval
from tokbench.stats.times import compare_times
from tokbench.vit.backbone import DownsampledViT

MODEL = "deit_small_patch16_224"
KEEP = 0.7
BASE = "random_selection"
TARGETS = {"cpu": 1.25, "cuda": 1.10}
TARGET_OF = "token_pooling"
SECONDS = {"cpu": 15.0, "cuda": 5.0}  # per method; ten rounds are always taken
PRECISION = 0.003

Build = Callable[..., DownsampledViT]


def builder(device: torch.device) -> tuple[Build, Tensor]:
    """A function that builds a model with a method, and a batch of noise."""
    dtype, batch = (torch.bfloat16, 256) if device.type == "cuda" else (torch.float32, 32)
    torch.manual_seed(0)
    vit = timm.create_model(MODEL, pretrained=False).to(device, dtype).eval()
    images = torch.randn(batch, 3, *vit.patch_embed.img_size).to(device, dtype)

    def build(method: str, site: str | None = None) -> DownsampledViT:
        torch.manual_seed(0)  # for the weights of the method
        call = parse_call(method)
        return DownsampledViT(vit, create(call.name, **call.named), Stages(KEEP), site=site).eval()

    return build, images


def time_ratio(base: DownsampledViT, other: DownsampledViT, images: Tensor) -> Interval:
    """The other model's time divided by the base model's."""
    timed = measure_latency(base, other, [images], SECONDS[images.device.type], PRECISION)
    speedup = compare_times(timed.base_s, timed.other_s).speedup
    return Interval(1 / speedup.estimate, 1 / speedup.hi, 1 / speedup.lo)


def note(model: DownsampledViT, base: DownsampledViT) -> str:
    """Why a ratio is not the overhead at equal token counts; empty if it is."""
    assert model.downsampler is not None
    if model.downsampler.adaptive:
        return "adaptive: K is an upper bound, or ignored"
    if model.counts != base.counts:
        return f"keeps {'-'.join(map(str, model.counts))}, not {'-'.join(map(str, base.counts))}"
    return ""


def main(
    methods: Annotated[list[str] | None, typer.Argument(help="Methods to time; default: all.")] = None,
) -> None:
    """Time the methods and report whether Token Pooling meets its target."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = methods or [name for name in discover()[0] if name != BASE]
    build, images = builder(device)
    base = build(BASE)
    bases = {base.site: base}
    site_ratio = {base.site: 1.0}  # random selection at a site, relative to random selection at its own site
    lines = [
        f"{MODEL}, keep {KEEP} at depths 3, 6, 9; {images.dtype}, batch {len(images)}, {device_name(device)}",
        "",
        f"{'method':34} {'site':16} {'overhead':>8} {'95 % interval':>15} {'total':>7}",
    ]
    for name in track(names, transient=True):
        model = build(name)
        if model.site not in bases:
            bases[model.site] = build(BASE, model.site)
            site_ratio[model.site] = time_ratio(base, bases[model.site], images).estimate
        ratio = time_ratio(bases[model.site], model, images)
        interval = f"{ratio.lo:.3f} to {ratio.hi:.3f}"
        total = ratio.estimate * site_ratio[model.site]
        line = f"{name:34} {model.site:16} {ratio.estimate:8.3f} {interval:>15} {total:7.3f}"
        lines.append(f"{line}  {note(model, base)}".rstrip())
        if parse_call(name).name == TARGET_OF:
            target = TARGETS[device.type]
            met = "met" if ratio.estimate <= target else "missed"
            lines.append(f"{'':34} at most {target:.2f}: {met}")
    lines += [
        "",
        "overhead: time relative to random selection at the same site; total: relative to random selection at its own.",
    ]
    lines += [
        f"Random selection {site} takes {ratio:.3f} times as long as at its own site."
        for site, ratio in site_ratio.items()
    ]
    if methods:
        print(*lines, sep="\n")
    else:
        folder = SPEED / "cuda" if device.type == "cuda" else SPEED
        write_output(folder / "method_overhead.txt", lines, ("python", "torch", "timm", "tokbench"))


if __name__ == "__main__":
    typer.run(main)
