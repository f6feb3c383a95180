"""Texts that tell something about the contributor: paths, names of users and hosts, addresses."""

from __future__ import annotations

import contextlib
import getpass
import json
import re
import socket
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from tokbench.contribute.problem import Name, Problem
from tokbench.names import EMBEDDED, RANDOM
from tokbench.results import Results
from tokbench.results.directory import ENVIRONMENT
from tokbench.results.plan import PLAN
from tokbench.results.store import RECORDS, UNREADABLE_IMAGE, Place
from tokbench.suite import PATHS
from tokbench.weights_setting import SPLIT, with_paths

PATTERNS = {
    "a path": re.compile(
        r"(?<![\w.:/<-])(?:~[\w.-]*/|/(?:home|Users|root)\b|/[\w.+@-]+(?:/[\w.+@-]+)+)|\b[A-Za-z]:\\|\\\\[\w.-]+\\"
    ),
    "an e-mail address": re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+"),
    "an IP address": re.compile(
        r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])"
    ),
}

NOT_PRIVATE = {"root", "user", "admin", "ubuntu", "runner", "localhost", "localdomain"}
"""Names of users and hosts that say nothing about a person or a place."""

SHORTEST = 3  # characters; shorter names occur in ordinary words

Json = dict[str, Any]


def names_of_this_machine() -> frozenset[str]:
    """The names of the user and the host, those that say something."""
    names = {socket.gethostname(), socket.gethostname().partition(".")[0], Path.home().name}
    with contextlib.suppress(KeyError, OSError):  # a user may have no name, as in some containers
        names.add(getpass.getuser())
    return frozenset(name for name in names if len(name) >= SHORTEST and name.lower() not in NOT_PRIVATE)


def without_folders(plan: Json) -> Json:
    """A plan's JSON with the last part of each path in its settings; no measurement depends on the rest."""
    suite = plan["suite"]
    shortened = {
        name: with_paths(suite[name], SPLIT[name], _last_part) if name in SPLIT else _last_part(suite[name])
        for name in PATHS
        if suite.get(name) is not None
    }
    return {**plan, "suite": {**suite, **shortened}}


def _last_part(path: str) -> str:
    if path in (EMBEDDED, RANDOM) or path.startswith("hfds/"):
        return path
    return re.split(r"[\\/]", path.rstrip("\\/"))[-1] or "data"


def check_privacy(results: Results, records: Mapping[Place, Json], own_names: Collection[str]) -> Iterator[Problem]:
    """Look for private texts in everything that is text.

    Args:
        results: The contributed results.
        records: All of their records.
        own_names: Names of the user and the host, where they are known.
    """
    patterns = dict(PATTERNS)
    if own_names:
        listed = "|".join(re.escape(name) for name in sorted(own_names))
        patterns["the name of the user or the host"] = re.compile(rf"(?<![^\W_])(?:{listed})(?![^\W_])", re.IGNORECASE)
    for file, place, text in _texts(results, records):
        for what, pattern in patterns.items():
            if found := pattern.search(text):
                yield Problem(Name.PRIVATE_TEXT, f"{file}, {place}: {what}, '{found[0]}'")
                break


def _texts(results: Results, records: Mapping[Place, Json]) -> Iterator[tuple[str, str, str]]:
    """File, place and text of every text in the results; the tables hold no others."""
    for name in (PLAN, ENVIRONMENT):
        content = json.loads((results.directory / name).read_text(encoding="utf-8"))
        yield from ((name, place, text) for place, text in _strings(content))
    for number, image in enumerate(results.images or {}):
        yield "images.parquet", f"image {number}", image
    for (kind, key), value in records.items():
        yield from ((RECORDS, f"{kind} {key} {place}".strip(), text) for place, text in _strings(value))
        if kind == UNREADABLE_IMAGE:
            yield RECORDS, kind, key


def _strings(value: Any, place: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield place, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _strings(inner, f"{place}.{name}".lstrip("."))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _strings(inner, f"{place}[{number}]")
