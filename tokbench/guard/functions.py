"""The functions and classes that models, measurements and methods call."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

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
    "builtins",
    "io",
    "json",
    "os",
    "pathlib",
    "time",
    "random",
    "math",
)

# With submodules: those of the others are too many, and nothing here calls them directly.
WITH_SUBMODULES = ("torch.nn.modules", "torchvision.transforms", "timm.layers", "timm.data", "tokbench")

_ABSENT = object()


@dataclass(frozen=True, eq=False)
class Functions:
    """The functions and classes that a module or a class holds, and their code."""

    owner: Any
    name: str
    held: dict[str, Any]
    code: dict[str, tuple[Any, ...]]

    @classmethod
    def of(cls, owner: Any) -> Functions:
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


def watched() -> Iterator[Any]:
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
