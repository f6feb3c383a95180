"""Settings of the process that every measurement depends on."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Setting:
    """A setting of the process.

    Attributes:
        name: As in "changed <name>".
        get: Its value.
        put: Sets it.
    """

    name: str
    get: Callable[[], Any]
    put: Callable[[Any], object]


def _folder() -> str | None:
    try:
        return os.getcwd()  # noqa: PTH109 - as text, for a folder that is deleted meanwhile
    except FileNotFoundError:
        return None


def _enter(folder: str | None) -> None:
    if folder is not None:
        with suppress(FileNotFoundError):
            os.chdir(folder)


def _handlers() -> dict[int, Any]:
    # torch handles SIGCHLD once it has started processes that decode images.
    of_torch = {getattr(signal, "SIGCHLD", None)}
    return {number: signal.getsignal(number) for number in signal.valid_signals() - of_torch}


def _handle(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        # Python cannot set a handler that was not set from Python, nor those of SIGKILL and SIGSTOP.
        if handler is not None and signal.getsignal(number) is not handler:
            signal.signal(number, handler)


def _deterministic() -> tuple[bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()


def _hooks() -> dict[str, dict[Any, Any]]:
    """What runs along with every module of every model."""
    held = vars(torch.nn.modules.module)
    return {
        name: dict(value) for name, value in held.items() if name.startswith("_global_") and isinstance(value, dict)
    }


def _hook(hooks: dict[str, dict[Any, Any]]) -> None:
    for name, value in hooks.items():
        held = getattr(torch.nn.modules.module, name)
        held.clear()
        held.update(value)


def _search_in(folders: list[str]) -> None:
    sys.path[:] = folders


SETTINGS = (
    Setting("the import path", lambda: list(sys.path), _search_in),
    Setting("hooks of all modules", _hooks, _hook),
    Setting("torch's default dtype", torch.get_default_dtype, torch.set_default_dtype),
    Setting("torch's default device", torch.get_default_device, torch.set_default_device),
    Setting("the number of threads", torch.get_num_threads, torch.set_num_threads),
    Setting("gradient mode", torch.is_grad_enabled, torch.set_grad_enabled),
    Setting("the precision of matrix products", torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    Setting(
        "deterministic algorithms",
        _deterministic,
        lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
    ),
    Setting("the working directory", _folder, _enter),
    Setting("signal handlers", _handlers, _handle),
)
