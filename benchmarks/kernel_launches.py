"""How many kernels each method launches on a GPU; needs no GPU.

    python benchmarks/kernel_launches.py [METHOD ...]

At batch 1 a GPU often waits for the host, which launches one kernel after another, so the number of launches matters
more than what the kernels compute. DeiT-Ti with random weights, one image, keep 0.7 at depths 3, 6 and 9, run on the
simulated GPU of the conformance suite. The counts are lower bounds, by the convention of
`tokbench.conformance.kernel_launches`: views launch nothing, an accumulating index_put 12 kernels since it sorts,
distances by a matrix product 12, most operators one. They are of eager mode; compiling fuses kernels, and a CUDA graph
launches them all at once. The counts of an adaptive method depend on the image.

The first lines are timm's plain model, and tokbench's plain model. A method may have parameters:
'token_pooling(algorithm=kmeans)'.

Writes results/launches/launches.csv if all methods are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import pandas as pd
import timm
import torch
import typer
from torch import Tensor, nn

from tokbench.conformance.simulated_gpu import simulated_gpu
from tokbench.files import write_atomically
from tokbench.measure.environment import describe
from tokbench.notation import parse_call
from tokbench.registry import create, discover
from tokbench.schedule import Stages
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.calibration import calibrate

MODEL = "deit_tiny_patch16_224"
KEEP = 0.7
PLAIN, NONE = "timm", "none"
SHOWN = 3  # operators with the most launches
TABLE = Path(__file__).parents[1] / "results" / "launches" / "launches.csv"


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


def table(counts: Mapping[str, Counter[str]]) -> pd.DataFrame:
    """A row for each model, with the operators that launch most."""
    plain = counts[PLAIN].total()
    rows = [
        {
            "method": name,
            "launches": launches.total(),
            "times_plain": round(launches.total() / plain, 2),
            "most_launches": ", ".join(f"{operator} {number}" for operator, number in launches.most_common(SHOWN)),
        }
        for name, launches in counts.items()
    ]
    return pd.DataFrame(rows)


def main(
    methods: Annotated[list[str] | None, typer.Argument(help="Methods to count; default: all.")] = None,
) -> None:
    """Count the launches of each method and print a table."""
    torch.manual_seed(0)
    vit = timm.create_model(MODEL, pretrained=False).eval()
    images = torch.randn(4, 3, *vit.patch_embed.img_size)
    counts = {
        name: count_launches(build(vit, name, images), images[:1])
        for name in (PLAIN, NONE, *(methods or discover()[0]))
    }
    counted = table(counts)
    print(f"{MODEL}, keep {KEEP} at depths 3, 6, 9; batch 1, eager, launches at least", end="\n\n")
    print(counted.to_string(index=False))
    if not methods:
        here = describe(torch.device("cpu"))
        dated = counted.assign(machine=here["device_name"], torch=here["versions"]["torch"], measured=here["measured"])
        TABLE.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(TABLE, lambda scratch: dated.to_csv(scratch, index=False))


if __name__ == "__main__":
    typer.run(main)
