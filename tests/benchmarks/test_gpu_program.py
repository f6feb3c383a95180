"""The program for a GPU's owner: its plan, its report, and its command line on a machine without a GPU."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from gpu.part import FOLDER
from gpu.plan import parts_of
from gpu.precision import compared, line
from gpu.report import comparison_table, write_report
from small_parts import WRITES, part, ran

import tokbench
from tokbench.measure.sample_images import sample_images
from tokbench.vit.attention import received
from tokbench.vit.models import load_model

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "benchmarks/on_gpu.py"


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "cpu"])
def test_the_plan(device: str) -> None:
    parts = parts_of(device)
    names = [one.name for one in parts]
    assert len(set(names)) == len(names)
    order = [name for name in names if name in {"tests", "kernel", "precision", "throughput", "energy", "sweep"}]
    assert order == ["tests", "kernel", "precision", "throughput", "energy", "sweep"]
    assert all(one.seconds > 0 and one.about for one in parts)
    comparisons = [one for one in parts if "compare" in one.command]
    assert all(one.command[-1] == FOLDER for one in comparisons)
    if device != "cpu":
        assert all(one.command[one.command.index("--device") + 1] == device for one in comparisons)
        modes = {one.command[one.command.index("--mode") + 1] for one in comparisons}
        assert modes == {"eager", "compile", "cudagraph", "compile+cudagraph", "eager,compile,cudagraph"}


def test_the_tests_of_the_plan_are_those_that_are_marked() -> None:
    (tests,) = (one for one in parts_of("cuda") if one.name == "tests")
    files = [word for word in tests.command if word.endswith(".py")]
    assert "tests/ops/test_clustering.py" in files
    for file in (ROOT / "tests").rglob("test_*.py"):
        marked = re.search(r"mark\.cuda\b", file.read_text(encoding="utf-8")) is not None
        assert marked == (str(file.relative_to(ROOT)) in files), file


def measured(tmp_path: Path) -> Iterator[str]:
    """The report's table of a comparison of two methods, one of which needs training."""
    out = tmp_path / "comparison"
    tokbench.compare(
        methods=["random_selection", "sit"],
        models=["digits_deit"],
        keep=[0.5],
        only=["macs", "latency"],
        batch_size=[1, 2],
        seeds=[0],
        seconds=0.01,
        baselines=["none"],
        out=out,
        progress=False,
    )
    return comparison_table(out)


def test_the_table_of_a_comparison_shows_what_was_measured_and_says_what_was_not(tmp_path: Path) -> None:
    lines = list(measured(tmp_path))
    table = tokbench.load(tmp_path / "comparison").table
    rows = [line for line in lines if line.startswith("| ")]
    assert len(rows) == 2 + (table.status == "ok").sum()  # a heading and a rule above them
    speedup = table[(table.method == "random_selection") & (table.batch_size == 2)].speedup.item()
    assert f" {speedup:.4g} " in next(row for row in rows if row.startswith("| random\\_selection | 2 "))
    assert lines[-1].startswith("- 2 of 6 rows, skipped: needs fine-tuned weights")
    assert lines[-1].endswith(" (sit)")
    records = tmp_path / "comparison/records.jsonl"
    kept = [line for line in records.read_text().splitlines() if json.loads(line)["kind"] == "macs"][:1]
    records.write_text("\n".join(kept) + "\n")  # as if it had been stopped early
    early = list(comparison_table(tmp_path / "comparison"))
    assert "- 4 of 6 rows, not measured yet (none, random\\_selection)" in early


