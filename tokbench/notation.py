"""The text notation of methods and schedules with parameters: `token_pooling(algorithm=kmeans,weighted=false)`."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pydantic

from tokbench.errors import UserError
from tokbench.parameters import parameters_of, read, validated
from tokbench.values import BRACKETS, STRING, TOKEN, Written, split_outside, value_text

QUOTED_WIDTH = 80  # characters of the user's text in a message

_STRINGS = re.compile(rf"({STRING})", re.DOTALL)
_CALL = re.compile(r"(\w+)\s*(?:\((.*)\))?", re.DOTALL)
_NAMED = re.compile(r"([^\W\d]\w*)\s*=\s*(.*)", re.DOTALL)


@dataclass(frozen=True)
class Call:
    """A name with arguments; the values are still text.

    Texts in quotes are without them. Values in brackets, `(3,9)` or `['a','b,c']`, are as written, without spaces. A
    list without brackets, as in `at=3,6,9`, is one value: `3,6,9`.
    """

    name: str
    positional: tuple[str, ...]
    named: dict[str, str]

    def __str__(self) -> str:
        """The call as `parse_call` reads it."""
        arguments = [_written(value) for value in self.positional]
        arguments += [f"{name}={_written(value)}" for name, value in self.named.items()]
        return f"{self.name}({','.join(arguments)})" if arguments else self.name


def split_list(text: str, separators: str = ",") -> list[str]:
    """Split at commas outside brackets and quotes; empty items are dropped.

    Args:
        text: The list.
        separators: The characters that separate items.
    """
    return [item.strip() for item in split_outside(text, separators) if item.strip()]


def parse_call(text: str) -> Call:
    """Read `name` or `name(value, parameter=value)`.

    A value is a word, such as `0.5` or `/tmp/a-b.pt`, a text in quotes, or a list, with brackets or without.

    Raises:
        UserError: The text has a different form.
    """
    call = _CALL.fullmatch(text.strip())
    try:
        if not call or not call[1].isidentifier():
            raise ValueError(text)
        return Call(call[1], *_arguments(call[2] or ""))
    except ValueError:
        raise UserError(f"invalid {shortened(text)!r}: expected name or name(parameter=value,...)") from None


def shortened(text: str) -> str:
    """The user's text as messages repeat it: a long one without its middle."""
    return text if len(text) <= QUOTED_WIDTH else f"{text[: QUOTED_WIDTH - 20]}...{text[-17:]}"


def _arguments(text: str) -> tuple[tuple[str, ...], dict[str, str]]:
    """The values without and with a name.

    Raises:
        ValueError: The text is no list of arguments.
    """
    if not _is_balanced(text):
        raise ValueError(text)
    positional: list[str] = []
    named: dict[str, list[str]] = {}
    for item in split_list(text):
        argument = _NAMED.fullmatch(item)
        if argument and argument[1] in named:
            raise ValueError(text)
        if argument:
            named[argument[1]] = [argument[2]]
        elif named:  # one more item of a list without brackets
            list(named.values())[-1].append(item)
        else:
            positional.append(item)
    return tuple(map(_value, positional)), {name: _joined(items) for name, items in named.items()}


def _is_balanced(text: str) -> bool:
    """Whether every bracket outside quotes is closed by one of its kind."""
    expected: list[str] = []
    for token in TOKEN.finditer(text):
        if token[0] in BRACKETS:
            expected.append(BRACKETS[token[0]])
        elif token[0] in BRACKETS.values() and (not expected or expected.pop() != token[0]):
            return False
    return not expected


def _joined(items: list[str]) -> str:
    if len(items) > 1 and any(re.search(r"[\'\"()\[\]{}]", item) for item in items):
        raise ValueError(items)
    return ",".join(map(_value, items))


def _value(written: str) -> str:
    """A value without its quotation marks, or without the spaces of a list.

    Raises:
        ValueError: It is empty, or several words, or has another form.
    """
    if re.fullmatch(STRING, written, re.DOTALL):
        return _unquoted(written)
    words = [
        part if quoted else re.sub(r"\s*([,:()\[\]{}]|(?<=\d)\s*-\s*(?=\d))\s*", lambda match: match[1].strip(), part)
        for quoted, part in _parts(written)
    ]
    value = "".join(words)
    if value[:1] in ("", "*", "'", '"') or not all(quoted or _is_word(part) for quoted, part in _parts(value)):
        raise ValueError(written)
    return value


def _parts(text: str) -> list[tuple[bool, str]]:
    """The text in parts, each with whether it is a text in quotes."""
    return [(index % 2 == 1, part) for index, part in enumerate(_STRINGS.split(text))]


def _is_word(text: str) -> bool:
    return text.isprintable() and not re.search(r"\s", text)


def _unquoted(written: str) -> str:
    """What a text in quotes stands for, with Python's escapes.

    Raises:
        ValueError: It has an invalid escape, or a line break.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an unknown escape, which stands for itself
            return str(ast.literal_eval(written))
    except SyntaxError:
        raise ValueError(written) from None


def _written(value: str) -> str:
    """A value as `_value` reads it: in quotes where it has to be."""
    try:
        plain = _value(value) == value and split_list(value) == [value] and _is_balanced(value)
    except ValueError:
        plain = False
    return value if plain and not _NAMED.fullmatch(value) else repr(value)


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
    given = "" if problem["type"] in ("missing", "extra_forbidden") else f", got {shortened(repr(problem['input']))}"
    return f"{where}: {message}{given}"
