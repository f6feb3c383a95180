"""What can be a parameter of a method: its declared type, its value as text and back, and in a form that hashes.

A parameter is None, a truth value, a number, a text, a path, a member of an Enum, or a list, tuple, set or dict of such
values: what a table can show and a command line, tokbench.toml and JSON can hold, without any loss.
"""

from __future__ import annotations

import ast
import inspect
import os
import re
import sys
import types
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache, reduce
from operator import or_
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import Annotated, Any, Literal, NewType, Union, get_args, get_origin, get_type_hints

import pydantic

from tokbench.values import BRACKETS, plain_text, split_outside, thaw, unquoted, value_text

SCALARS = (bool, int, float, str)
LISTS = (list, tuple, Sequence, MutableSequence, Iterable, Collection)
SETS = (set, frozenset, AbstractSet)
DICTS = (dict, Mapping, MutableMapping)


@dataclass(frozen=True, eq=False)
class Parameter:
    """A parameter as a function declares it.

    Attributes:
        hint: Its type: the annotation, or the type of the default where no annotation can be resolved.
        default: Its default in that type; `inspect.Parameter.empty` without one.
        problem: Why it cannot be a parameter; empty if it can.
    """

    hint: Any
    default: Any = inspect.Parameter.empty
    problem: str = ""

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.default is inspect.Parameter.empty


def parameters_of(function: Callable[..., Any]) -> dict[str, Parameter]:
    """The parameters of a class or function by name, in the order of the signature, without `*args` and `**kwargs`."""
    declared = inspect.signature(function).parameters.values()
    hints = _hints(function.__init__ if inspect.isclass(function) else function)
    return {
        one.name: _parameter(one, hints.get(one.name, one.empty))
        for one in declared
        if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    }


def _parameter(declared: inspect.Parameter, hint: Any) -> Parameter:
    default = declared.default
    if declared.kind is declared.POSITIONAL_ONLY:
        return Parameter(hint, default, "it cannot be given by name: remove the / from the signature")
    if hint is declared.empty or hint in (Any, object) or isinstance(hint, str):
        missing = "it has no annotation" if hint in (declared.empty, Any, object) else f"{hint} cannot be resolved"
        if default is declared.empty or default is None:
            return Parameter(hint, default, f"{missing}: annotate it, as in {declared.name}: int = 3")
        hint = _type_of(default)
    if not checkable(hint):
        return Parameter(hint, default, f"{_name(hint)} has no values that can be written: {_ALLOWED}")
    try:
        _adapter(hint)
    except pydantic.errors.PydanticUserError as error:
        return Parameter(hint, default, f"{_name(hint)} cannot be checked: {str(error).splitlines()[0]}")
    if default is declared.empty:
        return Parameter(hint)
    if default is None:
        hint = Union[hint, None]  # noqa: UP007 - it may be a form of typing, which has no |
    try:
        bound = validated(hint, default)
    except pydantic.ValidationError:
        return Parameter(hint, default, f"its default {value_text(default)} is not of the type {_name(hint)}")
    if not _reads_back(hint, value_text(bound)):
        return Parameter(
            hint, default, f"its default {value_text(bound)} would be read as another value of {_name(hint)}"
        )
    return Parameter(hint, bound)


_ALLOWED = "use numbers, texts, paths, Enum, Literal, or lists, tuples, sets and dicts of these"


def checkable(hint: Any) -> bool:
    """Whether all values of a type can be written, and checked when they are read."""
    if isinstance(hint, NewType):
        return checkable(hint.__supertype__)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return checkable(arguments[0])
    if origin is Literal:
        return all(value is None or isinstance(value, (*SCALARS, Enum)) for value in arguments)
    if origin in (Union, types.UnionType):
        return all(map(checkable, arguments))
    if (origin or hint) in (*LISTS, *SETS, *DICTS):
        return all(checkable(argument) for argument in arguments if argument not in (..., (), Any))
    if hint in (None, type(None), os.PathLike, *SCALARS) or origin is os.PathLike:
        return True
    return isinstance(hint, type) and issubclass(hint, PurePath | Enum)


def validated(hint: Any, value: Any) -> Any:
    """A Python value, or what `freeze` made of it, converted to a type.

    Raises:
        pydantic.ValidationError: The value has another type.
    """
    return _adapter(hint).validate_python(thaw(value))


