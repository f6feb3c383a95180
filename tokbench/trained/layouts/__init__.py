"""Checkpoints of public code: how each code base writes them, and which method with which parameters they are here.

Nothing is guessed: what is neither in the names of the weights nor in the arguments that are saved with them is not
known, and a file that does not say which method it is of is not recognised.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokbench.trained.checkpoint import Trained
from tokbench.trained.layouts import atc, dtem, dynamicvit, evit, ltmp, tokenreduction
from tokbench.trained.layouts.saved_content import Saved, saved_content

LAYOUTS: dict[str, Callable[[Saved], Trained | None]] = {
    "TokenReduction": tokenreduction.read,
    "ATC": atc.read,
    "DynamicViT": dynamicvit.read,
    "EViT": evit.read,
    "DTEM": dtem.read,
    "LTMP": ltmp.read,
}
"""What reads the checkpoints of each code base, by its name; None is for a file that is not of it."""


def recognise(content: Any, file: Path) -> Trained | None:
    """What a checkpoint of public code is, or None if it is of no known layout.

    Args:
        content: What `tokbench.vit.weights.load_object` gives.
        file: The file that it is from.

    Raises:
        UserError: It is of a known layout, but of a method that tokbench does not have, or damaged or incomplete.
    """
    saved = saved_content(content, file)
    if saved is None:
        return None
    return next((trained for read in LAYOUTS.values() if (trained := read(saved)) is not None), None)
