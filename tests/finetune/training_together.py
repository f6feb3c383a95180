"""A program for test_processes_together.py: trains a small model for an epoch, alone or under torchrun.

python training_together.py FOLDER ACCUMULATE
"""

import sys
from pathlib import Path

import torch

from tokbench.embedded.model import load
from tokbench.finetune.job import Job
from tokbench.finetune.processes import join
from tokbench.finetune.recipes import load_recipe
from tokbench.finetune.training import train
from tokbench.finetune.training_images import DigitImages
from tokbench.registry import create
from tokbench.schedule import Schedule
from tokbench.vit.backbone import DownsampledViT

# Without stochastic depth, which each process draws for its own images.
RECIPE = {"epochs": 2, "warm_up_epochs": 0.5, "mixup": 0.8, "cutmix": 1.0, "distill": 0.5, "average": 0.9}


def main(folder: Path, accumulate: int) -> None:
    torch.set_num_threads(1)
    processes = join(torch.device("cpu"))
    torch.manual_seed(processes.number)  # the first process's weights of the method are everyone's
    model = DownsampledViT(load("digits_deit_16"), create("dtem"), Schedule.stages(0.7))
    recipe = load_recipe("digits", {**RECIPE, "accumulate": accumulate})
    teacher = DownsampledViT(load("digits_deit_16"))
    job = Job(model, teacher, DigitImages(), None, recipe, 0, torch.device("cpu"), folder, workers=0, state_every=1e9)
    losses: list[float] = []
    outcome = train(job, lambda step: losses.append(step.loss))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    found = {"weights": weights, "losses": losses, "steps": outcome.steps, "count": processes.count}
    torch.save(found, folder / f"result{processes.number}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