def read(hint: Any, value: Any) -> Any:
    """A value for `validated`, from a text; other values, and texts that do not fit, are returned as they are."""
    if not isinstance(value, str) or isinstance(value, Enum):
        return value
    if isinstance(hint, NewType):
        return read(hint.__supertype__, value)
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:  # a validator of its own may read texts
        return read(arguments[0], value) if value[:1] in BRACKETS else value
    if origin is Literal:
        matching = (choice for choice in arguments if plain_text(choice).lower() == value.lower())
        return value if value in arguments else next(matching, value)
    if origin in (Union, types.UnionType):
        return _read_union(arguments, value)
    kind = origin or hint
    if kind in (*LISTS, *SETS, *DICTS) and value[:1] in BRACKETS and value[-1:] == BRACKETS[value[0]]:
        parts = [part.strip() for part in split_outside(value[1:-1], ",") if part.strip()]
        if kind in DICTS:
            key, content = arguments or (Any, Any)
            pairs = [[text.strip() for text in split_outside(part, ":")] for part in parts]
            fits = all(len(pair) == 2 for pair in pairs)
            return {_read_item(key, one): _read_item(content, other) for one, other in pairs} if fits else value
        fixed = kind is tuple and bool(arguments) and arguments[-1] is not ...
        hints = arguments if fixed else (arguments[0] if arguments else Any,) * len(parts)
        hints = (*hints, *[Any] * len(parts))  # pydantic reports too many parts
        items = [_read_item(item, part) for item, part in zip(hints, parts, strict=False)]
        return items if kind in (list, MutableSequence) else tuple(items)
    if isinstance(hint, type) and issubclass(hint, Enum):
        by_value = (member for member in hint if plain_text(member.value) == value)
        return hint.__members__[value] if value in hint.__members__ else next(by_value, value)
    return None if hint in (None, type(None)) and value.lower() == "none" else value


def _read_union(arms: Sequence[Any], text: str) -> Any:
    """The text as the first type that has this text for it, else as the first that it fits; as a text at the end."""
    choice = any(get_origin(arm) is Literal and text in get_args(arm) for arm in arms)
    if type(None) in arms and text.lower() == "none" and not choice:
        return None
    fitting = []
    for arm in sorted(arms, key=lambda arm: arm in (str, Path)):
        try:
            fitting.append(validated(arm, read(arm, text)))
        except pydantic.ValidationError:
            continue
    exact = [value for value in fitting if value_text(value) == text]
    return next(iter((*exact, *fitting)), text)


def _read_item(hint: Any, text: str) -> Any:
    """A value inside brackets, where texts may be in quotes."""
    if text[:1] in ("'", '"'):
        quoted = unquoted(text)
        return quoted if _is_text(hint) else read(hint, quoted)
    if hint is Any:
        return _guess(text)
    return read(hint, text)


def _is_text(hint: Any) -> bool:
    """Whether a text fits as it is, so that what is in quotes is one even if it looks like a number."""
    return hint is Any or hint is str or (get_origin(hint) in (Union, types.UnionType) and str in get_args(hint))


def _guess(text: str) -> Any:
    """A value of a type that was not declared."""
    return read(list if text[:1] in ("[", "(") else bool | int | float | str | None, text)


def _reads_back(hint: Any, text: str) -> bool:
    """Whether a command line with this text gives the value that has it."""
    try:
        return value_text(validated(hint, read(hint, unquoted(text)))) == text
    except pydantic.ValidationError:
        return False


def _adapter(hint: Any) -> pydantic.TypeAdapter[Any]:
    try:
        return _cached_adapter(hint)
    except TypeError:  # metadata of an Annotated type may not hash
        return pydantic.TypeAdapter(_iterated(hint))


@lru_cache(maxsize=256, typed=True)
def _cached_adapter(hint: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(_iterated(hint))


def _iterated(hint: Any) -> Any:
    """Any iterable as a tuple: pydantic would hand it on unchecked."""
    if (get_origin(hint) or hint) not in (Iterable, Collection):
        return hint
    return types.GenericAlias(tuple, (*(get_args(hint) or (Any,)), ...))


def _type_of(value: Any) -> Any:
    """A type for a value whose parameter has no annotation; for one of its items of several types, any of them."""
    if isinstance(value, list | tuple | set | frozenset):
        items = [_type_of(item) for item in value]
        inner = reduce(or_, items) if items else Any
        return types.GenericAlias(type(value), (inner, ...) if isinstance(value, tuple) else (inner,))
    return Path if isinstance(value, PurePath) else type(value)


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) and get_origin(hint) is None else str(hint)


def _hints(function: Any) -> dict[str, Any]:
    """The annotations of a function; one that cannot be resolved remains a text."""
    try:
        return get_type_hints(function, include_extras=True)
    except Exception:  # an annotation is any expression, and one name that is not there spoils them all
        scope = _scope(function)
    found = {}
    for name, annotation in getattr(inspect.unwrap(function), "__annotations__", {}).items():
        holder: Any = SimpleNamespace(__annotations__={name: annotation})
        try:
            found.update(get_type_hints(holder, scope, include_extras=True))
        except Exception:  # the parameter's problem says so, unless its default has a type
            found[name] = str(annotation)
    return found


def _scope(function: Any) -> dict[str, Any]:
    """The names of a function's file, with those that it imports for type checkers alone."""
    scope = dict(getattr(inspect.unwrap(function), "__globals__", {}))
    file = Path(getattr(sys.modules.get(str(scope.get("__name__"))), "__file__", None) or os.devnull)
    wanted = " ".join(map(str, function.__annotations__.values()))
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            for statement in node.body:
                names = [one.asname or one.name.partition(".")[0] for one in getattr(statement, "names", ())]
                if any(re.search(rf"\b{name}\b", wanted) for name in names):
                    _import_into(scope, statement)
    return scope


def _import_into(scope: dict[str, Any], statement: ast.stmt) -> None:
    try:
        exec(compile(ast.Module([statement], []), "<annotations>", "exec"), scope)
    except ImportError:  # it is not needed to run the method, so it may be missing
        return
