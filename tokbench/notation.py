"""The text notation of methods and schedules with parameters: `token_pooling(algorithm=kmeans,weighted=false)`."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args, get_type_hints

import pydantic

from tokbench.errors import UserError


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

    def text(value: Any) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    return ",".join(f"{name}={text(params[name])}" for name in sorted(params))


def split_parameters(text: str) -> dict[str, str]:
    """The parameters in what `parameters_text` writes, by name; a value may hold commas."""
    parts = [part.partition("=") for part in re.split(r",(?=\w+=)", text) if part]
    return {name: value for name, _, value in parts}


def bind(function: Callable[..., Any], given: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Check arguments against a function's annotated signature, convert them from text, and fill in the defaults.

    Args:
        function: A class or function whose parameters are all annotated.
        given: Values by name, as text or as Python values.
        what: What is being called, for the error message: `method 'tome'`.

    Returns:
        All parameters by name, in the order of the signature.

    Raises:
        UserError: A parameter is unknown, missing, or has the wrong type.
    """
    parameters = inspect.signature(function).parameters
    target = function.__init__ if inspect.isclass(function) else function
    hints = get_type_hints(target, include_extras=True)
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if parameter.default is parameter.empty else parameter.default)
        for name, parameter in parameters.items()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    unknown = sorted(set(given) - set(fields))
    if unknown:
        known = f"its parameters are {', '.join(fields)}" if fields else "it has no parameters"
        raise UserError(f"{what} has no parameter '{unknown[0]}'; {known}")
    given = {name: _none(value) if type(None) in get_args(fields[name][0]) else value for name, value in given.items()}
    model = pydantic.create_model("Arguments", __config__={"arbitrary_types_allowed": True}, **fields)
    try:
        bound = model(**given)
    except pydantic.ValidationError as error:
        raise UserError(f"{what}: {first_problem(error)}") from None
    return {name: getattr(bound, name) for name in fields}


def _none(value: Any) -> Any:
    """None for the text `none`, in any case; any other value unchanged."""
    return None if isinstance(value, str) and value.lower() == "none" else value


def first_problem(error: pydantic.ValidationError) -> str:
    """The first validation error in one line: the parameter, what is wrong, and the given value."""
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "value_error":  # raised by our own validators, which say everything
        return f"{where}: {problem['ctx']['error']}"
    message = problem["msg"][0].lower() + problem["msg"][1:]
    given = "" if problem["type"] in ("missing", "extra_forbidden") else f", got {problem['input']!r}"
    return f"{where}: {message}{given}"


def printable(text: str) -> str:
    """The text on one line, without control characters: error messages may hold line breaks and terminal codes."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())
