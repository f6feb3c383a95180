"""NVIDIA's management library (NVML) for one GPU, of which any part may be missing.

The package nvidia-ml-py is optional, a container may lack the library, an old driver some of its functions, and a
virtual GPU or a Jetson supports few of them. None of that may cost a measurement: what NVML does not tell is None.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

INSTALL = "pip install 'tokbench[nvidia]'"


class NvmlError(Exception):
    """NVML cannot be asked about a device; the message says why."""


@dataclass(frozen=True)
class Nvml:
    """NVML and what it calls a device of torch.

    Attributes:
        library: The module `pynvml`, initialised.
        own: The handle of what torch computes on: a GPU, or a part of one (MIG).
        whole: The handle of the whole GPU, which clocks, temperature and power are known of.
    """

    library: Any
    own: Any
    whole: Any

    @property
    def is_part(self) -> bool:
        """Whether torch computes on a part of a GPU (MIG)."""
        return self.own is not self.whole

    def ask(self, function: str, *arguments: Any) -> Any:
        """What a function of NVML gives; None where the GPU, the driver or the package does not have it."""
        return _ask(self.library, function, *arguments)


def open_nvml(device: torch.device) -> Nvml:
    """NVML for a device.

    It stays initialised, because NVML counts its users and each later call is then cheap.

    Args:
        device: A CUDA device.

    Raises:
        NvmlError: The package or the library is missing, or does not know the device.
    """
    if device.type != "cuda" or torch.version.hip is not None:
        raise NvmlError(f"NVML knows NVIDIA's GPUs only, not {'ROCm' if device.type == 'cuda' else device.type}")
    library = _library()
    # By UUID, because CUDA_VISIBLE_DEVICES renumbers torch's devices but not NVML's.
    uuid = torch.cuda.get_device_properties(device).uuid
    whole = _ask(library, "nvmlDeviceGetHandleByUUID", f"GPU-{uuid}")
    if whole is not None:
        return Nvml(library, whole, whole)
    part = _ask(library, "nvmlDeviceGetHandleByUUID", f"MIG-{uuid}")
    whole = None if part is None else _ask(library, "nvmlDeviceGetDeviceHandleFromMigDeviceHandle", part)
    if whole is None:
        raise NvmlError(f"NVML does not know the GPU {uuid}")
    return Nvml(library, part, whole)


def driver_version() -> str | None:
    """The version of NVIDIA's driver, from NVML or on Linux from the kernel; None without one."""
    try:
        found = _ask(_library(), "nvmlSystemGetDriverVersion")
    except NvmlError:
        found = None
    if found is not None:
        return found.decode() if isinstance(found, bytes) else str(found)
    file = Path("/proc/driver/nvidia/version")
    numbers = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", file.read_text()) if file.is_file() else None
    return numbers[0] if numbers else None


def _library() -> Any:
    try:
        import pynvml
    except ImportError:
        raise NvmlError(f"nvidia-ml-py is not installed: {INSTALL}") from None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NvmlError(f"NVML cannot be used: {error}") from None
    return pynvml


def _ask(library: Any, function: str, *arguments: Any) -> Any:
    call = getattr(library, function, None)  # nvidia-ml-py follows the driver's version, which may be older or newer
    if call is None:
        return None
    try:
        return call(*arguments)
    except library.NVMLError:
        return None
