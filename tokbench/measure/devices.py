"""The devices that models can run on, and what a setting such as `cuda:1` stands for."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from tokbench.errors import UserError

ACCELERATORS = {"cuda": "CUDA", "xpu": "XPU", "mps": "MPS"}
"""Types of devices besides the CPU, and what messages call them. AMD's GPUs (ROCm) are `cuda` to torch."""

NUMBERED = ("cuda", "xpu")


def resolve_device(name: str) -> torch.device:
    """The device that a setting stands for.

    A device with a number becomes torch's current one of its type, on which streams, events and graphs are made.

    Args:
        name: `auto` (CUDA if available, else the CPU: MPS and XPU only by name), `cpu`, `cuda`, `cuda:N`, `mps`, `xpu`
            or `xpu:N`.

    Raises:
        UserError: This machine has no such device.
    """
    if name == "auto":
        return torch.device("cuda" if device_count("cuda") else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", *ACCELERATORS) or (device.index is not None and device.type not in NUMBERED):
        raise UserError(f"unknown device '{name}': expected auto, cpu, cuda, cuda:N, mps, xpu or xpu:N")
    if device.type == "cpu":
        return device
    count = device_count(device.type)
    if (device.index or 0) >= count:
        raise UserError(f"device '{name}' is not available ({_what_there_is(device.type, count)}")
    if device.index is not None:
        torch.get_device_module(device.type).set_device(device)
    return device


def device_count(kind: str) -> int:
    """How many devices of a type torch can use here; 0 also where torch is built without them.

    Args:
        kind: `cuda`, `xpu` or `mps`.
    """
    if kind == "cuda" and not torch.cuda.is_available():  # a GPU whose driver does not fit is counted but of no use
        return 0
    return int(torch.get_device_module(kind).device_count())


def device_index(device: torch.device) -> int | None:
    """The number of a device among those that torch sees; None where there is only one, as on a CPU."""
    index: int | None = device.index
    if device.type not in NUMBERED or index is not None:
        return index
    return int(torch.get_device_module(device.type).current_device())


def device_name(device: torch.device) -> str:
    """The model name of the CPU or accelerator."""
    match device.type:
        case "cuda" | "xpu":
            return str(torch.get_device_module(device.type).get_device_name(device))
        case "mps":
            return f"{processor_name()} (GPU)"
    return processor_name()


def processor_name() -> str:
    """The model name of the CPU."""
    return cpu_info("model name") or platform.processor() or platform.machine()


def cpu_info(field: str) -> str:
    """A field of the first processor in /proc/cpuinfo; empty if there is none."""
    table = Path("/proc/cpuinfo")
    lines = table.read_text().splitlines() if table.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def _what_there_is(kind: str, count: int) -> str:
    """The end of a message: the devices of a type, and which option names one that is there."""
    if not count:
        return f"this machine has no {ACCELERATORS[kind]} device): use --device cpu"
    names = ", ".join(f"{kind}:{number}" for number in range(count)) if kind in NUMBERED else kind
    return f"this machine has {names}): use --device {names.partition(',')[0]}"
