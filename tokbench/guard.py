"""What a method must leave as it was: functions, settings of the process, and the plain model.

All methods of a comparison run in one process on one copy of the weights. A method that changes either, by a patched
function or by weights that it fuses in `setup`, would change the numbers of all others. So both are compared with a
snapshot after each method has run, and put back.
"""

from __future__ import annotations

import importlib
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import FunctionType, ModuleType
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

# What models, measurements and methods call. Only what is loaded counts.
WATCHED = (
    "torch",
    "torch._C",
    "torch._C._nn",
    "torch._tensor",
    "torch.functional",
    "torch.linalg",
    "torch.nn.functional",
    "torch.nn.modules",
    "torch.utils._pytree",
    "torchvision.transforms",
    "timm.layers",
    "timm.models.vision_transformer",
    "timm.models.deit",
    "timm.data",
    "tokbench",
    "PIL.Image",
    "time",
    "random",
    "math",
)

# With submodules: those of the others are too many, and nothing here calls them directly.
WITH_SUBMODULES = ("torch.nn.modules", "torchvision.transforms", "timm.layers", "timm.data", "tokbench")

CUDA_TOLERANCE = 1e-3  # of logits that are computed twice; a CPU gives the same bits

_ABSENT = object()


class MethodChangedError(RuntimeError):
    """A method has changed something that other rows depend on.

    Attributes:
        restored: Whether all of it could be put back.
    """

    def __init__(self, message: str, *, restored: bool) -> None:
        """Create the error."""
        super().__init__(message)
        self.restored = restored


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


