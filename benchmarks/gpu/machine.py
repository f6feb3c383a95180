"""Describe the device that everything is measured on, as JSON.

    python benchmarks/gpu/machine.py DEVICE

A process of its own, so that the one that runs the parts holds no memory of the GPU. Without such a device: one line
that says so, and exit code 2.
"""

from __future__ import annotations

import json
import sys

from tokbench.errors import UserError
from tokbench.measure.devices import device_count, resolve_device
from tokbench.measure.environment import describe


def main(name: str) -> int:
    """Print the description, with the number of CUDA devices; the exit code."""
    try:
        device = resolve_device(name)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    gpus = device_count("cuda") if device.type == "cuda" else 0
    print(json.dumps({**describe(device), "cuda_devices": gpus}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
