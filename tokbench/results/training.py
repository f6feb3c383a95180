"""What `tokbench finetune` leaves in a results directory besides checkpoints: a folder for each cell.

The folder holds the log of the training, and what came of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
from pydantic import TypeAdapter

from tokbench.files import OTHER_FOLDER, writing
from tokbench.results.store import write_json

TRAINING = "training"
"""The folder with the folders of the cells."""

LOG = "log.csv"
CELL = "cell.json"


@dataclass(frozen=True)
class TrainedCell:
    """What training a cell has given.

    Attributes:
        stem: The name of its files.
        model: The model's name.
        method: The method, `none` for the plain model.
        params: Its parameters as the table shows them.
        schedule: Without the keep; empty for the plain model.
        keep: The fraction that a reduction leaves, None where the schedule names counts and for the plain model.
        seed: Of the training.
        before: Top-1 on the validation images before training, in percent; None without such images.
        after: The same after training; None also where the training did not come to its end.
        reason: Why there is no checkpoint; empty where there is one, and while it is trained.
        skipped: Whether the reason is that the cell cannot be trained at all.
    """

    stem: str
    model: str
    method: str
    params: str
    schedule: str
    keep: float | None
    seed: int
    before: float | None = None
    after: float | None = None
    reason: str = ""
    skipped: bool = False

    def __str__(self) -> str:
        """`tome(r=13) at keep 0.7, seed 1, in deit_tiny_patch16_224`."""
        method = f"{self.method}({self.params})" if self.params else self.method
        keep = "" if self.keep is None else f" at keep {self.keep:g}"
        return f"{method}{keep}, seed {self.seed}, in {self.model}"

    @property
    def failed(self) -> bool:
        """Whether the training failed."""
        return bool(self.reason) and not self.skipped


_CELL = TypeAdapter(TrainedCell)


def cell_folder(directory: Path, stem: str) -> Path:
    """The folder of a cell.

    Args:
        directory: The results directory.
        stem: The name of the cell's files.
    """
    return directory / TRAINING / stem


def write_cell(cell: TrainedCell, directory: Path) -> None:
    """Keep what is known of a cell.

    Raises:
        UserError: The folder cannot be written.
    """
    folder = cell_folder(directory, cell.stem)
    with writing(folder, OTHER_FOLDER):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / CELL, asdict(cell))


def read_cell(directory: Path, stem: str) -> TrainedCell | None:
    """What has been kept of a cell; None where nothing was, or the file is damaged."""
    try:
        return _CELL.validate_json((cell_folder(directory, stem) / CELL).read_bytes())
    except (OSError, ValueError):
        return None


def training_logs(directory: Path) -> Iterator[tuple[TrainedCell, pd.DataFrame]]:
    """The cells of a results directory in the order of their names, each with its log; those without one are left out.

    Args:
        directory: The results directory.
    """
    for file in sorted((directory / TRAINING).glob(f"*/{LOG}")):
        cell = read_cell(directory, file.parent.name)
        try:
            log = pd.read_csv(file)
        except (OSError, ValueError):  # it is damaged, or nothing has been written yet
            continue
        if cell is not None and len(log):
            yield cell, log
