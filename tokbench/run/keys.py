"""The key of a measurement: a hash of everything that it depends on, so that what changed is measured again.

The code is part of it. Which files those are is read from their imports, and what is hashed is the parsed code without
docstrings: a comment or a sentence changes no key, a statement does. Of a kind's own file only the measuring half
counts, so another heading or another interval in the table changes no key either.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache, lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokbench.deploy.runtimes import runtime_versions
from tokbench.kinds import KINDS
from tokbench.kinds.base import Conditions
from tokbench.measure.devices import device_name
from tokbench.names import PLAIN, RUNTIMES
from tokbench.registry import method_class, source_digest
from tokbench.run.machine import PACKAGES, Machine, this_machine
from tokbench.vit.adapters import has_rotary

if TYPE_CHECKING:
    from tokbench.run.calibration import Calibration
    from tokbench.run.cells import Cell
    from tokbench.run.inputs import Inputs
    from tokbench.run.prepare import Row
    from tokbench.schedule import Searched
    from tokbench.suite import Suite

ROOT = Path(__file__).parents[1]

# Every kind depends on these: they open what is measured, build models, and hand both to the kind. Methods import the
# operators under tokbench's public names, which the imports of their files do not show.
COMMON = (
    "tokbench.run.inputs",
    "tokbench.run.build",
    "tokbench.run.bench",
    "tokbench.ops.clustering",
    "tokbench.ops.keep_predictor",
    "tokbench.ops.matching",
    "tokbench.ops.relaxed_matching",
    "tokbench.ops.swaps",
)

# What a kind measures with. The rest of its class turns records into numbers for a reader.
MEASURING_MEMBERS = (
    *("name", "record", "exclusive", "sharded"),
    *("wanted", "depends_on", "measure", "measure_row", "record_of"),
)

# What these do is in the keys as values, or happens before or after a measurement: settings, plans and results.
NOT_MEASURING = (
    "tokbench.run.cells",
    "tokbench.run.variant",
    "tokbench.run.fine_tuned",
    "tokbench.run.keys",
    "tokbench.run.prepare",
    "tokbench.config",
    "tokbench.suite",
    "tokbench.kinds",
    "tokbench.results",
)


def keys_of(row: Row, suite: Suite, inputs: Inputs, machine: Machine | None = None) -> dict[str, str]:
    """The key of each measurement that a suite wants of a row, by kind, on a machine; by default on this one."""
    conditions = conditions_of(row, suite, inputs, machine or this_machine(inputs.device))
    return {
        name: identity({"kind": name, "code": code_digest(type(kind).__module__), **kind.depends_on(conditions)})
        for name, kind in KINDS.items()
        if kind.wanted(row, suite, inputs.device)
    }


def conditions_of(row: Row, suite: Suite, inputs: Inputs, machine: Machine) -> Conditions:
    """What the measurements of a row depend on."""
    variant = row.cell.variant
    device = {"device": inputs.device.type, "name": machine.name, "dtype": suite.dtype}
    mode = row.cell.mode
    runtime = {"runtime": runtime_versions(mode)} if mode in RUNTIMES else {}
    return Conditions(
        method={
            "versions": [machine.versions[name] for name in PACKAGES],
            "model": row.cell.model,
            "weights": inputs.models[row.cell.model].identity,
            "variant": {
                **asdict(variant),
                "remarks": (),  # for readers
                "fine_tuned": None if variant.fine_tuned is None else variant.fine_tuned.sha256,
                "constants": hashlib.sha256(variant.constants).hexdigest(),
                "position": variant.position if has_rotary(inputs.models[row.cell.model].vit) else None,
            },
            "source": None if variant.method == PLAIN else source_digest(method_class(variant.method)),
        },
        device=device,
        machine={**device, "facts": machine.facts, **runtime},
        data=inputs.images.identity if inputs.images else None,
        train=inputs.train.identity if inputs.train else None,
        adaptive=variant.adaptive,
        batch_size=row.cell.batch_size,
        mode=mode,
        threads=machine.threads,
        seed=row.cell.seed,
        suite=suite,
    )


def calibration_key(cell: Cell, inputs: Inputs, calibration: Calibration) -> str:
    """A hash of everything that a calibrated method's constants depend on, and a budget's keep with them."""
    variant = cell.variant
    budget = {
        "data": inputs.images.identity if inputs.images else None,
        "batch_size": cell.batch_size,
        "solver": code_digest("tokbench.measure.budget"),
    }
    return identity(
        {
            "versions": [version(name) for name in PACKAGES],
            "weights": inputs.models[cell.model].identity,
            "variant": [variant.method, variant.params_text, variant.schedule, variant.keep, variant.site],
            "position": variant.position if has_rotary(inputs.models[cell.model].vit) else None,
            "found": variant.found,
            "source": source_digest(method_class(variant.method)),
            "code": code_digest("tokbench.run.calibration"),
            "images": calibration.images.identity,
            "device": device_name(inputs.device),
            **(budget if variant.keep is None else {}),
        }
    )


def search_key(cell: Cell, wanted: Searched, inputs: Inputs, calibration: Calibration, suite: Suite) -> str:
    """A hash of everything that a trial of a search depends on: not the number of trials, since more of them go on."""
    variant = cell.variant
    counted_on = {"data": inputs.images.identity if inputs.images else None, "batch_size": cell.batch_size}
    return identity(
        {
            "versions": [version(name) for name in ("torch", "timm", "fvcore", "numpy", "optuna")],
            "weights": inputs.models[cell.model].identity,
            "variant": [variant.method, variant.params_text, variant.site, variant.position],
            "source": source_digest(method_class(variant.method)),
            "code": code_digest("tokbench.run.search"),
            "fraction": wanted.fraction,
            "seeds": [wanted.seed, cell.seed],
            "images": calibration.images.identity,
            "device": device_name(inputs.device),
            "dtype": suite.dtype,
            **(counted_on if variant.adaptive else {}),
        }
    )


def identity(parts: Mapping[str, Any]) -> str:
    """A hash of everything that a measurement depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:24]


