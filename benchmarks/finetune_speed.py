"""The speed of training the plain model: tokbench's loop against timm's, with the same images and augmentation.

    python benchmarks/finetune_speed.py DATA [MODEL]

Both train the model from random weights in batches of 32 with RandAugment, random erasing, Mixup, CutMix and stochastic
depth, with two workers, in one process and in alternating order. timm's loop makes the calls of its train.py with the
prefetcher that is its default. The first step of each turn, in which the workers start, does not count.

Writes results/speed/finetune_speed.txt.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import timm
import torch
from output import SPEED, write_output
from timm.data import FastCollateMixup, create_dataset, create_loader, resolve_data_config
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2

from tokbench.data.sets import open_images
from tokbench.finetune.job import Job
from tokbench.finetune.recipes import Recipe, load_recipe
from tokbench.finetune.training import train
from tokbench.finetune.training_images import posterize_to_black, set_images
from tokbench.measure.environment import describe
from tokbench.stats.times import compare_times
from tokbench.vit.backbone import DownsampledViT

ROUNDS = 12
BATCH = 32
STEPS = 5  # of a turn
WORKERS = 2
TARGET = 0.95


def main(data: str, model: str = "deit_tiny_patch16_224") -> None:
    """Measure, and print and write the results.

    Args:
        data: A folder of images by synset, of which the first are used.
        model: The name of a timm model.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = {"epochs": 1, "batch": BATCH, "repeats": 1, "average": "none", "result": "last", "warm_up_epochs": 0}
    recipe = load_recipe("haurum", {**settings, "amp": "none"})
    loops = {"timm": timm_loop, "tokbench": tokbench_loop}
    seconds: dict[str, list[float]] = {"timm": [], "tokbench": []}
    for turn in range(ROUNDS + 1):
        for who in ("timm", "tokbench") if turn % 2 else ("tokbench", "timm"):
            ends = loops[who](data, model, recipe, device)
            if turn:  # the first turn is the warm-up
                seconds[who].append(ends[-1] - ends[0])
    ratio = compare_times(seconds["timm"], seconds["tokbench"]).speedup
    images = BATCH * (STEPS - 1)
    lines = [
        f"{model}, batches of {BATCH}, {STEPS - 1} steps a turn, {WORKERS} workers, fp32, "
        f"{describe(device)['device_name']}",
        *(f"  {who}: {images / float(np.median(elapsed)):.1f} images/s" for who, elapsed in seconds.items()),
        f"  tokbench is {ratio.estimate:.3f} times as fast [{ratio.lo:.3f}, {ratio.hi:.3f}] over {ROUNDS} rounds "
        f"(target: {TARGET}): " + ("met" if ratio.estimate >= TARGET else "NOT met"),
    ]
    write_output(SPEED / "finetune_speed.txt", lines, ("python", "torch", "timm", "pillow", "tokbench"))


def tokbench_loop(data: str, name: str, recipe: Recipe, device: torch.device) -> list[float]:
    """When each step of tokbench's loop ended, in seconds."""
    torch.manual_seed(0)
    vit = timm.create_model(name)
    images = open_images(data)
    part = images.part(range(BATCH * STEPS))
    ends = []
    with TemporaryDirectory() as folder:
        train(
            Job(
                model=DownsampledViT(vit),
                teacher=None,
                images=set_images(part, vit, recipe),
                evaluate=None,
                recipe=recipe,
                seed=0,
                device=device,
                folder=Path(folder),
                workers=WORKERS,
                state_every=3600.0,
            ),
            lambda _: ends.append(time.perf_counter()),
        )
    return ends


def timm_loop(data: str, name: str, recipe: Recipe, device: torch.device) -> list[float]:
    """When each step of timm's loop ended, in seconds."""
    torch.manual_seed(0)
    model = timm.create_model(name, drop_path_rate=recipe.drop_path).to(device)
    settings = resolve_data_config({}, model=model)
    images = create_dataset("", root=data)
    images.reader.samples = images.reader.samples[: BATCH * STEPS]  # else its workers load more than the other's
    loader = create_loader(
        images,
        input_size=settings["input_size"],
        batch_size=BATCH,
        is_training=True,
        re_prob=recipe.erase,
        re_mode="pixel",
        color_jitter=recipe.color_jitter,
        auto_augment=recipe.auto_augment,
        interpolation=recipe.interpolation,
        mean=settings["mean"],
        std=settings["std"],
        num_workers=WORKERS,
        collate_fn=FastCollateMixup(
            mixup_alpha=recipe.mixup,
            cutmix_alpha=recipe.cutmix,
            label_smoothing=recipe.smoothing,
            num_classes=model.num_classes,
        ),
        device=device,
        persistent_workers=False,
    )
    posterize_to_black(images.transform)
    optimiser = create_optimizer_v2(model, opt=recipe.optimizer, lr=recipe.peak_lr, weight_decay=recipe.weight_decay)
    schedule, _ = create_scheduler_v2(optimiser, num_epochs=1, step_on_epochs=False, updates_per_epoch=STEPS)
    objective = SoftTargetCrossEntropy()
    ends = []
    model.train()
    optimiser.zero_grad()
    for step, (batch, targets) in enumerate(loader):
        torch.autograd.backward(objective(model(batch), targets))
        optimiser.step()
        optimiser.zero_grad()
        schedule.step_update(step + 1)
        ends.append(time.perf_counter())
    return ends


if __name__ == "__main__":
    main(*sys.argv[1:])
