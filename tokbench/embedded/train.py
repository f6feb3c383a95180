"""Train a model of the embedded suite: `python -m tokbench.embedded.train --model digits_deit`.

The command trains the model from random weights on canvases that it generates, writes the weights, and prints their
accuracy on the held-out canvases. Canvases grow during training: a small canvas is a window of a full one, is cheaper,
and teaches the digits before the clutter. The last stage uses full canvases only.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.progress import Progress
from safetensors.torch import save
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tokbench.embedded.canvases import SIDE, augment, compose, digits, held_out, to_input
from tokbench.embedded.model import GRID, PATCH, ROTARY, build, weights_file
from tokbench.files import write_atomically
from tokbench.names import EMBEDDED_MODELS, EmbeddedModel
from tokbench.stats.proportions import wilson

STEPS = 4500
MINUTES = dict.fromkeys(EMBEDDED_MODELS, 8) | {ROTARY: 20}
"""Per model: about how long `STEPS` steps take on two cores of a 2023 server (the rotary model: 37 minutes of CPU)."""

STAGES = ((16, 0.4), (24, 0.2), (SIDE, 0.4))
"""Per stage: the side of the canvases in pixels, and the share of the steps."""

BATCH = 64
WARM_UP = 300
LEARNING_RATE = 2e-3
WEIGHT_DECAY = 0.05
LABEL_SMOOTHING = 0.1
DROP_PATH = 0.05

_TRAINING_STREAMS = 1 << 32  # so that training and held-out canvases never share a random stream

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog="Example: python -m tokbench.embedded.train --out /tmp/weights.safetensors --seed 1")
def main(
    model: Annotated[EmbeddedModel, typer.Option(help="Which model to train.")] = EMBEDDED_MODELS[0],
    out: Annotated[
        Path | None, typer.Option(help="Where to write the weights; MODEL.safetensors if left out.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the weights, the order and the clutter.")] = 0,
    steps: Annotated[
        int, typer.Option(min=1, help="Optimiser steps; fewer steps are faster and less accurate.")
    ] = STEPS,
) -> None:
    """Train a model of the embedded suite and report its accuracy on the held-out canvases."""
    out = out or Path(weights_file(model).name)
    if not out.parent.is_dir():
        typer.echo(f"error: {out.parent} is not a folder; create it, or give another --out", err=True)
        raise typer.Exit(2)
    console = Console()
    minutes = math.ceil(MINUTES[model] * steps / STEPS)
    console.print(f"{model}, {steps} steps: about {minutes} minutes on two free cores.")
    began = time.perf_counter()
    with Progress(console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("training", total=steps)
        vit = train(model, steps, seed, on_step=lambda: progress.advance(task))
    write_weights(vit, out)
    top1 = wilson(*evaluate(vit))
    console.print(
        f"Held-out top-1 {100 * top1.estimate:.1f} % (95 % interval {100 * top1.lo:.1f} to {100 * top1.hi:.1f}) "
        f"after {(time.perf_counter() - began) / 60:.1f} minutes. Weights: {out}",
        soft_wrap=True,
    )


def train(
    model: str = EMBEDDED_MODELS[0],
    steps: int = STEPS,
    seed: int = 0,
    on_step: Callable[[], object] = lambda: None,
) -> VisionTransformer | Eva:
    """Train a model from random weights.

    The same seed, machine, library versions and thread count give the same weights.

    Args:
        model: Its name.
        steps: Optimiser steps, one batch each.
        seed: Seed of the weights, the digits' variation and the clutter.
        on_step: Called after each step.

    Returns:
        The trained model, in evaluation mode.
    """
    torch.manual_seed(seed)
    vit = build(model, drop_path=DROP_PATH).train()
    optimizer = _optimizer(vit)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _learning_rate(step, steps))
    for images, labels, corner in itertools.islice(_stages(steps, seed), steps):
        loss = F.cross_entropy(window_logits(vit, images, corner), labels, label_smoothing=LABEL_SMOOTHING)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(vit.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        on_step()
    return vit.eval()


def batches(side: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless training batches: each epoch shows a digit at most once, varied and in new clutter.

    Args:
        side: Height and width of the canvases, in pixels.
        seed: Seed of the order, the variation and the clutter.

    Yields:
        Normalised canvases (BATCH, 1, side, side) and labels (BATCH,).
    """
    rng = np.random.default_rng([seed, side])
    real = digits("train")
    count = len(real.labels)
    for epoch in itertools.count():
        order = rng.permutation(count)
        shown = augment(real.images[order], rng)
        canvases = compose(shown, real.images, seed=_TRAINING_STREAMS + seed, start=epoch * count, side=side)
        inputs, labels = to_input(canvases), torch.from_numpy(real.labels[order])
        for i in range(0, count - BATCH + 1, BATCH):
            yield inputs[i : i + BATCH], labels[i : i + BATCH]


