"""Training a model with its method: steps, validation after each epoch, and going on where an earlier run was stopped.

Nothing random depends on the steps before: each step seeds what is random in it. So a run that is stopped at any moment
and started again gives the same weights as one that was not, on the same device.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import torch
from timm.utils import ModelEmaV3
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from tokbench.errors import UserError
from tokbench.files import OTHER_FOLDER, writing
from tokbench.finetune.job import Job, Outcome, Step
from tokbench.finetune.keep_warm_up import check_keep_warm_up, keep_at, set_keep
from tokbench.finetune.loading import load
from tokbench.finetune.log import Log, Row
from tokbench.finetune.objective import loss_of
from tokbench.finetune.optimisation import create_optimiser, create_schedule, learning_rate, train_weights_of
from tokbench.finetune.order import check_batch, parts_from, steps_of_epoch
from tokbench.finetune.processes import join
from tokbench.finetune.regularisation import create_mixup, set_drop_path
from tokbench.finetune.seeds import seed_everything, seed_of
from tokbench.finetune.state import State, job_identity, read_state, write_state
from tokbench.finetune.training_images import TrainingBatch
from tokbench.vit.backbone import DownsampledViT

STATE, LOG = "state.pt", "log.csv"

_ROWS = 10  # steps from one row of the log to the next
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def train(job: Job, on_step: Callable[[Step], None]) -> Outcome:
    """Train a model in place, from the state that an earlier run of the same job left in the folder, if there is one.

    Started by torchrun, the processes train one model together. All of them return the same; only the first one writes
    files and calls `on_step`.

    Args:
        job: What to train.
        on_step: Gets the progress: on a CPU after each step, else every few steps.

    Raises:
        UserError: The recipe does not fit the model, the images or the number of processes, or the folder cannot be
            written.
        DataError: An image cannot be read.
    """
    return _Run(job).train(on_step)


class _Run:
    """Everything that changes while a job is done."""

    def __init__(self, job: Job) -> None:
        recipe, model = job.recipe, job.model
        self.job, self.recipe, self.model = job, recipe, model
        self.processes = join(job.device)
        check_batch(recipe, len(job.images), self.processes.count)
        if recipe.keep_warm_up is not None:
            check_keep_warm_up(model)
        if recipe.distills and job.teacher is None:
            raise UserError(f"recipe '{recipe.name}' distills, and there is no teacher: give one, or set distill to 0")
        self.identity = job_identity(model, job.images, recipe, job.seed)
        self.steps_per_epoch = steps_of_epoch(recipe, len(job.images))
        self.steps = self.steps_per_epoch * recipe.epochs
        self.schedule = model.schedule
        model.to(job.device)
        self.processes.same(model)
        if job.teacher is not None:
            job.teacher.to(job.device).requires_grad_(False).eval()
        set_drop_path(model, recipe.drop_path)
        self.optimiser = create_optimiser(model, recipe)
        self.weights = [weight for group in self.optimiser.param_groups for weight in group["params"]]
        self.learning_rates = create_schedule(self.optimiser, recipe, self.steps_per_epoch)
        self.on_gpu = job.device.type == "cuda"
        self.scaler = torch.amp.GradScaler(job.device.type, enabled=self.on_gpu and recipe.amp == "fp16")
        self.average = None if recipe.average is None else ModelEmaV3(model, decay=recipe.average)
        self.mixup = create_mixup(recipe, model.vit.num_classes)
        self.step, self.top1 = 0, None if job.evaluate is None else math.nan
        self.done, self.seconds = False, 0.0
        self.saved_step, self.saved_at = 0, time.monotonic()
        self.pending: list[Tensor] = []  # losses that were not looked at yet
        self.losses: list[float] = []  # since the last row

    def train(self, on_step: Callable[[Step], None]) -> Outcome:
        with writing(self.job.folder, OTHER_FOLDER):
            self.job.folder.mkdir(parents=True, exist_ok=True)
        self._resume()
        if self.done:
            return self._outcome()
        log = Log(self.job.folder / LOG, self.step) if self.processes.first else None
        if self.step == 0:
            self._save()
        loaded = self._load()
        self.row_at, self.row_step = time.monotonic(), self.step
        self.model.train()
        while self.step < self.steps:
            self._begin_step()
            self.pending.append(self._step(loaded))
            self.step += 1
            ends_epoch = self.step % self.steps_per_epoch == 0
            ends_row = ends_epoch or self.step % _ROWS == 0
            if not ends_row and self.on_gpu:
                continue  # looking at the loss would make the GPU wait
            failed = self._look()
            if failed:
                return self._outcome(failed)
            progress = self._progress(ends_row)
            if self.step == self.steps:
                self._set_keep(self.recipe.epochs)  # the results are those of the final keep
            if ends_epoch:
                progress = replace(progress, top1=self._validate())
            if ends_row and log is not None:
                log.append(self._row(progress))
            if self.processes.first:
                on_step(progress)
            if ends_row:
                failed = self._end_row()
                if failed:
                    return self._outcome(failed)
        self._finish()
        return self._outcome()

    def _begin_step(self) -> None:
        """Set what depends on how far training is."""
        epoch = self.step // self.steps_per_epoch
        train_weights_of(self.model, self.recipe, epoch)
        self.learning_rates.step_update(self.step)
        self._set_keep(self.step / self.steps_per_epoch)

    def _set_keep(self, progress: float) -> None:
        """Set the keep of a point of training, in epochs, where it is warmed up."""
        if self.recipe.keep_warm_up is not None and self.schedule is not None and self.schedule.keep is not None:
            set_keep(self.model, self.schedule, keep_at(progress, *self.recipe.keep_warm_up, self.schedule.keep))

    def _step(self, loaded: Iterator[TrainingBatch]) -> Tensor:
        """Take a step: the loss of this process's part of the batch, still on the device."""
        job, recipe = self.job, self.recipe
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=job.device)
        for part in range(recipe.accumulate):
            batch = next(loaded)
            images = job.images.to_input(batch, job.device)
            targets = batch.labels.to(job.device, non_blocking=True)
            if self.mixup is not None:  # the same for all parts of the batch
                seed_everything(seed_of("mixing", job.seed, self.step))
                images, targets = self.mixup(images, targets)
            seed_everything(seed_of("model", job.seed, self.step, self.processes.number, part))
            ids = batch.seeds.to(job.device, non_blocking=True)
            with self._autocast():
                loss = loss_of(self.model, job.teacher, images, targets, ids, recipe) / recipe.accumulate
            torch.autograd.backward(self.scaler.scale(loss))
            total += loss.detach()
        self.processes.mean_gradients(self.weights)
        self.scaler.unscale_(self.optimiser)
        if recipe.clip is not None:
            clip_grad_norm_(self.weights, recipe.clip)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.model)
        return total

    def _look(self) -> str:
        """Read the losses of the last steps; returns why training cannot go on, or nothing."""
        found = self.processes.mean(torch.stack(self.pending)).tolist()
        for step, loss in enumerate(found, self.step - len(found) + 1):
            if not math.isfinite(loss):
                self.step = step
                return self._failed("loss", loss)
        self.losses += found
        self.pending = []
        return ""

    def _progress(self, whole_row: bool) -> Step:
        now = time.monotonic()
        done = self.step - self.row_step
        each = (now - self.row_at) / done
        return Step(
            epoch=(self.step - 1) // self.steps_per_epoch + 1,
            step=self.step,
            steps=self.steps,
            loss=sum(self.losses) / len(self.losses) if whole_row else self.losses[-1],
            lr=learning_rate(self.optimiser),
            images_per_second=self.recipe.batch / each,
            seconds_left=each * (self.steps - self.step),
        )

    def _row(self, now: Step) -> Row:
        seconds = self.seconds + time.monotonic() - self.row_at
        return Row(now.epoch, now.step, now.loss, now.lr, now.images_per_second, seconds, now.top1)

    def _end_row(self) -> str:
        """Begin the next row, and save the state if it is time; returns why training cannot go on, or nothing."""
        now = time.monotonic()
        self.seconds += now - self.row_at
        self.losses, self.row_at, self.row_step = [], now, self.step
        due = self.step == self.steps or now - self.saved_at >= self.job.state_every
        if not self.processes.from_first(due, self.job.device):
            return ""
        if not all(bool(value.isfinite().all()) for value in self.model.state_dict().values()):
            return self._failed("weights", math.nan)
        if self.step < self.steps:  # after the last step there is only one state, that of the result
            self._save()
        return ""

    def _validate(self) -> float | None:
        """Top-1 of the weights that would be kept now."""
        if self.job.evaluate is not None:
            top1 = max(map(self.job.evaluate, self._candidates())) if self.processes.first else math.nan
            self.top1 = self.processes.from_first(top1, self.job.device)
            self.model.train()
        return self.top1

    def _candidates(self) -> list[DownsampledViT]:
        """The models of which one is kept; the better of them comes of validation."""
        average = [] if self.average is None else [self.average.module]
        match self.recipe.result:
            case "last":
                return [self.model.eval()]
            case "average":
                return average
            case "better":
                return [self.model.eval(), *average]

    def _finish(self) -> None:
        """Keep the weights that the recipe says, in the model and in the state."""
        candidates = self._candidates()
        best = 0
        if len(candidates) > 1 and self.job.evaluate is not None:
            tops = [self.job.evaluate(model) for model in candidates] if self.processes.first else []
            best = int(self.processes.from_first(tops.index(max(tops)) if tops else 0, self.job.device))
        if candidates[best] is not self.model:
            self.model.load_state_dict(candidates[best].state_dict())
        self.model.requires_grad_(True).eval()
        self.done = True
        self._save()

    def _save(self) -> None:
        self.saved_step, self.saved_at = self.step, time.monotonic()
        if not self.processes.first:
            return
        state = State(
            job=self.identity,
            step=self.step,
            done=self.done,
            seconds=self.seconds,
            top1=self.top1,
            model=self.model.state_dict(),
            optimiser={} if self.done else self.optimiser.state_dict(),
            scaler=self.scaler.state_dict(),
            average={} if self.done or self.average is None else self.average.module.state_dict(),
        )
        write_state(state, self.job.folder / STATE)

    def _resume(self) -> None:
        state = read_state(self.job.folder / STATE, self.identity)
        step = -1 if state is None else state.step
        if self.processes.from_first(step, self.job.device) != step:
            raise UserError(f"the processes see different files in {self.job.folder}: use a folder on a shared disk")
        if state is None:
            return
        self.step, self.saved_step, self.done = state.step, state.step, state.done
        self.seconds, self.top1 = state.seconds, state.top1
        self.model.load_state_dict(state.model)
        if self.done:
            self.model.eval()
            return
        self.optimiser.load_state_dict(dict(state.optimiser))
        self.scaler.load_state_dict(dict(state.scaler))
        if self.average is not None:
            self.average.module.load_state_dict(state.average)

    def _load(self) -> Iterator[TrainingBatch]:
        job, processes = self.job, self.processes
        parts = parts_from(self.recipe, len(job.images), job.seed, self.step, processes.number, processes.count)
        return load(job.images, parts, job.seed, job.workers, pin_memory=self.on_gpu)

    def _autocast(self) -> AbstractContextManager[object]:
        if not self.on_gpu or self.recipe.amp == "none":
            return nullcontext()
        return torch.autocast("cuda", _DTYPES[self.recipe.amp])

    def _failed(self, what: str, value: float) -> str:
        shown = "NaN" if math.isnan(value) else "infinite"
        verb = "are not finite" if what == "weights" else f"is {shown}"
        file = self.job.folder / STATE
        return f"step {self.step}: the {what} {verb}; the last good state, of step {self.saved_step}, is in {file}"

    def _outcome(self, failed: str = "") -> Outcome:
        return Outcome(self.step // self.steps_per_epoch, self.step, self.top1, failed)
