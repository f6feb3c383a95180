"""The files that contributors start from say what is true."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import yaml

import tokbench

ROOT = Path(__file__).parents[2]
MAKEFILE = (ROOT / "Makefile").read_text()


def test_make_help_lists_every_target() -> None:
    printed = subprocess.run(["make", "--silent", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = dict(line.split(maxsplit=1) for line in printed.splitlines())
    phony = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert phony is not None
    assert set(listed) == set(phony[1].split())
    assert all(listed.values())


def test_make_help_installs_nothing() -> None:
    commands = subprocess.run(
        ["make", "--dry-run", "--always-make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "pip" not in commands
    assert "venv" not in commands


def test_make_without_a_target_compares() -> None:
    assert ".DEFAULT_GOAL := compare" in MAKEFILE


def test_pre_commit_runs_what_make_check_runs() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook["entry"] for repository in config["repos"] for hook in repository["hooks"]]
    recipe = re.search(r"^check:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
    assert recipe is not None
    commands = [line.strip().removeprefix("@").replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]
    assert hooks == commands


def test_the_citation_has_the_current_version() -> None:
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == tokbench.__version__


def test_the_changelog_has_a_section_for_the_current_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert "## [Unreleased]" in changelog
    assert f"## [{tokbench.__version__}]" in changelog


def test_issue_forms_can_be_read() -> None:
    forms = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    assert {form.stem for form in forms} == {"wrong-number", "method-request", "bug", "results", "config"}
    for form in forms:
        content = yaml.safe_load(form.read_text())
        if form.stem != "config":
            assert {"name", "description", "body"} <= set(content)


def test_every_package_is_in_the_table_of_contributing() -> None:
    text = _contributing()
    for folder in (ROOT / "tokbench").iterdir():
        if (folder / "__init__.py").is_file():
            assert f"`tokbench/{folder.name}/`" in text or f"`{folder.name}/`" in text, folder.name


def test_the_bench_extra_has_every_library_of_the_clustering_benchmark() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    packages = re.search(r"^PACKAGES = \((.*)\)$", (ROOT / "benchmarks/clustering.py").read_text(), re.MULTILINE)
    assert packages is not None
    wanted = set(re.findall(r'"([^"]+)"', packages[1]))
    assert wanted
    assert wanted <= {requirement.partition(">=")[0] for requirement in extras["bench"]}


def test_the_kind_of_measurement_in_contributing_runs(tmp_path: Path) -> None:
    """The steps of CONTRIBUTING.md, in a copy of tokbench."""
    shutil.copytree(ROOT / "tokbench", tmp_path / "tokbench")
    shutil.copytree(ROOT / "methods", tmp_path / "tokbench/methods")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for file in ("tokbench/measure/entropy.py", "tokbench/kinds/entropy.py"):
        code = re.search(rf"`{file}`.*?```python\n(.*?)\n +```", _contributing(), re.DOTALL)
        assert code is not None
        (tmp_path / file).write_text(textwrap.dedent(code[1]) + "\n")
    kinds = tmp_path / "tokbench/kinds/__init__.py"
    registered = 'from tokbench.kinds.entropy import Entropy\n\nKINDS["entropy"] = Entropy()\n'
    kinds.write_text(kinds.read_text() + registered)

    def ran(*command: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    ran(str(Path(sys.executable).with_name("lint-imports")), "--no-logo", "--no-cache")
    options = ["--only", "entropy", "--methods", "grid_pooling", "--keep", "0.5", "--batch-size", "8", "--json"]
    options += ["--models", "digits_deit", "--baselines", "none"]
    plain, pooled = json.loads(ran(sys.executable, "-m", "tokbench", "compare", *options))
    assert 0 < plain["entropy_nats"] < math.log(10)
    assert 0 < pooled["entropy_nats"] < math.log(10)
    assert plain["entropy_nats"] != pooled["entropy_nats"]


def _contributing() -> str:
    return (ROOT / "CONTRIBUTING.md").read_text()
