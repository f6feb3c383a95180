"""What choosing costs: the whole model's time under each method, over that under random selection at equal K.

    GOMP_SPINCOUNT=30000 python benchmarks/price_of_choosing.py [METHOD ...]

DeiT-S with random weights, keep 0.7 at depths 3, 6 and 9; float32 and batch 32 on a CPU, bf16 and batch 256 on a GPU.
Both models run in one process, in turn. The first ratio is to random selection at the method's own site, so it is the
price of choosing alone; the second, to random selection at its own site, has in it what acting later in a block costs.
Token Pooling is to cost at most 1.25 times on a CPU, 1.10 times on a GPU. A name may carry parameters:
'token_pooling(algorithm=kmeans)'.

Writes results/speed/price_of_choosing.txt (on a GPU in results/speed/cuda), but not where methods are named.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

import timm
import torch
import typer
from kept import SPEED, keep
from rich.progress import track
from torch import Tensor

from tokbench.measure.environment import device_name
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
SECONDS = {"cpu": 15.0, "cuda": 5.0}  # for each method; ten rounds are always taken
PRECISION = 0.003

Make = Callable[..., DownsampledViT]


def maker(device: torch.device) -> tuple[Make, Tensor]:
    """What makes a model with a method in it, and a batch of noise."""
    dtype, batch = (torch.bfloat16, 256) if device.type == "cuda" else (torch.float32, 32)
    torch.manual_seed(0)
    vit = timm.create_model(MODEL, pretrained=False).to(device, dtype).eval()
    images = torch.randn(batch, 3, *vit.patch_embed.img_size).to(device, dtype)

    def make(method: str, site: str | None = None) -> DownsampledViT:
        torch.manual_seed(0)  # of a method's weights
        call = parse_call(method)
        return DownsampledViT(vit, create(call.name, **call.named), Stages(KEEP), site=site).eval()

    return make, images


def times_as_long(base: DownsampledViT, other: DownsampledViT, images: Tensor) -> Interval:
    """The other model's time over the base's."""
    timed = measure_latency(base, other, [images], SECONDS[images.device.type], PRECISION)
    speedup = compare_times(timed.base_s, timed.other_s).speedup
    return Interval(1 / speedup.estimate, 1 / speedup.hi, 1 / speedup.lo)


def note(model: DownsampledViT, base: DownsampledViT) -> str:
    """Why a method's price is not one of choosing alone."""
    assert model.downsampler is not None
    if model.downsampler.adaptive:
        return "adaptive: its K is a bound, or not read"
    if model.counts != base.counts:
        return f"leaves {'-'.join(map(str, model.counts))}, not {'-'.join(map(str, base.counts))}"
    return ""


def main(
    methods: Annotated[list[str] | None, typer.Argument(help="Those to time; all where none is named.")] = None,
) -> None:
    """Time the methods and say whether Token Pooling meets its target."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    named = methods or [name for name in discover()[0] if name != BASE]
    make, images = maker(device)
    home = make(BASE)
    bases = {home.site: home}
    later = {home.site: 1.0}  # random selection at a site over itself at home
    lines = [
        f"{MODEL}, keep {KEEP} at depths 3, 6, 9; {images.dtype}, batch {len(images)}, {device_name(device)}",
        "",
        f"{'method':34} {'site':16} {'choosing':>8} {'95 % interval':>15} {'in all':>7}",
    ]
    for name in track(named, transient=True):
        model = make(name)
        if model.site not in bases:
            bases[model.site] = make(BASE, model.site)
            later[model.site] = times_as_long(home, bases[model.site], images).estimate
        ratio = times_as_long(bases[model.site], model, images)
        interval = f"{ratio.lo:.3f} to {ratio.hi:.3f}"
        line = (
            f"{name:34} {model.site:16} {ratio.estimate:8.3f} {interval:>15} {ratio.estimate * later[model.site]:7.3f}"
        )
        lines.append(f"{line}  {note(model, home)}".rstrip())
        if parse_call(name).name == TARGET_OF:
            target = TARGETS[device.type]
            met = "met" if ratio.estimate <= target else "missed"
            lines.append(f"{'':34} at most {target:.2f}: {met}")
    lines += ["", "choosing: over random selection at the same site; in all: over random selection at its own."]
    lines += [f"Random selection {site} takes {ratio:.3f} times as long as at home." for site, ratio in later.items()]
    if methods:
        print(*lines, sep="\n")
    else:
        folder = SPEED / "cuda" if device.type == "cuda" else SPEED
        keep(folder / "price_of_choosing.txt", lines, ("python", "torch", "timm", "tokbench"))


if __name__ == "__main__":
    typer.run(main)
