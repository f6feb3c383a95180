"""Reading results imports neither torch nor timm, which take seconds to import."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[1] / "stored/digits"
COMMANDS = {
    "import": [],
    "report": ["report", "one", "--versus", "token_pooling"],
    "versus": ["versus", "one", "token_pooling"],
    "plot": ["plot", "one"],
    "plot --latex": ["plot", "one", "--latex", "--out", "table.tex"],
    "plot --markdown": ["plot", "one", "--markdown", "--out", "table.md"],
    "export": ["export", "one", "--out", "times.json"],
    "merge": ["merge", "one", "other", "--out", "both"],
    "check": ["check", "one", "--baseline", "other"],
}

# Runs all commands in one process, and prints their exit codes and the heavy modules that are imported after each.
PROGRAM = """
import contextlib, io, json, sys
import tokbench.results

results = {}
for name, arguments in json.loads(sys.argv[1]).items():
    code = 0
    if arguments:
        from tokbench.cli import main

        sys.argv = ["tokbench", *arguments]
        with contextlib.redirect_stdout(io.StringIO()):
            try:
                main()
            except SystemExit as exit_:
                code = exit_.code or 0
    heavy = [module for module in ("torch", "torchvision", "timm") if module in sys.modules]
    results[name] = {"code": code, "heavy": heavy}
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    folder = tmp_path_factory.mktemp("light")
    for name in ("one", "other"):
        shutil.copytree(REFERENCE, folder / name)
        plan = json.loads((folder / name / "plan.json").read_text())
        (folder / name / "plan.json").write_text(json.dumps({**plan, "rows": plan["rows"][:4]}))  # few rows are quick
    command = [sys.executable, "-c", PROGRAM, json.dumps(COMMANDS)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    results: dict[str, dict[str, object]] = json.loads(done.stdout)
    return results


@pytest.mark.parametrize("command", COMMANDS)
def test_reading_results_imports_neither_torch_nor_timm(imported: dict[str, dict[str, object]], command: str) -> None:
    assert imported[command] == {"code": 0, "heavy": []}
