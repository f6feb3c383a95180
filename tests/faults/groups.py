"""The groups of faults, each in a short version for the tests and a long one for `make faults`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import bit_flips
import damaged_directories
import hostile_plugins
import image_files
import kills
import weight_files
import wrong_usage
from lab import Case


@dataclass(frozen=True)
class Group:
    """One idea of what can go wrong.

    Attributes:
        short: A few cases, for the tests; none where the group has tests of its own.
        long: Many, in a few minutes.
    """

    short: Callable[[], Sequence[Case]]
    long: Callable[[], Sequence[Case]]


GROUPS: Mapping[str, Group] = {
    "kills": Group(lambda: [*kills.cases(3)], lambda: [*kills.cases(100)]),
    "bit_flips": Group(lambda: [*bit_flips.cases(20, thorough=False)], lambda: [*bit_flips.cases(200, thorough=True)]),
    "damaged_directories": Group(lambda: damaged_directories.cases(6), lambda: damaged_directories.cases(400)),
    "weights": Group(weight_files.short, weight_files.cases),
    "images": Group(image_files.short, image_files.cases),
    "command_lines": Group(list, lambda: wrong_usage.commands(520)),
    "settings_files": Group(list, lambda: wrong_usage.settings(120)),
    "plugins": Group(hostile_plugins.short, lambda: hostile_plugins.cases(150)),
}
