"""A module that behaves like nvidia-ml-py on a machine with one GPU, of which any function can fail."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from typing import Any

import pytest
import torch

UUID = "0a1b2c3d-0000-1111-2222-333344445555"


class NVMLError(Exception):
    pass


class NotSupportedError(NVMLError):
    """NVMLError_NotSupported: vGPU, Jetson."""


class NotFoundError(NVMLError):
    """NVMLError_NotFound: another UUID."""


class LibraryNotFoundError(NVMLError):
    """NVMLError_LibraryNotFound: a container without the utilities of the driver."""


ANSWERS: dict[str, Any] = {
    "nvmlInit": None,
    "nvmlSystemGetDriverVersion": "580.65.06",
    "nvmlDeviceGetClockInfo": lambda handle, clock: {1: 1410, 2: 1593}[clock],
    "nvmlDeviceGetTemperature": 45,
    "nvmlDeviceGetCurrentClocksThrottleReasons": 0x04 | 0x20 | 0x01,
    "nvmlDeviceGetPowerUsage": 251_300,
    "nvmlDeviceGetEnforcedPowerLimit": 400_000,
    "nvmlDeviceGetPersistenceMode": 1,
    "nvmlDeviceGetMigMode": [0, 0],
    "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=1), SimpleNamespace(pid=2)],
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(free=3 * 2**30),
    "nvmlDeviceGetTotalEnergyConsumption": 5_250,
}


@dataclass
class StubNvml:
    """`pynvml`, whose functions give `ANSWERS`, or raise what `fails` says.

    Attributes:
        fails: By function.
        lacks: Functions that the package does not have.
        mig: Whether torch computes on a part of the GPU.
        asked: The functions that were called, with the handle that each was called with.
    """

    __spec__ = ModuleSpec("pynvml", None)  # as of a module that is installed
    NVMLError = NVMLError
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    fails: dict[str, NVMLError] = field(default_factory=dict)
    lacks: set[str] = field(default_factory=set)
    mig: bool = False
    asked: list[tuple[str, Any]] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("nvml") or name in self.lacks:
            raise AttributeError(name)

        def call(*arguments: Any) -> Any:
            self.asked.append((name, arguments[0] if arguments else None))
            if name in self.fails:
                raise self.fails[name]
            match name:
                case "nvmlDeviceGetHandleByUUID":
                    if arguments[0] != f"{'MIG' if self.mig else 'GPU'}-{UUID}":
                        raise NotFoundError("Not Found")
                    return "part" if self.mig else "gpu"
                case "nvmlDeviceGetDeviceHandleFromMigDeviceHandle":
                    return "gpu"
            answer = ANSWERS[name]
            return answer(*arguments) if callable(answer) else answer

        return call


def install(monkeypatch: pytest.MonkeyPatch, stub: StubNvml) -> StubNvml:
    """Let `import pynvml` give the stub, and torch know the UUID of a GPU."""
    monkeypatch.setitem(sys.modules, "pynvml", stub)
    found = SimpleNamespace(
        uuid=UUID, name="Simulated GPU", total_memory=80 * 2**30, multi_processor_count=108, major=8, minor=0
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: found)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: found.name)
    return stub
