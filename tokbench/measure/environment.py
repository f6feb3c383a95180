"""The hardware, software and settings that the measurements were made with."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from tokbench.measure.cpu import usable_cpus
from tokbench.measure.devices import cpu_info, device_index, device_name
from tokbench.measure.gpu import condition, limits
from tokbench.measure.nvml import driver_version

PACKAGES = ("tokbench", "torch", "torchvision", "timm", "fvcore", "numpy", "pandas", "pillow")


def clock_mhz(device: torch.device) -> float | None:
    """The current clock in MHz; None where it cannot be read (a CPU outside Linux, a GPU without NVML)."""
    if device.type == "cpu":
        mhz = cpu_info("cpu MHz")
        return float(mhz) if mhz else None
    now = condition(device)
    return None if now is None or now.sm_mhz is None else float(now.sm_mhz)


def describe(device: torch.device) -> dict[str, Any]:
    """Versions, device and settings, as written to `environment.json`."""
    on_cpu = device.type == "cpu"
    return {
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "torch_build": torch.__version__,  # names what it was built for, as in 2.15.0+cu132
        "platform": platform.platform(),
        "device": device.type,
        "device_index": device_index(device),
        "device_name": device_name(device),
        "clock_mhz": clock_mhz(device),
        "cpus": os.cpu_count(),
        "cpus_usable": usable_cpus(),
        "threads": torch.get_num_threads(),
        "openmp": {name: value for name, value in os.environ.items() if name.startswith(("OMP_", "GOMP_", "KMP_"))},
        "cuda": torch.version.cuda if device.type == "cuda" else None,
        "gpu": None if on_cpu else _gpu(device),
        "tf32": {"matmul": matmul_precision(), "cudnn": convolutions_in_tf32()},
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn_benchmark": bool(torch.backends.cudnn.benchmark),
    }


def device_facts(device: torch.device) -> dict[str, str]:
    """What times on a device depend on and what stays the same from call to call, for keys; unknown facts are left out.

    Args:
        device: Any device of torch.

    Returns:
        By name: the device, torch with what it was built for, the driver, CUDA or HIP, cuDNN, the number of
        multiprocessors and the power limit in watts.
    """
    facts: dict[str, Any] = {"name": device_name(device), "torch": torch.__version__}
    if device.type != "cpu":
        setting = _gpu(device)
        known = ("driver", "cuda", "hip", "cudnn", "multiprocessors", "power_limit_w")
        facts |= {name: setting[name] for name in known}
    return {name: str(value) for name, value in facts.items() if value is not None}


def matmul_precision() -> str:
    """The precision of float32 matrix products: `highest`, `high`, `medium`, or `tf32` and so on of the newer setting.

    torch has two ways to set it, and refuses to tell of the one after the other was used.
    """
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return str(torch.backends.cuda.matmul.fp32_precision)


def convolutions_in_tf32() -> bool:
    """Whether cuDNN may compute float32 convolutions in TF32; see `matmul_precision`."""
    try:
        return bool(torch.backends.cudnn.allow_tf32)
    except RuntimeError:
        return str(torch.backends.cudnn.conv.fp32_precision) == "tf32"  # type: ignore[attr-defined]


def _gpu(device: torch.device) -> dict[str, Any]:
    """Versions and settings of an accelerator; None for what is not known of it."""
    on_cuda = device.type == "cuda"
    rocm = torch.version.hip is not None
    settings = limits(device)
    return {
        "driver": driver_version() if on_cuda and not rocm else None,
        "cuda": torch.version.cuda if on_cuda else None,
        "hip": torch.version.hip if on_cuda else None,
        "cudnn": torch.backends.cudnn.version() if on_cuda else None,  # type: ignore[no-untyped-call]
        "multiprocessors": torch.cuda.get_device_properties(device).multi_processor_count if on_cuda else None,
        **({"power_limit_w": None, "persistence": None, "mig": None} if settings is None else asdict(settings)),
    }
