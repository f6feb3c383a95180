"""Reading fine-tuned checkpoints: those that tokbench wrote, and those of public code in their own layouts."""

from __future__ import annotations

from pathlib import Path

from tokbench.errors import UserError
from tokbench.trained.checkpoint import Trained
from tokbench.trained.layouts import LAYOUTS, recognise
from tokbench.trained.saved import is_saved, read_saved
from tokbench.user_files import expanded
from tokbench.vit.checkpoints import SUFFIXES
from tokbench.vit.weights import load_object, one_line

CHECKPOINTS = "checkpoints"
"""The folder in a directory of results."""


def files_of_checkpoint(given: str) -> list[Path]:
    """The files of weights that a path stands for: itself, or those in the folder, sorted.

    In a folder with checkpoints of tokbench, these are meant; in any other, all files that PyTorch saved: public code
    writes its arguments into these.

    Raises:
        UserError: There are none.
    """
    path = expanded(given)
    if not path.exists():
        raise UserError(f"no checkpoint at {one_line(str(path))}: name a file or a folder of them with --checkpoint")
    if not path.is_dir():
        return [path]
    found = sorted(
        entry
        for folder in (path, path / CHECKPOINTS)
        if folder.is_dir()
        for entry in folder.iterdir()
        if entry.is_file() and entry.suffix.lower() in SUFFIXES and not entry.name.startswith(".")
    )
    meant = [file for file in found if is_saved(file)] or [file for file in found if file.suffix != ".safetensors"]
    if not meant:
        raise UserError(
            f"no checkpoints in {one_line(str(path))}: name a folder of tokbench finetune or a file with --checkpoint"
        )
    return meant


def read_trained(file: Path) -> Trained:
    """Read a fine-tuned checkpoint.

    Raises:
        UserError: It cannot be read, or its layout is not known; the message says which are.
    """
    if is_saved(file):
        return read_saved(file)
    trained = recognise(load_object(file), file)
    if trained is None:
        raise UserError(
            f"{one_line(str(file))} does not say which method was trained: --checkpoint reads those of tokbench "
            f"finetune and of {', '.join(LAYOUTS)}, with their args; measure a method in these weights with --weights"
        )
    return trained
