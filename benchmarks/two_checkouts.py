"""How the whole-model times of all methods differ between two checkouts of tokbench, on this CPU.

    python benchmarks/two_checkouts.py OLD [NEW] [--batch 1 8] [--rounds 12] [METHOD ...]

OLD and NEW are folders with a checkout; NEW is this one by default. One process runs each, and they take turns, so that
drift and load affect both. A ratio above 1 means that NEW is faster. DeiT-Ti with random weights, keep 0.7, one thread.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from tokbench.registry import discover
from tokbench.stats.times import median_interval

HERE = Path(__file__).resolve().parents[1]
CALLS = 3  # of a turn; the fastest counts
WORKER = """
import importlib.util, json, sys, time
import torch
folder = sys.argv[1]
spec = importlib.util.spec_from_file_location("tokbench.methods", f"{folder}/methods/__init__.py",
                                              submodule_search_locations=[f"{folder}/methods"])
import tokbench
sys.modules["tokbench.methods"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
import timm
from tokbench import DownsampledViT, Schedule, create
assert tokbench.__file__.startswith(folder), tokbench.__file__
torch.set_num_threads(1)
torch.manual_seed(0)
vit = timm.create_model("deit_tiny_patch16_224").eval()
model = images = None
for line in sys.stdin:
    name, batch, calls = json.loads(line)
    if calls == 0:
        torch.manual_seed(0)
        method = None if name == "none" else create(name)
        model = DownsampledViT(vit, method, None if method is None else Schedule.stages(0.7)).eval()
        model.needs_calibration = False
        images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    seconds = []
    with torch.inference_mode():
        for _ in range(calls or 1):
            start = time.perf_counter()
            model(images)
            seconds.append(time.perf_counter() - start)
    print(json.dumps(min(seconds)), flush=True)
"""


class Checkout:
    """A process that runs the models of a checkout."""

    def __init__(self, folder: Path) -> None:
        """Start it."""
        environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-W", "ignore", "-c", WORKER, str(folder)]
        self._process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder
        )

    def seconds(self, method: str, batch: int, calls: int) -> float:
        """The time of a call; with 0 calls the model is built and run once."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([method, batch, calls]) + "\n")
        self._process.stdin.flush()
        return float(json.loads(self._process.stdout.readline()))

    def end(self) -> None:
        """End the process."""
        self._process.kill()


def main() -> None:
    """Compare all methods, or those named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("--new", type=Path, default=HERE)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("methods", nargs="*", default=[])
    given = parser.parse_args()
    names = given.methods or ["none", *discover()[0]]
    old, new = Checkout(given.old.resolve()), Checkout(given.new.resolve())
    try:
        print(f"{'method':24}" + "".join(f"batch {batch:<22}" for batch in given.batch))
        for name in names:
            shown = []
            for batch in given.batch:
                for checkout in (old, new):
                    checkout.seconds(name, batch, 0)
                ratios = []
                for turn in range(given.rounds):
                    first, second = (old, new) if turn % 2 == 0 else (new, old)
                    times = {which: which.seconds(name, batch, CALLS) for which in (first, second)}
                    ratios.append(np.log(times[old] / times[new]))
                ratio = median_interval(ratios)
                shown.append(f"{np.exp(ratio.estimate):.3f} [{np.exp(ratio.lo):.3f}, {np.exp(ratio.hi):.3f}]")
            print(f"{name:24}" + "".join(f"{text:28}" for text in shown), flush=True)
    finally:
        old.end()
        new.end()


if __name__ == "__main__":
    main()