SETTINGS = (
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


class Surroundings:
    """A snapshot of the functions and settings that every measurement depends on."""

    def __init__(self) -> None:
        """Take the snapshot."""
        for name in ("timm.models.vision_transformer", "timm.models.deit"):
            importlib.import_module(name)  # so that a plugin that patches them is not the first to import them
        self._functions = [_Functions.of(owner) for owner in _owners()]
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


@dataclass(frozen=True, eq=False)
class _Functions:
    """The functions and classes that a module or a class holds, and their code."""

    owner: Any
    name: str
    held: dict[str, Any]
    code: dict[str, tuple[Any, ...]]

    @classmethod
    def of(cls, owner: Any) -> _Functions:
        module = owner.__name__ if isinstance(owner, ModuleType) else f"{owner.__module__}.{owner.__qualname__}"
        held = {name: value for name, value in vars(owner).items() if _is_code(value) and not _is_compiled(name)}
        code = {name: _code(value) for name, value in held.items() if isinstance(value, FunctionType)}
        return cls(owner, module, held, code)

    def restore(self) -> Iterator[str]:
        now = vars(self.owner)
        for name, value in self.held.items():
            if now.get(name, _ABSENT) is not value:
                if not _is_by_torch_compile(now.get(name)):
                    setattr(self.owner, name, value)
                    yield f"{self.name}.{name}"
            elif (code := self.code.get(name)) is not None and _code(value) != code:
                value.__code__, value.__defaults__, value.__kwdefaults__ = code
                yield f"{self.name}.{name}"
        if isinstance(self.owner, type):  # a new function of a class may stand before one that it inherits
            added = [name for name, value in now.items() if name not in self.held and _is_code(value)]
            for name in added:
                if any(hasattr(base, name) for base in self.owner.__mro__[1:]):
                    delattr(self.owner, name)
                    yield f"{self.name}.{name}"


def _is_by_torch_compile(value: object) -> bool:
    """Whether it is one of the functions that torch.compile replaces for good when it is first used."""
    return str(getattr(value, "__module__", "")).startswith("torch._dynamo.")


def _is_compiled(name: str) -> bool:
    """Whether torch.compile has put it there, and may take it away."""
    return name.startswith("__") and not name.endswith("__")


def _is_code(value: object) -> bool:
    return not isinstance(value, ModuleType) and (
        callable(value) or isinstance(value, property | staticmethod | classmethod)
    )


def _code(function: FunctionType) -> tuple[Any, ...]:
    return function.__code__, function.__defaults__, function.__kwdefaults__


def _owners() -> Iterator[Any]:
    """The watched modules, and the classes that are defined in them."""
    seen: set[int] = set()
    for name, module in list(sys.modules.items()):
        if not _watched(name) or not isinstance(module, ModuleType):
            continue
        for owner in (module, *(value for value in vars(module).values() if _defined_there(value))):
            if id(owner) not in seen:
                seen.add(id(owner))
                yield owner


def _watched(name: str) -> bool:
    return name in WATCHED or name.startswith(tuple(f"{parent}." for parent in WITH_SUBMODULES))


def _defined_there(value: object) -> bool:
    return isinstance(value, type) and _watched(getattr(value, "__module__", ""))


class Untouched:
    """A snapshot of a model: its weights, its modules, their attributes and hooks, and its answer to one image."""

    def __init__(self, model: VisionTransformer) -> None:
        """Take the snapshot.

        Args:
            model: As it must stay, on its device.
        """
        self._model = model
        self._weights = {name: value.detach().cpu().clone() for name, value in _tensors(model)}
        self._modules = [_Attributes(name, module) for name, module in model.named_modules()]
        self._answer = self._logits()

    def restore(self) -> list[str]:
        """Put everything back.

        Returns:
            What had been changed: "blocks.0.mlp.fc1.weight of the plain model".
        """
        changed = [change for attributes in self._modules for change in attributes.restore()]
        for name, value in _tensors(self._model):
            before = self._weights[name]
            if value.shape != before.shape or not torch.equal(_bits(value.detach().cpu()), _bits(before)):
                value.data = before.to(value.device)
                changed.append(f"{name} of the plain model")
        return changed

    def answers_as_before(self) -> bool:
        """Whether the model still computes the same logits for one image."""
        now = self._logits()
        if now.device.type == "cpu":
            return torch.equal(now, self._answer)
        return torch.allclose(now.float(), self._answer.float(), rtol=CUDA_TOLERANCE, atol=CUDA_TOLERANCE)

    @torch.inference_mode()
    def _logits(self) -> Tensor:
        """(1, classes) for an image of a smooth pattern."""
        projection = self._model.patch_embed.proj
        shape = (1, projection.in_channels, *self._model.patch_embed.img_size)
        image = torch.linspace(-2, 2, math.prod(shape)).view(shape)
        logits: Tensor = self._model(image.to(projection.weight))
        return logits


@dataclass(eq=False)
class _Attributes:
    """What a module of a model holds, without the values of tensors."""

    name: str
    module: nn.Module
    before: dict[str, Any] = field(init=False)
    kept: dict[str, dict[Any, Any]] = field(init=False)

    def __post_init__(self) -> None:
        self.before = dict(vars(self.module))
        self.kept = {name: dict(value) for name, value in self.before.items() if isinstance(value, dict)}

    def restore(self) -> Iterator[str]:
        now = vars(self.module)
        where = f"{self.name}." if self.name else ""
        for name in [name for name in now if name not in self.before]:
            del now[name]
            yield f"{where}{name} of the plain model"
        for name, value in self.before.items():
            if now.get(name, _ABSENT) is not value:
                now[name] = value
                yield f"{where}{name} of the plain model"
            kept = self.kept.get(name)
            if kept is not None and not _same(value, kept):
                value.clear()
                value.update(kept)
                yield f"{where}{name.strip('_')} of the plain model"


def _same(one: dict[Any, Any], two: dict[Any, Any]) -> bool:
    return one.keys() == two.keys() and all(value is two[key] for key, value in one.items())


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _bits(tensor: Tensor) -> Tensor:
    sizes = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    return (
        tensor.contiguous().view(sizes[tensor.element_size()])
        if tensor.is_floating_point() and tensor.element_size() in sizes
        else tensor
    )


def check_unchanged(surroundings: Surroundings, models: Iterable[Untouched] = ()) -> None:
    """Raise if something was changed since the snapshots were taken; it is put back first.

    Args:
        surroundings: Of this process.
        models: The plain models on the device.

    Raises:
        MethodChangedError: Names what was changed, and says whether all of it could be put back.
    """
    models = list(models)
    changed = surroundings.restore() + [change for model in models for change in model.restore()]
    same = all(model.answers_as_before() for model in models)
    if same and not changed:
        return
    what = changed[0] if changed else "what the plain model computes"
    more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
    raise MethodChangedError(f"the method changed {what}{more}, which other rows depend on", restored=same)
