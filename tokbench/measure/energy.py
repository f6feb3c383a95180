"""Energy per image: two models that run in alternating blocks, while a counter of the device's energy is read.

A counter changes in steps (NVML's every 20 to 100 ms), so energy cannot be measured in pairs of single calls as time
is: each model runs for a block of a second or more. A block starts and ends when the counter has just changed. The
counter's step then does not matter, and what is left is how late the change was noticed: by at most the few calls
between two looks at the counter. With n looks in a block of steady work, its energy is right to within 1/n.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

import torch
from torch import Tensor

from tokbench.measure.accelerator import synchronize
from tokbench.measure.call_timer import Forward
from tokbench.measure.cpu import OtherLoad
from tokbench.measure.energy_meter import Meter, NoMeterError

PAIRS = 6  # blocks of each model: the fewest from which a distribution-free 95 % interval of the median follows
BLOCK_S = 1.0  # a block is at least this long, so that the ends of a counter's steps matter little
LEAD_S = 0.3  # a model runs so long before its block starts, because counters lag behind
STEP_S = 0.01  # calls are queued for about so long before the counter is looked at
MOST_CALLS = 64  # in the queue
IDLE_S = 1.0  # for which the idle power is measured, after as long in which clocks may fall
POLL_S = 0.001  # between looks at the counter of an idle device
PATIENCE_S = 5.0  # after which a counter that does not change is given up


@dataclass(frozen=True)
class Clock:
    """Where time comes from.

    Attributes:
        now: Seconds since some moment.
        sleep: Waits for so many seconds.
    """

    now: Callable[[], float] = time.perf_counter
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Energy:
    """Joules per image of two models, in pairs of neighbouring blocks.

    Attributes:
        base_j: The reference model's, one per block, idle power included.
        other_j: The other model's, likewise.
        idle_w: The device's power before, while it had nothing to do, watts.
        edge: The largest relative error of a block from its ends: 1 divided by the looks at the counter.
        other_load: The share of all CPUs that other processes used in the meantime, 0 to 1.
    """

    base_j: tuple[float, ...]
    other_j: tuple[float, ...]
    idle_w: float
    edge: float
    other_load: float


def measure_energy(
    base: Forward,
    other: Forward,
    batches: Sequence[Tensor],
    meter: Meter,
    seconds: float,
    *,
    other_batches: Sequence[Tensor] | None = None,
    clock: Clock | None = None,
) -> Energy:
    """Measure the energy of two models in six blocks each, in the order A B, B A, A B ...

    Args:
        base: The reference model.
        other: The model to compare with it.
        batches: Each (B, C, H, W) on the models' device, used in turn.
        meter: The device's counter.
        seconds: Of a block.
        other_batches: Those of the other model, where it reads images of another size.
        clock: Another clock than the system's.

    Raises:
        NoMeterError: The counter stands still.
    """
    clock = clock or Clock()
    idle_w = _idle_power(meter, clock)
    runs = [_Run(base, batches, clock), _Run(other, batches if other_batches is None else other_batches, clock)]
    joules: tuple[list[float], list[float]] = ([], [])
    edge, load = 0.0, OtherLoad()
    with torch.inference_mode():
        for run in runs:
            run.warm_up(LEAD_S)
        for pair in range(PAIRS):
            for which in (0, 1) if pair % 2 == 0 else (1, 0):
                per_image, looks = _block(runs[which], meter, seconds, clock)
                joules[which].append(per_image)
                edge = max(edge, 1 / looks)
    return Energy(tuple(joules[0]), tuple(joules[1]), idle_w, edge, load.read())


class _Run:
    """A model, its batches in turn, and how many calls are queued at a time."""

    def __init__(self, forward: Forward, batches: Sequence[Tensor], clock: Clock) -> None:
        self._forward, self._clock = forward, clock
        self._batches: Iterator[Tensor] = cycle(batches)
        self._device, self._images = batches[0].device, len(batches[0])
        self._calls = 1

    @property
    def images(self) -> int:
        """Images in a step."""
        return self._calls * self._images

    def step(self) -> None:
        """Queue calls for about `STEP_S`, and wait for them: a wait after each would leave a GPU idle in between."""
        for _ in range(self._calls):
            self._forward(next(self._batches))
        synchronize(self._device)

    def warm_up(self, seconds: float) -> None:
        """Run for a while after the first call, which may compile, and set how many calls a step has."""
        self.step()
        start, calls = self._clock.now(), 0
        while (passed := self._clock.now() - start) < seconds or calls == 0:
            self.step()
            calls += 1
        self._calls = max(1, min(MOST_CALLS, int(STEP_S * calls / passed)))


def _block(run: _Run, meter: Meter, seconds: float, clock: Clock) -> tuple[float, int]:
    """Joules per image in a block, and how often the counter was looked at."""
    lead_end = clock.now() + LEAD_S
    while clock.now() < lead_end:
        run.step()
    first = _changed(meter, run.step, clock)
    start = clock.now()
    steps, last, changed = 0, first, start
    while True:
        run.step()
        steps += 1
        value, now = meter.read(), clock.now()
        if value != last:
            if now - start >= seconds:
                return (value - first) / (steps * run.images), steps
            last, changed = value, now
        elif now - changed > PATIENCE_S:
            raise _stuck()


def _idle_power(meter: Meter, clock: Clock) -> float:
    """The power of a device that has nothing to do, watts."""

    def wait() -> None:
        clock.sleep(POLL_S)

    clock.sleep(IDLE_S)
    first = _changed(meter, wait, clock)
    start = clock.now()
    clock.sleep(IDLE_S)
    last = _changed(meter, wait, clock)
    return (last - first) / (clock.now() - start)


def _changed(meter: Meter, meanwhile: Callable[[], None], clock: Clock) -> float:
    """The counter's value just after it has changed."""
    before, limit = meter.read(), clock.now() + PATIENCE_S
    while (value := meter.read()) == before:
        if clock.now() > limit:
            raise _stuck()
        meanwhile()
    return value


def _stuck() -> NoMeterError:
    return NoMeterError(f"the energy counter stood still for {PATIENCE_S:g} s")
