"""How many kernels each method launches on a GPU; needs no GPU.

    python benchmarks/kernel_launches.py [METHOD ...] [--json FILE]

At batch 1 a GPU often waits for the host, which launches one kernel after another, so the number of launches matters
more than what the kernels compute. DeiT-Ti with random weights, one image, keep 0.7 at depths 3, 6 and 9, run on the
simulated GPU of the conformance suite. The counts are lower bounds, by the convention of
`tokbench.conformance.kernel_launches`: views launch nothing, an accumulating index_put 12 kernels since it sorts,
distances by a matrix product 12, most operators one. They are of eager mode; compiling fuses kernels, and a CUDA graph
launches them all at once. The counts of an adaptive method depend on the image.

The first lines are timm's plain model, and tokbench's plain model. A method may have parameters:
'token_pooling(algorithm=kmeans)'.
"""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Annotated

import timm
import torch
import typer
from torch import Tensor, nn

from tokbench.conformance.simulated_gpu import simulated_gpu
from tokbench.files import write_atomically
from tokbench.notation import parse_call
from tokbench.registry import create, discover
from tokbench.schedule import Stages
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.calibration import calibrate

MODEL = "deit_tiny_patch16_224"
KEEP = 0.7
PLAIN, NONE = "timm", "none"
SHOWN = 3  # operators with the most launches


def count_launches(model: nn.Module, image: Tensor) -> Counter[str]:
    """The kernels that a model launches at least for one image (1, C, H, W), by operator."""
    with simulated_gpu() as gpu:
        gpu.to_gpu(model)(gpu.to_gpu(image))
        return gpu.launches


def build(vit: nn.Module, method: str, images: Tensor) -> nn.Module:
    """The model of a line of the table; a method's constants are set on the images."""
    if method == PLAIN:
        return vit
    if method == NONE:
        return DownsampledViT(vit).eval()
    torch.manual_seed(0)  # for the weights of the method
    call = parse_call(method)
    model = DownsampledViT(vit, create(call.name, **call.named), Stages(KEEP)).eval()
    if model.needs_calibration:
        calibrate(model, images)
    return model


def main(
    methods: Annotated[list[str] | None, typer.Argument(help="Methods to count; default: all.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the counts to this file.")] = None,
) -> None:
    """Count the launches of each method and print a table."""
    torch.manual_seed(0)
    vit = timm.create_model(MODEL, pretrained=False).eval()
    images = torch.randn(4, 3, *vit.patch_embed.img_size)
    counts = {
        name: count_launches(build(vit, name, images), images[:1])
        for name in (PLAIN, NONE, *(methods or discover()[0]))
    }
    plain, width = counts[PLAIN].total(), max(map(len, counts))
    print(f"{MODEL}, keep {KEEP} at depths 3, 6, 9; batch 1, eager, launches at least", end="\n\n")
    print(f"{'method':{width}} {'launches':>8} {'times plain':>11}  most launches")
    for name, launches in counts.items():
        most = ", ".join(f"{operator} {number}" for operator, number in launches.most_common(SHOWN))
        print(f"{name:{width}} {launches.total():8} {launches.total() / plain:11.2f}  {most}")
    if json_file is not None:
        rows = [{"method": name, "launches": launches.total(), **launches} for name, launches in counts.items()]
        text = json.dumps(rows, indent=2)
        write_atomically(json_file, lambda scratch: scratch.write_text(text + "\n", encoding="utf-8"))


if __name__ == "__main__":
    typer.run(main)
