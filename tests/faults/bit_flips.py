"""One flipped bit in `records.jsonl`: measured again or refused in a line, but never another number."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import TINY, Lab, unequal
from warm_process import TABLE

from tokbench.kinds.pixels import PIXEL_COLUMNS

# What follows from the other rows of a method or from what is missing, and may differ where a record is left out.
PIXELS = (column.name for column in PIXEL_COLUMNS)
MAY_DIFFER = ("status", "reason", "remarks", "pareto", "pareto_time", "best_at_compute", "top1_sd", *PIXELS)

# The exit codes with which a command has done its work; for `check`, missing records may be a regression.
READERS = {
    "report": (("report", "results", "--out", "page.html"), (0,)),
    "export": (("export", "results"), (0,)),
    "check": (("check", "results", "--baseline", "../oracle"), (0, 1, 3, 4)),
}


@dataclass(frozen=True)
class BitFlip:
    """A bit of a finished directory's records.

    Attributes:
        seed: Chooses the bit.
        thorough: Try a command that reads too, not only what all of them share.
        again: Run the comparison again.
    """

    seed: int
    thorough: bool = True
    again: bool = True

    @property
    def name(self) -> str:
        """The seed."""
        return f"seed {self.seed}"

    def wrong(self, lab: Lab) -> str:
        """Flip it, read the directory, and run the comparison again."""
        generator = random.Random(self.seed)
        with lab.folder() as folder:
            directory = lab.copy_oracle(folder)
            records = directory / "records.jsonl"
            content = bytearray(records.read_bytes())
            place, bit = generator.randrange(len(content)), generator.randrange(8)
            content[place] ^= 1 << bit
            records.write_bytes(content)
            where = f"bit {bit} of byte {place:,}"
            found = self._wrong_table(lab, folder) or (self._wrong_reader(lab, folder) if self.thorough else "")
            if found or not self.again:
                return found and f"{where}: {found}"
            ended = lab.warm.run(*TINY, "--out", "results", folder=folder)
            if ended.refused:
                return ""
            found = f"compare: {ended}" if ended.code != 0 else unequal(directory, lab.oracle)
            return found and f"{where}: {found}"

    @staticmethod
    def _wrong_table(lab: Lab, folder: Path) -> str:
        """Whether Python code reads a number that the oracle does not have."""
        ended = lab.warm.run(TABLE, "results", folder=folder)
        if ended.refused:
            return ""
        if ended.code != 0:
            return f"reading: {ended}"
        for row, expected in zip(json.loads(ended.out), lab.right, strict=True):
            for column, value in row.items():
                if column not in MAY_DIFFER and value not in (None, "", expected[column]):
                    return f"reading: {column} of {row['method']} is {value}, not {expected[column]}"
        return ""

    def _wrong_reader(self, lab: Lab, folder: Path) -> str:
        """Whether a command that reads fails with more than a line; one for each seed."""
        name, (command, codes) = list(READERS.items())[self.seed % len(READERS)]
        ended = lab.warm.run(*command, folder=folder)
        return "" if ended.refused or (ended.code in codes and not ended.crashed) else f"{name}: {ended}"


def cases(flips: int, *, thorough: bool) -> Iterator[BitFlip]:
    """So many flips; without `thorough`, every eighth comparison runs again."""
    for seed in range(flips):
        yield BitFlip(seed, thorough, again=thorough or seed % 8 == 0)
