"""Damaged files of a results directory: `compare` repairs or refuses them, readers refuse in one line."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lab import TINY, Lab, left_over, unequal

LOCK = ".lock"
FILES = (
    "plan.json",
    "records.jsonl",
    "environment.json",
    "images.parquet",
    "table.parquet",
    "table.csv",
    "correctness.parquet",
    LOCK,
)


def _cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size * 2 // 3)


def _zeros(file: Path) -> None:
    file.write_bytes(bytes(file.stat().st_size))


def _other_version(file: Path) -> None:
    """A schema of the future; in a file without one, a first line as such a version might write it."""
    content = file.read_bytes()
    if file.suffix == ".json":
        file.write_text(json.dumps({**json.loads(content), "schema": 1}))
    else:
        file.write_bytes(b'{"schema": 99}\n' + content)


def _wrong_types(file: Path) -> None:
    """Every number becomes a text and every list a number."""

    def turned(value: object) -> object:
        if isinstance(value, dict):
            return {key: turned(inner) for key, inner in value.items()}
        return len(value) if isinstance(value, list) else f"<{value}>"

    try:
        values = [turned(json.loads(line)) for line in file.read_text("utf-8").splitlines()]
    except ValueError:  # it is one value over several lines, or no JSON
        try:
            values = [turned(json.loads(file.read_text("utf-8")))]
        except ValueError:
            values = [{"image": 1}]
    file.write_text("".join(json.dumps(value) + "\n" for value in values))


def _instead(make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Something else in the place of the file."""

    def write(file: Path) -> None:
        file.unlink()
        make(file)

    return write


def _writes(content: bytes) -> Callable[[Path], None]:
    return _instead(lambda file: file.write_bytes(content))


def _link_to_itself(file: Path) -> None:
    file.symlink_to(file.name)


def _full_folder(file: Path) -> None:
    file.mkdir()
    (file / "inside").write_text("mine")


DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": _writes(b""),
    "cut": _cut,
    "zeros": _zeros,
    "of another version": _other_version,
    "not UTF-8": _writes(b'{"schema": 3, "caf\xe9": "\xff\xfe"}\n'),
    "a folder": _instead(Path.mkdir),
    "a folder with a file": _instead(_full_folder),
    "a list": _writes(b"[1, 2]\n"),
    "null": _writes(b"null\n"),
    "a number": _writes(b"7\n"),
    "an object": _writes(b"{}\n"),
    "deeply nested": _writes(b"[" * 100_000 + b"\n"),
    "with wrong types inside": _wrong_types,
    "a link to itself": _instead(_link_to_itself),
    "a link to nothing": _instead(lambda file: file.symlink_to("nothing/there")),
    "a FIFO": _instead(lambda file: os.mkfifo(file)),
}

COMMANDS: dict[str, tuple[str | Path, ...]] = {
    "compare": (*TINY, "--out", "results"),
    "compare --fresh": (*TINY, "--out", "results", "--fresh"),
    "report": ("report", "results", "--out", "page.html"),
    "plot": ("plot", "results", "--out", "figure.svg"),
    "export": ("export", "results"),
    "merge": ("merge", "results", "--out", "joined"),
    "check": ("check", "results", "--baseline", "oracle"),
}

IN_THE_WAY = ("a folder", "a folder with a file", "a FIFO")

LIMIT = 30.0  # seconds

# Exit codes of readers other than 0: a regression, ambiguous or invalid, each with its lines on standard output.
READ = {"check": (0, 1, 3, 4)}


@dataclass(frozen=True)
class DamagedFile:
    """A damaged file of a finished directory, and a command."""

    file: str
    damage: str
    command: str

    @property
    def name(self) -> str:
        """The three."""
        return f"{self.command}: {self.file} is {self.damage}"

    def wrong(self, lab: Lab) -> str:
        """Damage a copy of the oracle and run the command."""
        with lab.folder() as folder:
            directory = lab.copy_oracle(folder)
            DAMAGES[self.damage](directory / self.file)
            kept = _held(directory)
            if self.command == "check":
                shutil.copytree(lab.oracle, folder / "oracle")
            ended = lab.warm.run(*COMMANDS[self.command], folder=folder, limit=LIMIT)
            if ended.crashed:
                return str(ended)
            if ended.code == 2 and _held(directory) < kept:
                return f"records are lost, and {ended}"
            if self.command.startswith("compare"):
                if ended.code == 0:
                    return unequal(directory, lab.oracle) or left_over(directory)
                # What is no file may hold something of the user's, and only the user can move it away.
                may_refuse = self.command == "compare" or self.file == LOCK or self.damage in IN_THE_WAY
                return "" if ended.refused and may_refuse else str(ended)
            return "" if ended.refused or ended.code in READ.get(self.command, (0,)) else str(ended)


def _held(directory: Path) -> int:
    """How many bytes of records are in the directory, those moved aside included."""
    return sum(file.stat().st_size for file in directory.glob("records*.jsonl") if file.is_file())


def cases(count: int | None = None, seed: int = 0) -> list[DamagedFile]:
    """All combinations, or a sample of them."""
    every = list(_every())
    return every if count is None else random.Random(seed).sample(every, count)


def _every() -> Iterator[DamagedFile]:
    for file in FILES:
        for damage in DAMAGES:
            for command in COMMANDS:
                yield DamagedFile(file, damage, command)
