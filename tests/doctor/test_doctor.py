"""`tokbench doctor`: each check with and without what it looks for."""

import inspect
import io
import json
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path

import pytest
import timm.layers
import torch
from made_images import TABBY, TENCH, write_folder
from rich.console import Console

from tokbench.cli.doctor import _show
from tokbench.doctor import examine as doctor
from tokbench.doctor import machine
from tokbench.doctor.machine import Finding
from tokbench.measure.cpu import usable_cpus

Run = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")
SUBJECTS = [
    *("system", "processor", "memory", "gpu", "other gpus", "versions", "device", "threads", "attention"),
    *("precision", "clocks", "compiler", "datasets", "energy", "plugins", "results", "data", "timing", "other load"),
]


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "images", [f"{TENCH}/a.png", f"{TENCH}/b.png", f"{TABBY}/a.png"])


def test_all_checks_are_run(run: Run, image_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "BLOCK_SECONDS", 0.05)
    monkeypatch.setattr(doctor, "BATCH", 1)
    code, out, _ = run("doctor", "--data", str(image_folder), "--json")
    found = {one["name"]: one for one in json.loads(out)}
    assert [name for name in found if name != "pynvml"] == SUBJECTS
    assert {one["status"] for one in found.values()} <= {"ok", "note", "problem"}
    assert code == (1 if any(one["status"] == "problem" for one in found.values()) else 0)
    assert found["data"]["text"] == "synsets: 3 images of 2 classes; the first image can be decoded (4x4)"
    percent = float(re.match(r"timing resolution ([\d.]+) %: ", found["timing"]["text"])[1])  # type: ignore[index]
    assert percent >= 0.5
    assert (found["timing"]["status"] == "ok") == (percent <= 3)
    parts = re.search(r"noise floor ([\d.]+) % \+ precision reached ([\d.]+) %", found["timing"]["text"])
    assert sum(map(float, parts.groups())) == pytest.approx(percent, abs=0.11)  # type: ignore[union-attr]


def test_problem_is_one_line_and_sets_the_exit_code(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "BLOCK_SECONDS", 0.01)
    monkeypatch.setattr(doctor, "BATCH", 1)
    code, out, err = run("doctor", "--data", "nowhere")
    assert (code, err) == (1, "")
    assert [line for line in out.splitlines() if line.startswith("✗")] == [
        "✗ data        nowhere does not exist: expected a folder of images, a .tar, a .parquet or hfds/NAME"
    ]
    assert "→ pip install 'tokbench[hf]'" in out or "datasets    installed" in out


def test_output_fits_into_80_columns() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    _show(Finding("other load", "note", "word " * 40, "advice " * 40), console)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert all(len(line) <= 80 for line in lines)
    assert lines[0].startswith("! other load  word")
    assert all(line.startswith(" " * 14) for line in lines[1:])
    assert sum(line.count("word") for line in lines) == sum(line.count("advice") for line in lines) == 40


def test_image_that_cannot_be_decoded_is_named(image_folder: Path) -> None:
    file = image_folder / TENCH / "a.png"
    file.write_bytes(file.read_bytes()[:40])
    found = doctor.images(str(image_folder))
    assert found.status == "problem"
    assert f"{TENCH}/a.png cannot be read" in found.text


def test_broken_plugins_are_problems(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import there_is_no_such_module\n")
    config = tmp_path / "own.toml"
    config.write_text('[plugins]\npaths = ["broken.py"]\n')
    found = doctor.plugins(config)
    assert found.status == "problem"
    assert "broken.py cannot be imported: ModuleNotFoundError" in found.text
    config.write_text("[plugins\n")
    assert "not valid TOML" in doctor.plugins(config).text
    config.write_text("")
    assert doctor.plugins(config).status == "ok"


def test_unwritable_results_folder_is_a_problem(tmp_path: Path) -> None:
    assert doctor.results_folder(tmp_path / "a" / "b").status == "ok"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    found = doctor.results_folder(tmp_path / "file" / "results")
    assert found.status == "problem"
    assert "cannot be written" in found.text


def test_installed_versions_are_checked_against_the_requirements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = machine.versions()
    assert found.status == "ok"
    for name in ("tokbench", "torch", "timm", "fvcore"):
        assert f"{name} {version(name)}" in found.text
    assert "datasets" not in found.text  # belongs to an extra
    for name, old in (("torch", "1.0"), ("timm", "0.9")):
        (tmp_path / f"{name}-{old}.dist-info").mkdir()
        (tmp_path / f"{name}-{old}.dist-info" / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {old}\n"
        )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = machine.versions()
    assert found.status == "problem"
    assert found.fix == "pip install 'torch>=2.6' 'timm>=1.0.15'"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has sched_setaffinity")
def test_only_usable_cores_are_counted() -> None:
    allowed = os.sched_getaffinity(0)
    assert usable_cpus() == len(allowed)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert f" 1 of {os.cpu_count()} cores usable" in machine.processor().text
        torch.set_num_threads(2)
        found = machine.threads()
    finally:
        os.sched_setaffinity(0, allowed)
    assert (found.status, found.fix) == ("note", "use at most one thread per core: set OMP_NUM_THREADS=1")


@pytest.fixture
def settings() -> Iterator[None]:
    """Restores the settings of torch and timm."""
    product, fused = torch.get_float32_matmul_precision(), bool(timm.layers.use_fused_attn())
    yield
    torch.set_float32_matmul_precision(product)
    timm.layers.set_fused_attn(fused)


@pytest.mark.usefixtures("settings")
def test_settings_that_affect_measurements_are_noted() -> None:
    timm.layers.set_fused_attn(True)
    assert machine.attention(CPU).status == "ok"
    timm.layers.set_fused_attn(False)
    assert machine.attention(CPU).status == "note"
    torch.set_float32_matmul_precision("highest")
    assert machine.precision(CPU).status == "ok"
    torch.set_float32_matmul_precision("medium")
    assert machine.precision(CPU).status == "note"


def test_missing_software_comes_with_a_fix(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.package("torch", "tensors", "pip install torch").status == "ok"
    found = machine.package("there_is_no_such_module", "nothing", "pip install it")
    assert (found.status, found.fix) == ("note", "pip install it")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(re.findall(r"tokbench\[(\w+)\]", inspect.getsource(doctor))) <= set(extras)
    monkeypatch.setenv("CXX", sys.executable)
    text = machine.compiler(CPU).text
    assert f"torch.compile uses {sys.executable}" in text or "Python.h" in text
    monkeypatch.setenv("CXX", "there-is-no-such-compiler")
    assert "missing a C++ compiler" in machine.compiler(CPU).text
