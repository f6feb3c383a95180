"""The text notation of methods and schedules with parameters: `token_pooling(algorithm=kmeans,weighted=false)`."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pydantic

from tokbench.errors import UserError
from tokbench.parameters import parameters_of, read, validated
from tokbench.values import Written, split_outside, value_text


@dataclass(frozen=True)
class Call:
    """A name with arguments; the values are still text."""

    name: str
    positional: tuple[str, ...]
    named: dict[str, str]


def split_list(text: str) -> list[str]:
    """Split at commas outside parentheses; empty items are dropped."""
    items, depth = [""], 0
    for character in text:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and depth <= 0:
            items.append("")
        else:
            items[-1] += character
    return [item.strip() for item in items if item.strip()]


def parse_call(text: str) -> Call:
    """Read `name` or `name(value, parameter=value)`.

    Raises:
        UserError: The text has a different form.
    """
    wrong = UserError(f"invalid {text!r}: expected name or name(parameter=value,...)")
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise wrong from None
    if isinstance(node, ast.Name):
        return Call(node.id, (), {})
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise wrong

    def written(value: ast.expr) -> str:
        return str(value.value) if isinstance(value, ast.Constant) else ast.unparse(value).replace(" ", "")

    named = {keyword.arg: written(keyword.value) for keyword in node.keywords if keyword.arg}
    if len(named) < len(node.keywords):
        raise wrong
    return Call(node.func.id, tuple(written(value) for value in node.args), named)


def parameters_text(params: Mapping[str, Any]) -> str:
    """A method's parameters as shown in the table, sorted by name: `algorithm=kmeans,weighted=true`."""
    return ",".join(f"{name}={value_text(params[name])}" for name in sorted(params))


def split_parameters(text: str) -> dict[str, str]:
    """The parameters in what `parameters_text` writes, by name, each in that notation; a value may hold commas."""
    parts: list[str] = []
    for part in split_outside(text, ","):
        if not parts or re.match(r"\w+=", part):
            parts.append(part)
        else:  # a comma without quotes, as older versions wrote it
            parts[-1] += f",{part}"
    split = [part.partition("=") for part in parts if part]
    return {name: Written(value) for name, _, value in split}


def bind(function: Callable[..., Any], given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Check arguments against a function's annotated signature, convert them from text, and fill in the defaults.

    Args:
        function: A class or function whose parameters are all annotated.
        given: Values by name, as text or as Python values.
        what: What is being called, for the error message: `method 'tome'`.

    Returns:
        All parameters by name, in the order of the signature.

    Raises:
        UserError: A parameter is unknown, missing or has the wrong type, or is declared as one that none can be.
    """
    declared = parameters_of(function)
    unknown = sorted(set(given) - set(declared))
    if unknown:
        known = f"its parameters are {', '.join(declared)}" if declared else "it has no parameters"
        raise UserError(f"{what} has no parameter '{unknown[0]}'; {known}")
    bound = {}
    for name, parameter in declared.items():
        if parameter.problem:
            raise UserError(f"{what}: {name} cannot be a parameter: {parameter.problem}")
        if name not in given and parameter.required:
            raise UserError(f"{what}: {name}: a value is required, as in {name}=...")
        value = given.get(name, parameter.default)
        try:
            bound[name] = validated(parameter.hint, read(parameter.hint, value) if name in given else value)
        except pydantic.ValidationError as error:
            raise UserError(f"{what}: {first_problem(error, name)}") from None
    return bound


def first_problem(error: pydantic.ValidationError, *place: str) -> str:
    """The first validation error in one line: the parameter, below `place`, what is wrong, and the given value."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in (*place, *problem["loc"]))
    if problem["type"] == "value_error":  # raised by our own validators, which say everything
        return f"{where}: {problem['ctx']['error']}"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    given = "" if problem["type"] in ("missing", "extra_forbidden") else f", got {problem['input']!r}"
    return f"{where}: {message}{given}"


def printable(text: str) -> str:
    """The text on one line, without control characters: error messages may hold line breaks and terminal codes."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
