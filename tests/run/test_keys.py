"""Keys cover the code that a measurement runs: every statement of it, and no comment."""

import re
import shutil
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import tokbench
from tokbench.comparison import carry_out, plan_comparison
from tokbench.config import load_config
from tokbench.kinds import KINDS
from tokbench.run.keys import NOT_MEASURING, code_digest, code_of, identity

ROOT = Path(tokbench.__file__).parent
MODULES = sorted({type(kind).__module__ for kind in KINDS.values()})


def file_of(module: str, root: Path) -> Path:
    path = root.joinpath(*module.split(".")[1:])
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the package's code, to be edited."""
    return Path(shutil.copytree(ROOT, tmp_path / "tokbench", ignore=shutil.ignore_patterns("__pycache__", "*.csv")))


def with_statement(text: str, module: str) -> str:
    """The file with one statement more; of a kind's file, in what it measures with."""
    members = re.compile(r"(def (?:depends_on|record_of)\(.*\n)")
    if module.startswith("tokbench.kinds.") and members.search(text):
        return members.sub(r"\1        added = 1\n", text)
    return text + "\n\nADDED = 1\n"


@pytest.mark.parametrize("module", MODULES)
def test_a_statement_in_any_file_changes_the_key_and_a_comment_in_none(module: str, copy: Path) -> None:
    before = code_digest.__wrapped__(module, copy)
    assert before == code_digest.__wrapped__(module, ROOT)
    for name in sorted(code_of(module, copy)):
        file = file_of(name, copy)
        text = file.read_text()
        file.write_text(with_statement(text, name))
        assert code_digest.__wrapped__(module, copy) != before, name
        commented = re.sub(r'^"""', '"""Said otherwise. ', text, count=1) + "\n# A comment.\n"
        file.write_text(commented)
        assert code_digest.__wrapped__(module, copy) == before, name
        file.write_text(text)


def test_a_docstring_of_a_function_is_no_code(copy: Path) -> None:
    file = copy / "run/build.py"
    text = file.read_text()
    before = code_digest.__wrapped__("tokbench.kinds.macs", copy)
    file.write_text(text.replace('"""A new instance of the method', '"""Another sentence about the method'))
    assert file.read_text() != text
    assert code_digest.__wrapped__("tokbench.kinds.macs", copy) == before


def test_what_a_reader_sees_of_a_kind_is_no_part_of_its_key(copy: Path) -> None:
    file = copy / "kinds/latency.py"
    text = file.read_text()
    before = code_digest.__wrapped__("tokbench.kinds.latency", copy)
    for old, new in (('heading="latency"', 'heading="time"'), ("1e3 * latency.lo", "1e3 * latency.hi")):
        assert text.count(old) == 1
        file.write_text(text.replace(old, new))
        assert code_digest.__wrapped__("tokbench.kinds.latency", copy) == before
    file.write_text(text.replace("uuid4().hex[:12]", "uuid4().hex[:13]"))
    assert code_digest.__wrapped__("tokbench.kinds.latency", copy) != before


def test_operators_that_methods_import_by_their_public_names_are_part_of_every_key() -> None:
    modules = {f"tokbench.{module}" for module in tokbench._PUBLIC if module.startswith("ops.")}
    assert modules
    for module in MODULES:
        assert modules <= code_of(module)


def test_what_builds_models_is_part_of_every_key() -> None:
    for module in MODULES:
        code = code_of(module)
        assert {"tokbench.run.build", "tokbench.run.inputs", "tokbench.vit.backbone", module} <= code


def test_a_change_of_one_kind_leaves_the_keys_of_another() -> None:
    assert "tokbench.kinds.latency" not in code_of("tokbench.kinds.macs")
    assert "tokbench.measure.macs" not in code_of("tokbench.kinds.latency")


def test_every_file_that_runs_while_something_is_measured_is_part_of_its_key(tmp_path: Path) -> None:
    """The import closure against what really runs, function by function."""
    config = load_config()
    changes = {
        "methods": ["ats", "random_selection", "tome", "token_pooling"],
        "keep": [0.5],
        "seeds": [0],
        "limit": 4,
        "analyse": True,
        "models": ["digits_deit"],
        "baselines": [20],
        "only": ["macs", "latency", "throughput", "memory", "training", "energy", "accuracy", "agreement"],
    }
    suite = config.suite("embedded", {**changes, "seconds": 0.001, "batch_size": [1]})
    comparison = plan_comparison(suite, config)
    ran: dict[str, set[str]] = {}
    measuring: list[str] = []

    def trace(frame: FrameType, event: str, arg: Any) -> None:
        if event == "call" and measuring and frame.f_code.co_filename.startswith(f"{ROOT}/"):
            file = Path(frame.f_code.co_filename).relative_to(ROOT).with_suffix("")
            ran.setdefault(measuring[-1], set()).add(".".join(["tokbench", *file.parts]).removesuffix(".__init__"))

    originals = {name: kind.measure for name, kind in KINDS.items()}
    for name, kind in KINDS.items():

        def measured(rows: Any, bench: Any, name: str = name) -> None:
            measuring.append(name)
            originals[name](rows, bench)
            measuring.pop()

        kind.measure = measured  # type: ignore[method-assign]
    sys.setprofile(trace)
    try:
        carry_out(comparison, tmp_path / "out")
    finally:
        sys.setprofile(None)
        for kind in KINDS.values():
            del kind.measure
    assert set(ran) == set(KINDS) - {"knn"}  # which needs photographs
    for name, files in ran.items():
        code = code_of(type(KINDS[name]).__module__)
        writes = {file for file in files if file.startswith("tokbench.results.")}
        writes |= {"tokbench.kinds.agreement"}  # from the pass of accuracy, under a key of its own
        assert files - code - writes - set(NOT_MEASURING) == set(), name


def test_identity_depends_on_every_part_and_on_nothing_else() -> None:
    parts = {"weights": "a", "keep": 0.5}
    assert identity(parts) == identity(dict(reversed(parts.items())))
    assert len({identity(parts), identity({**parts, "keep": 0.7}), identity({**parts, "seed": 0})}) == 3
