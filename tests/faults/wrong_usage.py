"""Wrong command lines and settings files as cases: refused in one line, and nothing is written."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from command_lines import command_lines
from lab import Lab
from settings_files import settings_files

SETTINGS = "tokbench.toml"
COMMAND = ("compare", "--only", "macs", "--methods", "grid_pooling", "--keep", "0.5")


@dataclass(frozen=True)
class CommandLine:
    """Arguments after `tokbench`."""

    name: str
    arguments: tuple[str, ...]

    def wrong(self, lab: Lab) -> str:
        """Run it in an empty folder."""
        with lab.folder() as folder:
            return _unless_refused(lab, folder, self.arguments)


@dataclass(frozen=True)
class SettingsFile:
    """A `tokbench.toml` in the current folder."""

    name: str
    content: bytes

    def wrong(self, lab: Lab) -> str:
        """Run a command in a folder that holds it."""
        with lab.folder() as folder:
            (folder / SETTINGS).write_bytes(self.content)
            return _unless_refused(lab, folder, COMMAND)


def _unless_refused(lab: Lab, folder: Path, arguments: tuple[str, ...]) -> str:
    ended = lab.warm.run(*arguments, folder=folder)
    written = sorted(path.name for path in folder.iterdir() if path.name not in (".out", ".err", SETTINGS))
    if not ended.refused or ended.out:
        return str(ended)
    return f"refused, but it has written {', '.join(written)}" if written else ""


def commands(count: int, seed: int = 0) -> Sequence[CommandLine]:
    """A sample of the wrong command lines; the tests of their own try some too."""
    every = [CommandLine(name, arguments) for name, arguments in command_lines()]
    return random.Random(seed).sample(every, count)


def settings(count: int, seed: int = 0) -> Sequence[SettingsFile]:
    """A sample of the wrong settings files; the tests of their own try some too."""
    every = [SettingsFile(name, content) for name, content in settings_files()]
    return random.Random(seed).sample(every, count)
