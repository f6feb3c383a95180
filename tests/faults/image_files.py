"""Bad images, folders, archives and Parquet files: read rightly, or refused in one line."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from lab import Case, Lab
from odd_images import CONTAINERS, DATA, GOOD, READABLE, UNDECIDED, UNREADABLE
from safetensors.torch import save_file

MODEL = "deit_tiny_patch16_224"


def _measure(lab: Lab, folder: Path, data: Path) -> tuple[int | None, str]:
    """The number of images measured, or None if the data were refused; and what went wrong, if anything."""
    weights = lab.shelf("weights") / "deit_tiny.safetensors"
    if not weights.exists():
        torch.manual_seed(0)
        save_file(timm.create_model(MODEL, pretrained=False).state_dict(), weights)
    ended = lab.warm.run(
        "compare", "imagenet", "--data", data, "--models", MODEL, "--weights", weights, "--methods", "none",
        "--only", "accuracy", "--workers", "0", "--out", "results", "--json", folder=folder,
    )  # fmt: skip
    if (folder / "ran").exists():
        return None, "code in the data ran"
    if ended.refused:
        return None, ""
    if ended.code != 0 or ended.crashed:
        return None, str(ended)
    return int(json.loads(ended.out)[0]["images"]), ""


@dataclass(frozen=True)
class OddImage:
    """One odd image beside good ones; an unreadable one is more than 1 % of them, and is refused."""

    image: str
    container: str

    @property
    def name(self) -> str:
        """The image and where it is."""
        return f"{self.image} in a {self.container}"

    def wrong(self, lab: Lab) -> str:
        """Write the data and measure on them."""
        readable = self.image in READABLE
        content = READABLE[self.image] if readable else UNREADABLE[self.image]
        with lab.folder() as folder:
            data = CONTAINERS[self.container](folder, content)
            count, wrong = _measure(lab, folder, data)
        if wrong or self.image in UNDECIDED:
            return wrong
        if readable and count != GOOD + 1:
            return f"measured on {count} images, not {GOOD + 1}" if count is not None else "refused"
        return f"measured on {count} images" if not readable and count is not None else ""


@dataclass(frozen=True)
class OddData:
    """A folder, an archive or a Parquet file with something wrong."""

    data: str

    @property
    def name(self) -> str:
        """What it is."""
        return self.data

    def wrong(self, lab: Lab) -> str:
        """Write it and measure on it."""
        write, right = DATA[self.data]
        with lab.folder() as folder:
            count, wrong = _measure(lab, folder, write(folder))
        if wrong:
            return wrong
        found = "refused" if count is None else f"measured on {count} images"
        return "" if (count or 0) in right else f"{found}; right: {' or '.join(map(str, right))}, 0 is a refusal"


def short() -> Sequence[Case]:
    """One of each kind."""
    return [OddImage("PNG of 1 x 60000", "folder"), OddImage("CMYK", "tar"), OddData("label is missing")]


def cases() -> Sequence[Case]:
    """All of them."""
    return [*_every()]


def _every() -> Iterator[Case]:
    yield from (OddImage(image, container) for image in (*UNREADABLE, *READABLE) for container in CONTAINERS)
    yield from (OddData(data) for data in DATA)
