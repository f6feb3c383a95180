"""Values of parameters: as text and back, in a form that hashes, and in JSON."""

from __future__ import annotations

import ast
import keyword
import math
import re
from enum import Enum
from itertools import pairwise
from pathlib import PurePath
from typing import Any

# A text in quotes; a quotation mark within a word, as in o'brien.py, is a character like any other.
STRING = r"""(?<![^\s,=:(\[{])(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
TOKEN = re.compile(rf"{STRING}|.", re.DOTALL)

BRACKETS = {"(": ")", "[": "]", "{": "}"}
WORD = r"[A-Za-z_][A-Za-z_0-9]*"
NUMBER = "(?:0|[1-9][0-9]*)"
PART = rf"(?:{WORD}(?:\.{WORD})*|{NUMBER})"
BARE = re.compile(rf"(?!{NUMBER}$){PART}(?:[/+-]{PART})*")  # texts that need no quotes: a/b.pt, k-means, 3-6-9
AMBIGUOUS = {"none", "true", "false", "inf", "nan", "infinity"}


class Pairs(tuple[Any, ...]):
    """A dict that hashes: its pairs."""


class Members(tuple[Any, ...]):
    """A set that hashes: its members, sorted by their texts."""


class Written(str):
    """A value in the notation of the table already, quotes included."""


def unquoted(text: str) -> str:
    """What a text in quotes says; any other text unchanged."""
    if len(text) > 1 and text[0] in ("'", '"') and text[-1] == text[0]:
        try:
            return str(ast.literal_eval(text))
        except (SyntaxError, ValueError):
            return text
    return text


def split_outside(text: str, separators: str) -> list[str]:
    """Split at characters outside quotes and brackets. A quote opens only where a value begins."""
    cuts, depth = [-1], 0
    for token in TOKEN.finditer(text):
        if token[0] in BRACKETS:
            depth += 1
        elif token[0] in BRACKETS.values():
            depth = max(0, depth - 1)
        elif token[0] in separators and depth == 0:
            cuts.append(token.start())
    return [text[before + 1 : cut] for before, cut in pairwise([*cuts, len(text)])]


def value_text(value: Any) -> str:
    """A value as the table shows it: `true`, `0.5`, `kmeans`, `'two words'`, `[3,6]`, `{a:1}`."""
    if isinstance(value, Written):
        return str(value)
    if isinstance(value, Enum):
        return _string(str(value.name))
    if isinstance(value, str | PurePath):
        return _string(str(value))
    if isinstance(value, Pairs | dict):
        pairs = value.items() if isinstance(value, dict) else value
        return f"{{{','.join(f'{_inner(key)}:{_inner(content)}' for key, content in pairs)}}}"
    if isinstance(value, Members | set | frozenset):
        return f"{{{','.join(sorted(map(_inner, value)))}}}"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_inner, value))}]"
    return plain_text(value)


def freeze(value: Any) -> Any:
    """A value in a form that hashes; `thaw` is the opposite."""
    if isinstance(value, dict):
        return Pairs((freeze(key), freeze(content)) for key, content in value.items())
    if isinstance(value, set | frozenset):
        return Members(sorted(map(freeze, value), key=_inner))
    return tuple(map(freeze, value)) if isinstance(value, list | tuple) else value


def json_value(value: Any) -> Any:
    """A value as strict JSON has it: what JSON lacks is text, such as `inf`."""
    if isinstance(value, Pairs | dict):
        pairs = value.items() if isinstance(value, dict) else value
        return {plain_text(key): json_value(content) for key, content in pairs}
    if isinstance(value, set | frozenset):
        return json_value(freeze(value))
    if isinstance(value, list | tuple):
        return [json_value(one) for one in value]
    exact = value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value))
    return value if exact else plain_text(value)


def plain_text(value: Any) -> str:
    """A single value without quotes; what cannot be written is named by its type, never by its address."""
    if isinstance(value, Enum):
        return str(value.name)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value)
    return str(value) if value is None or isinstance(value, str | PurePath) else f"<{type(value).__name__}>"


def _string(text: str) -> str:
    """A text, in quotes unless it can be written without them."""
    bare = BARE.fullmatch(text) and not any(map(keyword.iskeyword, re.findall(WORD, text)))
    return text if bare else repr(text)


def _inner(value: Any) -> str:
    """A value inside brackets, where a text that could be anything else is in quotes."""
    if isinstance(value, str | PurePath) and not isinstance(value, Enum):
        text = str(value)
        return _string(text) if text.isidentifier() and text.lower() not in AMBIGUOUS else repr(text)
    return value_text(value)


def thaw(value: Any) -> Any:
    """The opposite of `freeze`, but lists are tuples."""
    if isinstance(value, Pairs):
        return {thaw(key): thaw(content) for key, content in value}
    if isinstance(value, Members):
        return {thaw(one) for one in value}
    return tuple(map(thaw, value)) if type(value) is tuple else value
