"""The files that contributors start from say what is true."""

import re
import subprocess
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
    assert {form.stem for form in forms} == {"wrong-number", "method-request", "bug", "config"}
    for form in forms:
        content = yaml.safe_load(form.read_text())
        if form.stem != "config":
            assert {"name", "description", "body"} <= set(content)


def test_every_package_is_in_the_table_of_contributing() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    for folder in (ROOT / "tokbench").iterdir():
        if (folder / "__init__.py").is_file():
            assert f"`tokbench/{folder.name}/`" in text or f"`{folder.name}/`" in text, folder.name
