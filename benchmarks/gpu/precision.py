"""The answers of every off-the-shelf method on a device in each dtype, against those of the CPU in float32.

    python benchmarks/gpu/precision.py DEVICE MODEL[,MODEL ...] FILE

Prints for each method how many images of a batch get the same class, in percent, and the largest difference between
two logits; the CSV file also has the standard deviation of all logits. A trained model answers digits; others have
random weights and get noise, so their classes are close to each other. amp-bf16 is torch.autocast with weights in
float32. The exit code is 1 if a method fails or gives logits that are not finite.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from copy import deepcopy
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from tokbench import reduce
from tokbench.embedded.images import image_set
from tokbench.errors import describe
from tokbench.measure.devices import device_name, resolve_device
from tokbench.measure.sample_images import sample_images
from tokbench.names import EMBEDDED_MODELS, PLAIN, RANDOM
from tokbench.registry import create, discover
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.models import load_model

BATCH = 32
KEEP = 0.7
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "amp-bf16": torch.float32}
AMP = {"amp-bf16": torch.bfloat16}


def methods() -> list[str]:
    """The plain model, and the methods that need neither training nor calibration."""
    known = {name: create(name) for name in discover()[0]}
    return [PLAIN, *(name for name, method in known.items() if not method.trained and not method.calibrated)]


def answers(vit: Any, method: str, images: Tensor, device: torch.device, dtype: str) -> Tensor:
    """The logits (B, classes) on the CPU in float32."""
    copy = deepcopy(vit)
    model = (DownsampledViT(copy) if method == PLAIN else reduce(copy, method, KEEP)).to(device, DTYPES[dtype]).eval()
    amp = torch.autocast(device.type, AMP[dtype]) if dtype in AMP else nullcontext()
    with torch.inference_mode(), amp:
        logits: Tensor = model(images.to(device, DTYPES[dtype]))
    return logits.float().cpu()


def compared(vit: Any, method: str, images: Tensor, device: torch.device) -> Iterator[dict[str, Any]]:
    """A row for each dtype."""
    reference = answers(vit, method, images, torch.device("cpu"), "fp32")
    for dtype in DTYPES:
        row: dict[str, Any] = {"method": method, "dtype": dtype, "spread_of_logits": float(reference.std())}
        # A method's failure on this device is what is looked for, whatever it raises.
        try:
            found = answers(vit, method, images, device, dtype)
        except Exception as error:
            yield {**row, "reason": describe(error)}
            continue
        same = (found.argmax(dim=1) == reference.argmax(dim=1)).float().mean()
        yield {
            **row,
            "same_top1_percent": 100 * float(same),
            "largest_difference": float((found - reference).abs().max()),
            "reason": "" if found.isfinite().all() else "logits that are not finite",
        }


def line(method: str, rows: Sequence[dict[str, Any]]) -> str:
    """Percent of equal classes and the largest difference for each dtype, and what has failed."""
    cells = [
        "failed" if row["reason"] else f"{row['same_top1_percent']:.0f} % {row['largest_difference']:.2g}"
        for row in rows
    ]
    reasons = [f"  {row['dtype']}: {row['reason']}" for row in rows if row["reason"]]
    return "\n".join([f"{method:30} " + " ".join(f"{cell:>16}" for cell in cells), *reasons])


def main(name: str, models: str, file: str) -> int:
    """Compare, print and write the table as it grows; the exit code."""
    device = resolve_device(name)
    print(f"On {device_name(device)}, against the CPU in fp32; {BATCH} images, keep {KEEP}.")
    table: list[dict[str, Any]] = []
    for model in models.split(","):
        trained = model in EMBEDDED_MODELS
        vit = load_model(model, None if trained else RANDOM).vit
        images = sample_images(vit, image_set() if trained else None, BATCH)
        heading = f"\n{model}: same class, difference"
        print(f"{heading:31} " + " ".join(f"{dtype:>16}" for dtype in DTYPES))
        for method in methods():
            rows = list(compared(vit, method, images, device))
            table += [{"model": model, **row} for row in rows]
            pd.DataFrame(table).to_csv(Path(file), index=False)
            print(line(method, rows), flush=True)
    failed = sum(row["reason"] != "" for row in table)
    if failed:
        print(f"{failed} of {len(table)} cases failed", file=sys.stderr)
    return int(failed > 0)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
