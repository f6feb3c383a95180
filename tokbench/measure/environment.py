"""The hardware, software and settings that the measurements were made with."""

from __future__ import annotations

import importlib.util
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tokbench.errors import UserError
from tokbench.measure.cpu import usable_cpus

PACKAGES = ("tokbench", "torch", "torchvision", "timm", "fvcore", "numpy", "pandas", "pillow")


def resolve_device(name: str) -> torch.device:
    """The device that a setting stands for.

    Args:
        name: `auto` (CUDA if available, else the CPU), `cpu`, `cuda` or `cuda:N`.

    Raises:
        UserError: This machine has no such device.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if available else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"unknown device '{name}': expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= available:
        found = f"{available} CUDA device(s)" if available else "no CUDA device"
        raise UserError(f"device '{name}' is not available (this machine has {found}): use --device cpu")
    return device


def device_name(device: torch.device) -> str:
    """The model name of the CPU or GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return _cpu_info("model name") or platform.processor() or platform.machine()


def clock_mhz(device: torch.device) -> float | None:
    """The current clock in MHz; None where it cannot be read (a CPU outside Linux, a GPU without pynvml)."""
    if device.type == "cuda":
        return float(torch.cuda.clock_rate(device)) if importlib.util.find_spec("pynvml") else None
    mhz = _cpu_info("cpu MHz")
    return float(mhz) if mhz else None


def describe(device: torch.device) -> dict[str, Any]:
    """Versions, device and settings, as written to `environment.json`."""
    return {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "platform": platform.platform(),
        "device": device.type,
        "device_name": device_name(device),
        "clock_mhz": clock_mhz(device),
        "cpus": os.cpu_count(),
        "cpus_usable": usable_cpus(),
        "threads": torch.get_num_threads(),
        "openmp": {name: value for name, value in os.environ.items() if name.startswith(("OMP_", "GOMP_", "KMP_"))},
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "tf32": {"matmul": torch.get_float32_matmul_precision(), "cudnn": bool(torch.backends.cudnn.allow_tf32)},
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn_benchmark": bool(torch.backends.cudnn.benchmark),
    }


def _cpu_info(field: str) -> str:
    """A field of the first processor in /proc/cpuinfo; empty if there is none."""
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")
