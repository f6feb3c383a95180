"""Everything that only a GPU can show, for the owner of one.

    python benchmarks/on_gpu.py [--minutes 9] [--device cuda] [--out results/<gpu>]

Runs the tests that need a GPU, checks and times the Triton kernel, compares the answers in all dtypes, times methods in
DeiT-Ti, S and B eager, compiled and as CUDA graphs, and measures throughput, energy and memory: the most valuable
first, each in a process of its own with a time limit. What is finished is kept: the same command goes on where an
earlier one, or Ctrl-C, has stopped. REPORT.md says what became of each part.

It needs no network and no data, and these wheels besides tokbench's own: torch (2.6 or newer), torchvision, timm,
fvcore, pandas, pyarrow, scipy, pillow, rich, typer, pydantic and psutil, with what they depend on. It also uses pytest,
nvidia-ml-py and flash-kmeans where they are installed; Triton comes with torch. docs/gpu.md has the steps.

The exit code is 1 if a part has failed, 2 if there is no such device, and 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gpu.part import Part
from gpu.plan import parts_of

WHEELS = {
    "torch": "torch",
    "torchvision": "torchvision",
    "timm": "timm",
    "fvcore": "fvcore",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
    "scipy": "scipy",
    "PIL": "pillow",
    "rich": "rich",
    "typer": "typer",
    "pydantic": "pydantic",
    "psutil": "psutil",
    "tokbench": "tokbench",
}
ENVIRONMENT = "environment.json"


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """What the user asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=_minutes, default=9.0, help="how long it may take in all [9]")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N, or cpu to try it on a small scale [cuda]")
    parser.add_argument("--out", type=Path, help="where to write [results/<name of the GPU>]")
    parser.add_argument("--list", action="store_true", help="show the parts and stop")
    return parser.parse_args(arguments)


def _minutes(text: str) -> float:
    minutes = float(text)
    if not 0 < minutes < float("inf"):
        raise ValueError(text)
    return minutes


def missing_wheels() -> list[str]:
    """The wheels that every part needs and that are not installed."""
    return [wheel for module, wheel in WHEELS.items() if find_spec(module) is None]


def kebab_case(name: str) -> str:
    """The name of a folder for a device: `NVIDIA H200` -> `nvidia-h200`."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def in_words(machine: Mapping[str, Any]) -> str:
    """What a result depends on: the device, and the versions of torch and tokbench."""
    return f"{machine['device_name']}, torch {machine['torch_build']}, tokbench {machine['versions']['tokbench']}"


def describe(device: str, out: Path | None) -> tuple[Path, dict[str, Any]]:
    """The folder of the results, and the content of the `environment.json` that is written there.

    Raises:
        SystemExit: There is no such device.
    """
    program = Path(__file__).with_name("gpu") / "machine.py"
    described = subprocess.run([sys.executable, "-P", program, device], stdout=subprocess.PIPE, check=False, text=True)
    if described.returncode:
        raise SystemExit(described.returncode)
    machine: dict[str, Any] = json.loads(described.stdout)
    folder = out or Path(__file__).parents[1] / "results" / kebab_case(machine["device_name"])
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ENVIRONMENT).write_text(json.dumps(machine, indent=2) + "\n", encoding="utf-8")
    return folder.resolve(), machine


def main(arguments: Sequence[str]) -> int:
    """Run the parts; the exit code."""
    begin = time.monotonic()
    asked = options(arguments)
    parts = parts_of(asked.device)
    if asked.list:
        print(*_listed(parts), sep="\n")
        return 0
    missing = missing_wheels()
    if missing:
        print(f"not installed: {', '.join(missing)}; docs/gpu.md says how, also without a network", file=sys.stderr)
        return 2
    from gpu.report import REPORT, write_report
    from gpu.run import run_parts, stop_on_signals

    out, machine = describe(asked.device, asked.out)
    command = shlex.join(["python", "benchmarks/on_gpu.py", *arguments])
    results = []
    with stop_on_signals() as stop:
        end = begin + 60 * asked.minutes
        for result in run_parts(parts, out, end, machine["cuda_devices"], in_words(machine), stop, _tell):
            results.append(result)
            write_report(out, command, machine, parts, results)
            _tell(f"{result.name}: {result.state}" + (f" ({result.reason})" if result.reason else ""))
    _tell(f"{out / REPORT}: {sum(one.state == 'done' for one in results)} of {len(parts)} parts are done")
    return 130 if stop.is_set() else int(any(one.state == "failed" for one in results))


def _listed(parts: Iterable[Part]) -> Iterable[str]:
    yield f"{'part':24} {'seconds':>7}  {'needs':20} about"
    for part in parts:
        needs = [*part.modules, *[f"{part.gpus} GPU"] * bool(part.gpus)]
        yield f"{part.name:24} {part.seconds:7.0f}  {', '.join(needs):20} {part.about}"


def _tell(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
