"""A snapshot of what every measurement in a process depends on."""

from __future__ import annotations

import importlib
import signal

from tokbench.guard.functions import Functions, watched
from tokbench.guard.settings import SETTINGS


class Surroundings:
    """A snapshot of the functions and settings that every measurement depends on."""

    def __init__(self) -> None:
        """Take the snapshot."""
        for name in ("timm.models.vision_transformer", "timm.models.deit"):
            importlib.import_module(name)  # so that a plugin that patches them is not the first to import them
        self._functions = [Functions.of(owner) for owner in watched()]
        self._settings = {setting.name: setting.get() for setting in SETTINGS}

    def restore(self) -> list[str]:
        """Put everything back.

        Returns:
            What had been changed: "timm.layers.mlp.Mlp.forward".
        """
        changed = []
        for setting in SETTINGS:
            before = self._settings[setting.name]
            if setting.get() != before:
                setting.put(before)
                changed.append(setting.name)
        # After the settings, because torch replaces a class of its own with the default dtype.
        changed += [change for functions in self._functions for change in functions.restore()]
        if hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)  # an alarm would ring in somebody else's measurement
        return changed
