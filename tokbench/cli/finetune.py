"""`tokbench finetune`: train models with methods in them, all with the same recipe."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tokbench.cli.options import (
    RUN,
    AsJson,
    ConfigFile,
    PluginList,
    Settings,
    plugin_paths,
    resolve_suite,
    suite_options,
)
from tokbench.cli.output import print_json, warn, warn_broken
from tokbench.names import EMBEDDED
from tokbench.streams import stdout_to_stderr

if TYPE_CHECKING:
    from tokbench.finetune.prepare import Plan, Task
    from tokbench.finetune.watch import Watcher

FIELDS = (
    *("models", "methods", "keep", "schedule", "site", "position", "seeds"),
    *("weights", "no_ema", "img_size"),
    *("data", "train", "set_apart", "split", "classes", "labels", "image_column", "label_column"),
    *("limit", "calibration_limit", "accuracy_batch", "workers", "cache", "memory", "device", "threads"),
)
"""The settings of a suite that training takes."""

TEXTS = {
    "seeds": "Seeds: each cell is trained with each of them. [default: 0]",
    "data": "Images to validate on, as for compare: embedded, a folder with one subfolder per class, a .tar, a "
    ".parquet or hfds/NAME.",
    "train": "Images to train on, as for --data. The embedded data bring their own.",
    "set_apart": "Train on this fraction of --data, chosen by a hash of each image, and validate on the others; "
    "compare with the same --set-apart then measures images that were not trained on.",
    "limit": "Validate on this many images, evenly spaced; default: all.",
    "calibration_limit": "Set the constants of calibrated methods from at most this many training images. "
    "[default: 512]",
}
RECIPE = "Recipe"
EMBEDDED_RECIPE, DEFAULT_RECIPE = "digits", "haurum"


@suite_options(*FIELDS, texts=TEXTS)
def finetune(
    *,
    suite: Annotated[
        str | None, typer.Argument(help="A suite of tokbench.toml; default: embedded, which needs no data.")
    ] = None,
    settings: Settings,
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="How to train: haurum, evit, dynamicvit, tps, short (one epoch), digits, or a .toml file of your own. "
            "[default: haurum; digits for embedded data]",
            rich_help_panel=RECIPE,
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Epochs, in place of the recipe's; its warm-up in proportion.", rich_help_panel=RECIPE),
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(help="Images of a step over all GPUs, in place of the recipe's.", rich_help_panel=RECIPE),
    ] = None,
    accumulate: Annotated[
        int | None,
        typer.Option(help="Compute each GPU's share of a batch in so many parts, one by one.", rich_help_panel=RECIPE),
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate, in place of the recipe's.", rich_help_panel=RECIPE)
    ] = None,
    distill: Annotated[
        float | None,
        typer.Option(help="Weight of the divergence from the plain model's answers.", rich_help_panel=RECIPE),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where to write; default: results/SUITE-finetuned.", rich_help_panel=RUN),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Show the cells and the estimated time, then stop.", rich_help_panel=RUN)
    ] = False,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Train the cells on a Ray cluster: HOST:PORT, auto, or local for this machine's GPUs.",
            rich_help_panel=RUN,
        ),
    ] = None,
    plugins: PluginList = None,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Fine-tune models with methods in them, all in the same way.

    Each model, method, schedule, keep and seed is a cell with a checkpoint in DIR/checkpoints, which compare measures
    with --checkpoint DIR. The plain model is always trained, too. Running the same command again goes on where it was
    stopped. With torchrun, all GPUs train each cell together.

    Example: tokbench finetune imagenet --train /data/train --data /data/val --methods token_pooling,evit --keep 0.7
    """
    from tokbench.distributed.ray_cluster import check_address, connected

    if ray is not None:
        check_address(ray)

    from tokbench.config import load_config
    from tokbench.distributed.ray_training import train_on_ray
    from tokbench.finetune.estimate import estimate_seconds
    from tokbench.finetune.prepare import plan_training
    from tokbench.finetune.recipes import load_recipe
    from tokbench.finetune.run import first_process, is_trained, train_all
    from tokbench.report.terminal.table import open_console
    from tokbench.report.terminal.trained import render_training

    loaded = load_config(config)
    chosen = resolve_suite(loaded, suite, {"seeds": (0,), **settings})
    name = recipe or (EMBEDDED_RECIPE if chosen.data == EMBEDDED else DEFAULT_RECIPE)
    given = {"epochs": epochs, "batch": batch, "accumulate": accumulate, "lr": lr, "distill": distill}
    how = load_recipe(name, {field: value for field, value in given.items() if value is not None})
    directory = out or Path("results") / f"{suite or loaded.default_suite}-finetuned"
    with stdout_to_stderr(), nullcontext() if ray is None or plan else connected(ray):
        planned = plan_training(chosen, loaded, how, plugin_paths(loaded, plugins))
        if first_process():
            warn_broken(planned.broken)
        waiting = [task for task in planned.tasks if not (task.skipped or task.failed or is_trained(task, directory))]
        seconds = estimate_seconds(planned, waiting) if first_process() else 0.0
        announced = _announced(planned, waiting, seconds)
        if not plan:
            if first_process():
                warn(announced)
            train_cells = train_all if ray is None else train_on_ray
            with _watcher(planned, as_json) as watcher:
                trained = train_cells(planned, directory, watcher)
    if plan:
        _show_plan(planned, waiting, announced, seconds, as_json)
        return
    if not first_process():
        return
    if as_json:
        print_json([asdict(cell) for cell in trained])
    else:
        render_training(trained, open_console())
        warn(f"checkpoints, logs and what came of each cell: {directory}; measure them with --checkpoint {directory}")
    if any(cell.failed for cell in trained):
        raise typer.Exit(1)


