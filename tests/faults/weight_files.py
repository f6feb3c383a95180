"""Bad files of weights: each is refused in one line, and no code in them runs."""

from __future__ import annotations

import os
import pickle
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lab import Case, Lab
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[1] / "vit"))
from odd_weights import FILES, state

COMMAND = ("compare", "--only", "macs", "--methods", "none", "--models", "digits_deit", "--out", "results", "--weights")
MARK = "ran"  # what a bomb creates

ONLY_IN_PYTHON = ("NUL",)  # no argument of a command can hold it
SHORT = ("huge storage.pth", "header of 2^62.safetensors")


def _refused(lab: Lab, folder: Path, file: str) -> str:
    ended = lab.warm.run(*COMMAND, file, folder=folder)
    if (folder / MARK).exists():
        return f"its code ran; {ended}"
    return "" if ended.refused else str(ended)


@dataclass(frozen=True)
class OddFile:
    """A file that holds no weights for the embedded model."""

    file: str

    @property
    def name(self) -> str:
        """What the file is."""
        return self.file

    def wrong(self, lab: Lab) -> str:
        """Write it and name it on the command line."""
        name, write = FILES[self.file]
        with lab.folder() as folder:
            write(folder / name)
            return _refused(lab, folder, name)


class _Call:
    """Pickled as the call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


BOMBS: dict[str, Callable[[], _Call]] = {
    "os.system": lambda: _Call(os.system, f"touch {MARK}"),
    "eval": lambda: _Call(eval, f"open({MARK!r}, 'w').close()"),
    "exec": lambda: _Call(exec, f"open({MARK!r}, 'w').close()"),
    "open": lambda: _Call(open, MARK, "w"),
    "os.mkdir": lambda: _Call(os.mkdir, MARK),
}
FORMATS = ("archive", "old format", "pickle")


@dataclass(frozen=True)
class Bomb:
    """A pickle that calls a function when it is loaded, alone or beside whole weights."""

    call: str
    format: str
    beside_weights: bool

    @property
    def name(self) -> str:
        """The function and the format."""
        return f"{self.call} in {self.format}{' beside weights' * self.beside_weights}"

    def wrong(self, lab: Lab) -> str:
        """Write it and name it on the command line."""
        bomb = BOMBS[self.call]()
        content = {"model": state(), "args": bomb} if self.beside_weights else bomb
        with lab.folder() as folder:
            file = folder / "x.pth"
            if self.format == "pickle":
                file.write_bytes(pickle.dumps(content))
            else:
                torch.save(content, file, _use_new_zipfile_serialization=self.format == "archive")
            return _refused(lab, folder, file.name)


@dataclass(frozen=True)
class Overwritten:
    """Whole weights with a few random bytes overwritten, which may be harmless."""

    suffix: str
    seed: int

    @property
    def name(self) -> str:
        """The format and the seed."""
        return f"bytes of a {self.suffix} file overwritten, seed {self.seed}"

    def wrong(self, lab: Lab) -> str:
        """Overwrite them, half of the time near the start, where the names and shapes are."""
        generator = random.Random(self.seed)
        with lab.folder() as folder:
            file = folder / f"x.{self.suffix}"
            save_file(state(), file) if self.suffix == "safetensors" else torch.save(state(), file)
            content = bytearray(file.read_bytes())
            end = generator.choice((min(20_000, len(content)), len(content)))
            for _ in range(generator.randint(1, 4)):
                content[generator.randrange(end)] = generator.randrange(256)
            file.write_bytes(content)
            ended = lab.warm.run(*COMMAND, file.name, folder=folder)
            return "" if ended.refused or (ended.code == 0 and not ended.crashed) else str(ended)


def short() -> Sequence[Case]:
    """One of each kind."""
    return [*(OddFile(file) for file in SHORT), Bomb("os.system", "archive", True), Overwritten("pth", 0)]


def cases() -> Sequence[Case]:
    """All of them."""
    return [*_every()]


def _every() -> Iterator[Case]:
    yield from (OddFile(file) for file in FILES if file not in ONLY_IN_PYTHON)
    yield from (Bomb(call, one, beside) for call in BOMBS for one in FORMATS for beside in (False, True))
    yield from (Overwritten(suffix, seed) for suffix in ("pth", "safetensors") for seed in range(15))
