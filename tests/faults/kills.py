"""SIGKILL at random moments: nothing is lost, nothing is measured twice, and the end is that of an undisturbed run."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from lab import TINY, Lab, left_over, measured_twice, unequal

IN_A_ROW = 5


@dataclass(frozen=True)
class Kills:
    """A directory whose run is killed several times, then runs to its end.

    Attributes:
        seed: Of the moments.
        kills: How many.
    """

    seed: int
    kills: int

    @property
    def name(self) -> str:
        """The number of kills and the seed."""
        return f"{self.kills} kills, seed {self.seed}"

    def wrong(self, lab: Lab) -> str:
        """Kill, resume, and compare with the oracle."""
        generator = random.Random(self.seed)
        moments: list[float] = []
        with lab.folder() as folder:
            directory = folder / "results"
            while len(moments) < self.kills:
                moment, all_at_once = generator.uniform(0, lab.seconds), generator.random() < 0.5
                ended = lab.warm.run(
                    *TINY, "--out", "results", folder=folder, kill_after=moment, kill_children=all_at_once
                )
                if ended.left:
                    return f"{ended.left} processes outlive the one killed after {moment:.3f} s"
                if ended.code == 0:  # it was faster: begin with an empty directory again
                    shutil.rmtree(directory)
                elif ended.code == -9:
                    moments.append(round(moment, 3))
                else:
                    return f"{ended}, after kills at {moments} s"
            ended = lab.warm.run(*TINY, "--out", "results", folder=folder)
            if ended.code != 0 or ended.err:
                return f"{ended}, after kills at {moments} s"
            found = unequal(directory, lab.oracle) or measured_twice(directory) or left_over(directory)
            return found and f"{found}, after kills at {moments} s"


def cases(kills: int) -> Iterator[Kills]:
    """Directories with so many kills in all."""
    for seed, done in enumerate(range(0, kills, IN_A_ROW)):
        yield Kills(seed, min(IN_A_ROW, kills - done))