def _announced(plan: Plan, waiting: list[Task], seconds: float) -> str:
    """`115 cells by the recipe digits, 3 of them trained before: about 0:38:00 on cpu`."""
    done = len(plan.tasks) - len(waiting)
    before = f", {done} of them done before or skipped" if done else ""
    return (
        f"{len(plan.tasks)} cells by the recipe {plan.recipe.name}{before}: about {timedelta(seconds=round(seconds))} "
        f"of training on {plan.inputs.run.device.type}"
    )


def _watcher(plan: Plan, as_json: bool) -> AbstractContextManager[Watcher]:
    """Bars on a terminal, lines in a file, nothing where nobody would read it."""
    from tokbench.finetune.run import first_process
    from tokbench.finetune.watch import Unwatched
    from tokbench.report.terminal.training import TrainingBars, TrainingLines

    console = Console(stderr=True, highlight=False)
    if as_json or not first_process():
        return nullcontext(Unwatched())
    cells, epochs = len(plan.tasks), plan.recipe.epochs
    return (
        TrainingBars(console, cells, epochs)
        if console.is_terminal
        else nullcontext(TrainingLines(console, cells, epochs))
    )


def _show_plan(plan: Plan, waiting: list[Task], announced: str, seconds: float, as_json: bool) -> None:
    from tokbench.report.terminal.table import open_console

    rows: list[dict[str, Any]] = [
        {
            "model": task.about.model,
            "method": task.about.method,
            "params": task.cell.variant.params_text,
            "schedule": task.about.schedule,
            "keep": task.about.keep,
            "site": task.about.site,
            "seed": task.about.seed,
            "state": task.skipped or task.failed or ("to train" if task in waiting else "trained"),
        }
        for task in plan.tasks
    ]
    if as_json:
        print_json({"cells": rows, "recipe": plan.recipe.model_dump(mode="json"), "estimated_seconds": round(seconds)})
        return
    table = Table(*rows[0], box=None)
    for row in rows:
        table.add_row(*("" if value is None else escape(str(value)) for value in row.values()))
    console = open_console()
    console.print(table)
    console.print(announced)
