"""A program for test_finetune_resume.py: trains a small model twice, once undisturbed and once killed ten times.

python killed_training.py FOLDER

The process that forks computes nothing itself, so that its children start within milliseconds with everything imported.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from tokbench.embedded.canvases import held_out, to_input
from tokbench.embedded.model import load
from tokbench.finetune.job import Job, Step
from tokbench.finetune.recipes import load_recipe
from tokbench.finetune.training import train
from tokbench.finetune.training_images import DigitImages
from tokbench.registry import create
from tokbench.schedule import Schedule
from tokbench.vit.backbone import DownsampledViT

KILLS = 10
MODEL = "digits_deit_16"
RECIPE = {
    "epochs": 5,
    "average": 0.9,
    "result": "average",
    "mixup": 0.8,
    "cutmix": 1.0,
    "drop_path": 0.1,
    "distill": 0.5,
    "distill_tokens": 0.5,
    "accumulate": 2,
}


def run(folder: Path, told: int) -> None:
    """Train; each step writes a byte into the pipe `told`."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = DownsampledViT(load(MODEL), create("dtem"), Schedule.stages(0.5))
    recipe = load_recipe("digits", RECIPE)
    canvases = held_out(count=50)
    images, labels = to_input(canvases.images), torch.from_numpy(canvases.labels)

    def evaluate(one: DownsampledViT) -> float:
        with torch.inference_mode():
            return 100 * (one(images).argmax(1) == labels).double().mean().item()

    def tell(step: Step) -> None:
        os.write(told, b".")

    teacher = DownsampledViT(load(MODEL))
    device = torch.device("cpu")
    outcome = train(
        Job(model, teacher, DigitImages(), evaluate, recipe, 0, device, folder, workers=0, state_every=0.0),
        tell,
    )
    torch.save({"weights": model.state_dict(), "top1": outcome.top1, "steps": outcome.steps}, folder / "result.pt")


def fork(folder: Path) -> tuple[int, int]:
    """A child that trains, and the pipe that tells of its steps."""
    steps, told = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            run(folder, told)
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
    os.close(told)
    return child, steps


def wait(child: int, steps: int) -> int:
    while os.read(steps, 100):
        pass
    os.close(steps)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(folder: Path) -> None:
    undisturbed, killed = folder / "undisturbed", folder / "killed"
    assert wait(*fork(undisturbed)) == 0
    # Moments are counted in steps, so that on any machine all kills meet a run before its end.
    moments = random.Random(0)
    ends = []
    for _ in range(KILLS):
        child, steps = fork(killed)
        for _ in range(moments.randint(0, 12)):
            os.read(steps, 1)
        time.sleep(moments.uniform(0, 0.03))  # somewhere in a step, a validation or a save
        os.kill(child, signal.SIGKILL)
        ends.append(wait(child, steps))
    assert wait(*fork(killed)) == 0
    print(ends.count(-signal.SIGKILL))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