def test_the_report_names_every_part_with_its_command_and_output(tmp_path: Path) -> None:
    parts = [
        part("good", WRITES),
        part("bad", "print('half a table'); sys.exit('what was wrong')"),
        part("no", "", gpus=1),
    ]
    machine = {
        "device_name": "a_machine",
        "versions": {"torch": "2.6"},
        "gpu": {"driver": "580.1", "hip": None},
        "cpus": 2,
        "platform": "Linux",
    }
    write_report(tmp_path, "python on_gpu.py", machine, parts, ran(parts, tmp_path))
    text = (tmp_path / "REPORT.md").read_text()
    assert text.startswith("# a\\_machine\n")
    assert "\ndriver 580.1, 2 CPUs, Linux; torch 2.6.\n" in text
    assert "| [good](#good) | done | " in text
    assert " | what was wrong |" in text
    assert "| no | skipped | 0 | needs a CUDA device |" in text
    assert "## good\n\nabout good: done, " in text
    assert "python -c " in text
    assert "\nthe table\n" in text
    assert "\nhalf a table\nwhat was wrong\n" in text


def test_with_no_time_at_all_there_is_still_a_report(tmp_path: Path) -> None:
    out = tmp_path / "new/folder"
    command = [sys.executable, PROGRAM, "--device", "cpu", "--minutes", "0.01", "--out", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    environment = json.loads((out / "environment.json").read_text())
    assert environment["device"] == "cpu"
    report = (out / "REPORT.md").read_text()
    assert "| tests | skipped | 0 | needs a CUDA device |" in report
    assert "| precision | not started | 0 | no time is left: run again to go on |" in report


def test_the_list_of_parts_has_each_with_what_it_needs() -> None:
    listed = subprocess.run([sys.executable, PROGRAM, "--list"], capture_output=True, text=True, check=True).stdout
    _, *lines = listed.splitlines()
    parts = parts_of("cuda")
    assert [line.split()[0] for line in lines] == [one.name for one in parts]
    assert [float(line.split()[1]) for line in lines] == [one.seconds for one in parts]
    assert "pytest, 1 GPU" in lines[0]


def test_without_such_a_device_it_says_so() -> None:
    done = subprocess.run([sys.executable, PROGRAM, "--device", "cuda:99"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("device 'cuda:99' is not available")
    assert len(done.stderr.splitlines()) == 1


def test_answers_that_are_the_same_differ_by_nothing() -> None:
    vit = load_model("digits_deit").vit
    images = sample_images(vit, None, 2)
    rows = list(compared(vit, "grid_pooling", images, torch.device("cpu")))
    assert [row["dtype"] for row in rows] == ["fp32", "bf16", "fp16", "amp-bf16"]
    assert (rows[0]["same_top1_percent"], rows[0]["largest_difference"]) == (100, 0)
    assert all(0 < row["largest_difference"] < 1 for row in rows[1:])
    assert line("grid_pooling", rows).split()[:4] == ["grid_pooling", "100", "%", "0"]


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton comes with torch's CUDA builds only")
def test_the_exact_attention_received_is_the_operators_in_float64() -> None:
    from gpu.kernel import Shape, exact, inputs, plain

    for shape in (
        Shape("a", 2, 20, 8),
        Shape("b", 2, 20, 8, prefix=0, biased=True),
        Shape("c", 3, 17, 8, 5, True, True),
    ):
        x = inputs(shape, torch.float32, torch.device("cpu")).first(2)
        bias = None if x.bias is None else x.bias.double()
        expected = received(x.q.double(), x.k.double(), bias, x.valid, x.scale, x.prefix)
        assert torch.allclose(exact(x), expected)
        assert torch.allclose(plain(x).double(), expected, rtol=1e-5)


def test_it_needs_none_of_the_wheels_that_only_some_parts_use() -> None:
    """What it imports itself, with the others out of reach."""
    others = "pytest triton pynvml flash_kmeans sklearn plotly matplotlib jinja2 ray optuna".split()
    script = f"""
import sys
sys.modules.update(dict.fromkeys({others!r}))  # importing any of them fails
sys.path.append({str(PROGRAM.parent)!r})
import on_gpu
import gpu.machine, gpu.plan, gpu.precision, gpu.report, gpu.two_gpus
print(on_gpu.kebab_case("NVIDIA GeForce RTX 4090"), len(gpu.precision.methods()) > 10)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "nvidia-geforce-rtx-4090 True\n"
