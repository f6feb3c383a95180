"""What is built is what runs: the wheel brings methods, suites and the embedded models along."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tokbench.names import EMBEDDED_MODELS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of what git tracks and unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(["git", "checkout-index", "--all", "--prefix", f"{folder}/source/"], cwd=ROOT, check=True)
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(folder / "source"),
    ]
    built = subprocess.run(build, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_everything_travels_in_the_wheel(unpacked: Path) -> None:
    inside = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
    wanted = {"tokbench/py.typed", "tokbench/tokbench.toml", "tokbench/embedded/digits.npz"}
    wanted |= {f"tokbench/embedded/{model}.safetensors" for model in EMBEDDED_MODELS}
    wanted |= {f"tokbench/{name}" for name in _tracked("methods")}
    wanted |= {f"tokbench/report/html/page.{ending}" for ending in ("html.jinja", "css", "js")}
    vendored = ("datatables.js", "datatables.css", "LICENSE.txt", "README.md")
    wanted |= {f"tokbench/report/html/vendor/{name}" for name in vendored}
    wanted |= {f"tokbench/published/{name}.csv" for name in ("published", "timm_accuracy")}
    wanted |= set(_tracked("tokbench/finetune/recipes"))
    assert wanted <= inside
    assert (unpacked / "tokbench/tokbench.toml").read_text() == (ROOT / "tokbench.toml").read_text()


def test_it_runs_from_an_empty_folder(unpacked: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}

    def ran(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    options = ["--methods", "token_pooling,grid_pooling", "--limit", "20", "--keep", "0.5", "--only", "macs,accuracy"]
    options += ["--models", "digits_deit", "--baselines", "none"]
    rows = json.loads(ran("-m", "tokbench", "compare", *options, "--json"))
    assert [row["method"] for row in rows] == ["none", "token_pooling", "grid_pooling"]
    found = ran("-c", "from importlib.util import find_spec; print(find_spec('tokbench.methods.token_pooling').origin)")
    assert Path(found.strip()).is_relative_to(unpacked)


def _tracked(folder: str) -> list[str]:
    listed = subprocess.run(["git", "ls-files", folder], cwd=ROOT, capture_output=True, text=True, check=True)
    return listed.stdout.split()
