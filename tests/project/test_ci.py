"""The workflows and the action: what they call is there, and what they are handed stays data."""

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from tokbench.cli import app

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTION = ROOT / "action.yml"
PAGE = ROOT / "docs" / "ci.md"


def read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    return content


def steps(content: dict[str, Any]) -> list[dict[str, Any]]:
    parts = list(content["jobs"].values()) if "jobs" in content else [content["runs"]]
    return [step for part in parts for step in part["steps"]]


SCRIPTS = {
    f"{file.name}:{number}": step["run"]
    for file in (*WORKFLOWS, ACTION)
    for number, step in enumerate(steps(read(file)))
    if "run" in step
}


def calls(script: str) -> list[list[str]]:
    """The arguments of each call of tokbench in a script."""
    script = re.sub(r"\$\{(\w+):\+([^}]*)\}", r"\2", script.replace("\\\n", " "))  # as if the variable were set
    found = []
    for line in script.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;<>(){}")
        lexer.whitespace_split = True
        words = list(lexer)
        while (at := next((n for n, word in enumerate(words) if Path(word).name == "tokbench"), None)) is not None:
            rest = words[at + 1 :]
            end = next((n for n, word in enumerate(rest) if set(word) <= set("|&;<>(){}")), len(rest))
            found.append(rest[:end])
            words = rest[end:]
    return found


def parse(arguments: list[str]) -> None:
    """Hold a call against the real command line, without running it."""
    name, *rest = arguments
    command: Any = get_command(app)
    command.commands[name].make_context(name, rest)


def code_blocks(page: Path, language: str) -> list[str]:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [block for named, block in blocks if named == language]


def test_the_calls_are_found() -> None:
    script = (
        'find . | xargs -0 tokbench verify\n.venv/bin/tokbench check x \\\n  ${A:+--methods "$A"} --github || exit 1\n'
    )
    assert calls(script) == [["verify"], ["check", "x", "--methods", "$A", "--github"]]
    assert sum(len(calls(script)) for script in SCRIPTS.values()) >= 6


@pytest.mark.parametrize("place", SCRIPTS)
def test_what_the_scripts_call_is_there(place: str) -> None:
    for call in calls(SCRIPTS[place]):
        parse(call)


def test_what_the_page_calls_is_there() -> None:
    written = [call for block in code_blocks(PAGE, "") for call in calls(block)]
    assert len(written) >= 4
    for call in written:
        parse(call)


def test_a_call_that_is_not_there_is_noticed() -> None:
    with pytest.raises(Exception, match="--no-such-option"):
        parse(["list", "methods", "--no-such-option"])
    with pytest.raises(KeyError):
        parse(["no-such-command"])


@pytest.mark.parametrize("place", SCRIPTS)
def test_scripts_are_sound_bash_and_nothing_is_pasted_into_them(place: str) -> None:
    script = SCRIPTS[place]
    assert "${{" not in script, "hand it over by env: what is pasted into a script can be code"
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_workflows_may_read_only_and_never_run_strangers_code_with_secrets(file: Path) -> None:
    content = read(file)
    assert content["permissions"] == {"contents": "read"}
    assert "pull_request_target" not in content[True]  # YAML takes the key `on` for a truth value


def test_the_variables_of_the_scripts_are_handed_over() -> None:
    for file in (*WORKFLOWS, ACTION):
        for step in steps(read(file)):
            used = set(re.findall(r"\$\{?([A-Z]+)", step.get("run", "")))
            assert used == set(step.get("env", {})), step


def test_every_input_of_the_action_is_used_and_told_of() -> None:
    content = read(ACTION)
    used = set(re.findall(r"inputs\.([\w-]+)", yaml.safe_dump(content["runs"])))
    assert used == set(content["inputs"])
    told = re.findall(r"^\| `([\w-]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(told) == used
    (workflow,) = (yaml.safe_load(block) for block in code_blocks(PAGE, "yaml"))
    assert set(steps(workflow)[-1]["with"]) <= used


@pytest.mark.parametrize("fails", [False, True])
def test_the_actions_own_script_verifies_the_methods_of_a_folder(tmp_path: Path, fails: bool) -> None:
    """With a stand-in for tokbench, which prints its arguments."""
    (tmp_path / "my methods" / "deeper").mkdir(parents=True)
    for name in ("first_ones.py", "second ones.py", "test_first_ones.py", "_shared.py", "notes.txt", "deeper/third.py"):
        (tmp_path / "my methods" / name).touch()
    program = tmp_path / "bin" / "tokbench"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@"\nexit {int(fails)}\n')
    program.chmod(0o755)
    (script,) = (script for script in SCRIPTS.values() if calls(script) == [["verify"]])
    environment = {**os.environ, "PLUGINS": "my methods", "PATH": f"{program.parent}:{os.environ['PATH']}"}
    ran = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", script],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (ran.returncode != 0) == fails, ran.stderr
    command, *files = ran.stdout.splitlines()
    assert command == "verify"
    assert sorted(files) == ["my methods/first_ones.py", "my methods/second ones.py"]
