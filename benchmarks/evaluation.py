"""The speed of evaluating the plain model: tokbench's accuracy pass against timm's loader and loop, on the same images.

    python benchmarks/evaluation.py DATA WEIGHTS [MODEL]

Both decode, preprocess and classify a folder of images in batches of the same size, with the same number of workers, in
one process and in alternating order, twelve rounds each. Both must get the same number of images right.

Writes results/speed/evaluation.txt.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import torch
from output import SPEED, write_output
from speed import accuracy_plan, time_accuracy_pass
from timm.data import ImageNetInfo, create_dataset, create_loader, resolve_data_config
from timm.utils import accuracy

from tokbench.measure.environment import describe
from tokbench.names import PLAIN
from tokbench.run.prepare import Prepared
from tokbench.stats.times import compare_times
from tokbench.vit.adapters import TimmViT

ROUNDS = 12
WORKERS = (0, 2)
TARGET = 1.0


def main(data: str, weights: str, model: str = "deit_tiny_patch16_224") -> None:
    """Measure, and print and write the results.

    Args:
        data: A folder of images by synset.
        weights: The weights of the model.
        model: The name of a timm model.
    """
    lines = []
    for workers in WORKERS:
        prepared = accuracy_plan(data, weights, model, ("none",), (1.0,), workers=workers)
        lines += compare(prepared, data)
    write_output(SPEED / "evaluation.txt", lines, ("python", "torch", "timm", "pillow", "tokbench"))


def compare(prepared: Prepared, data: str) -> list[str]:
    """Time both with one number of workers, and return the lines of the report."""
    ((name, pretrained),) = prepared.models.items()
    rows = [row for row in prepared.rows if row.cell.variant.method == PLAIN]
    images = len(prepared.images or ())
    seconds: dict[str, list[float]] = {"timm": [], "tokbench": []}
    right: dict[str, set[int]] = {"timm": set(), "tokbench": set()}
    for turn in range(ROUNDS + 1):
        for who in ("timm", "tokbench") if turn % 2 else ("tokbench", "timm"):
            if who == "timm":
                start = time.perf_counter()
                count = timm_loop(pretrained.vit, data, prepared)
                elapsed = time.perf_counter() - start
            else:
                elapsed, outcomes = time_accuracy_pass(rows, prepared)
                count = sum(text.count("0") for text in outcomes.values())
            right[who].add(count)
            if turn:  # the first turn is the warm-up
                seconds[who].append(elapsed)
    ratio = compare_times(seconds["timm"], seconds["tokbench"]).speedup
    rates = {who: images / float(np.median(elapsed)) for who, elapsed in seconds.items()}
    return [
        f"{name}, {images} images, batches of {prepared.suite.accuracy_batch}, {prepared.suite.workers} workers, "
        f"{prepared.suite.dtype}, {describe(prepared.device)['device_name']}",
        *(f"  {who}: {rate:.1f} images/s, {' or '.join(map(str, right[who]))} right" for who, rate in rates.items()),
        f"  tokbench is {ratio.estimate:.3f} times as fast [{ratio.lo:.3f}, {ratio.hi:.3f}] over {ROUNDS} rounds "
        f"(target: {TARGET}): " + ("met" if ratio.estimate >= TARGET else "NOT met"),
    ]


def timm_loop(vit: TimmViT, data: str, prepared: Prepared) -> int:
    """How many images timm gets right, with the calls of its validation script."""
    settings = resolve_data_config({}, model=vit)
    synsets = ImageNetInfo().label_names()
    loader = create_loader(
        create_dataset("", root=data, class_map={synset: index for index, synset in enumerate(synsets)}),
        input_size=settings["input_size"],
        batch_size=prepared.suite.accuracy_batch,
        use_prefetcher=prepared.device.type == "cuda",
        interpolation=settings["interpolation"],
        mean=settings["mean"],
        std=settings["std"],
        num_workers=prepared.suite.workers,
        crop_pct=settings["crop_pct"],
        crop_mode=settings["crop_mode"],
        pin_memory=prepared.device.type == "cuda",
        device=prepared.device,
        persistent_workers=False,
    )
    right = 0.0
    with torch.inference_mode():
        for images, labels in loader:
            weight = vit.patch_embed.proj.weight
            logits = vit(images.to(weight))
            (top1,) = accuracy(logits, labels.to(weight.device), topk=(1,))
            right += float(top1) * len(labels) / 100
    return round(right)


if __name__ == "__main__":
    main(*sys.argv[1:])