def window_logits(vit: VisionTransformer | Eva, images: Tensor, corner: tuple[int, int]) -> Tensor:
    """The model's logits for canvases that are windows of full ones.

    Args:
        vit: A model from `build`.
        images: (B, 1, side, side), normalised.
        corner: Row and column of the window's first patch on the full canvas.

    Returns:
        (B, 10). For full canvases at (0, 0), this equals `vit(images)`.
    """
    side = images.shape[-1] // PATCH
    patches = vit.patch_embed.proj(images).flatten(2).transpose(1, 2)
    prefix = vit.cls_token.expand(len(images), -1, -1)
    if isinstance(vit, Eva):
        rotations = _window(vit.rope.get_embed(), side, corner)
        x = torch.cat([prefix, patches], 1)
        for block in vit.blocks:
            x = block(x, rope=rotations)
    else:
        positions = _window(vit.pos_embed[0, 1:], side, corner)
        x = vit.blocks(torch.cat([prefix + vit.pos_embed[:, :1], patches + positions], 1))
    logits: Tensor = vit.forward_head(vit.norm(x))
    return logits


def evaluate(vit: VisionTransformer | Eva) -> tuple[int, int]:
    """Count the held-out canvases that the model classifies correctly: (correct, all)."""
    canvases = held_out()
    with torch.inference_mode():
        top1 = vit(to_input(canvases.images)).argmax(1).numpy()
    return int((top1 == canvases.labels).sum()), len(canvases.labels)


def write_weights(vit: VisionTransformer | Eva, out: Path) -> None:
    """Write the weights as safetensors.

    Raises:
        OSError: The file cannot be written; an existing file is left unchanged.
    """
    write_atomically(out, lambda path: path.write_bytes(save(vit.state_dict())))


def _window(rows: Tensor, side: int, corner: tuple[int, int]) -> Tensor:
    """The rows of a window's patches, (side², C), from those of all patches of a full canvas, (GRID², C)."""
    row, column = corner
    return rows.view(GRID, GRID, -1)[row : row + side, column : column + side].flatten(0, 1)


def _stages(steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor, tuple[int, int]]]:
    """The batches of all stages, one stage after the other, each batch with the corner of its window."""
    rng = np.random.default_rng(seed)
    ends = np.rint(np.cumsum([share for _, share in STAGES]) * steps).astype(int)
    for (side, _), length in zip(STAGES, np.diff(ends, prepend=0), strict=True):
        for images, labels in itertools.islice(batches(side, seed), int(length)):
            row, column = rng.integers(0, GRID - side // PATCH + 1, 2)
            yield images, labels, (int(row), int(column))


def _optimizer(vit: VisionTransformer | Eva) -> torch.optim.Optimizer:
    """AdamW with weight decay for the matrices of the linear layers only."""
    matrices = [weight for weight in vit.parameters() if weight.ndim == 2]
    others = [weight for weight in vit.parameters() if weight.ndim != 2]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}],
        lr=LEARNING_RATE,
        betas=(0.9, 0.98),
        fused=True,
    )


def _learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, then cosine decay to zero, as a fraction of the peak."""
    warm_up = min(WARM_UP, steps // 10)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


if __name__ == "__main__":
    app()
