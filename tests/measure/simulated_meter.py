"""A clock, models and a counter of energy whose truth is known."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tokbench.measure.energy import Clock, Energy, measure_energy
from tokbench.measure.energy_meter import Meter

IMAGES = torch.zeros(8, 3, 4, 4)


@dataclass
class Device:
    """Draws `idle_w` while it waits, and a model's own power while that runs.

    Attributes:
        idle_w: Watts.
        tick_s: The counter changes so often.
        lag_s: The counter shows what was used until so long ago.
        phase_s: When the first tick is.
    """

    idle_w: float = 60.0
    tick_s: float = 0.1
    lag_s: float = 0.0
    phase_s: float = 0.0
    now: float = 0.0
    used: list[tuple[float, float]] = field(default_factory=lambda: [(0.0, 0.0)])  # moments and joules until then
    jitter: random.Random = field(default_factory=lambda: random.Random(0))

    def spend(self, seconds: float, watts: float) -> None:
        self.now += seconds
        self.used.append((self.now, self.used[-1][1] + seconds * watts))

    def sleep(self, seconds: float) -> None:
        self.spend(seconds, self.idle_w)

    def read(self) -> float:
        """Joules until the last tick."""
        ticks = (self.now - self.phase_s) // self.tick_s
        moment = max(0.0, self.phase_s + ticks * self.tick_s - self.lag_s)
        for (start, before), (end, after) in zip(self.used[-2::-1], self.used[:0:-1], strict=True):
            if start <= moment <= end:
                return before + (after - before) * (moment - start) / (end - start)
        return 0.0

    def model(self, seconds: float, watts: float, spread: float = 0.0) -> Model:
        return Model(self, seconds, watts, spread)

    def measure(self, base: Model, other: Model, seconds: float = 1.0) -> Energy:
        clock = Clock(lambda: self.now, self.sleep)
        return measure_energy(base, other, [IMAGES], Meter("simulated", self.read), seconds, clock=clock)


@dataclass
class Model:
    device: Device
    seconds: float
    watts: float
    spread: float

    def __call__(self, images: Tensor) -> Tensor:
        factor = 1 + self.spread * (2 * self.device.jitter.random() - 1)
        self.device.spend(self.seconds * factor, self.watts)
        return images

    @property
    def joules(self) -> float:
        """Per image."""
        return self.seconds * self.watts / len(IMAGES)