@cache
def code_digest(module: str, root: Path = ROOT) -> str:
    """A hash of the code that a kind of measurement runs.

    Args:
        module: The kind's module.
        root: The folder of the package `tokbench`.
    """
    digest = hashlib.sha256()
    for name in sorted(code_of(module, root)):
        digest.update(f"{name}\n{_read(name, root).text}\n".encode())
    return digest.hexdigest()


def code_of(module: str, root: Path = ROOT) -> set[str]:
    """The modules of tokbench that a kind of measurement runs: its own, the common ones, and all that they import.

    Imports within functions count; those for type checking alone do not.
    """
    found: set[str] = set()
    waiting = [module, *COMMON]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            imported = _read(name, root).imports
            waiting += [one for one in imported if not _takes_no_part(one) and _file(one, root).is_file()]
    return found


def _takes_no_part(module: str) -> bool:
    """Whether a module takes no part in measuring."""
    return module in NOT_MEASURING or module.startswith("tokbench.results.")


@dataclass(frozen=True)
class _Code:
    """What a file imports when it runs, and its code without comments and docstrings."""

    imports: tuple[str, ...]
    text: str


def _read(module: str, root: Path) -> _Code:
    source = _file(module, root).read_text(encoding="utf-8")
    return _parse(source, module.startswith("tokbench.kinds."))


@lru_cache(maxsize=1024)
def _parse(source: str, of_a_kind: bool) -> _Code:
    tree = ast.parse(source)
    if of_a_kind:
        tree = _measuring_half(tree)
    imports = tuple(name for node in _running(tree) for name in _imported(node) if name.startswith("tokbench."))
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                node.body = node.body[1:] or [ast.Pass()]
    return _Code(imports, ast.unparse(tree))


def _measuring_half(tree: ast.Module) -> ast.Module:
    """Of a kind's file: the measuring members of its classes, and everything that they use; of others everything."""
    used: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and "Kind" in node.name + "".join(map(ast.unparse, node.bases)):
            node.body = _measuring_members(node)
            used.add(node.name)
    if not used:
        return tree
    while True:
        kept = [node for node in tree.body if used & set(_names_bound(node))]
        more = {name for node in kept for name in _names_used(node)} - used
        if not more:
            return ast.Module(kept, [])
        used |= more


def _measuring_members(kind: ast.ClassDef) -> list[ast.stmt]:
    """The members that a kind measures with, and those that they use."""
    used = set(MEASURING_MEMBERS)
    while True:
        kept = [member for member in kind.body if used & set(_names_bound(member))]
        more = {node.attr for member in kept for node in ast.walk(member) if isinstance(node, ast.Attribute)} - used
        if not more & {name for member in kind.body for name in _names_bound(member)}:
            return kept
        used |= more


def _names_bound(node: ast.stmt) -> list[str]:
    """The names that a statement defines."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def _names_used(node: ast.stmt) -> set[str]:
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}


def _imported(node: ast.AST) -> list[str]:
    """What an import may load; a name that is imported from a package may be a module of it."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return []


def _running(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those below `if TYPE_CHECKING:`."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _running(child)


def _file(module: str, root: Path) -> Path:
    """Where a module of tokbench is; a package is its `__init__.py`."""
    path = root.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
