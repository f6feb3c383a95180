"""Which counter of energy a device has, if any."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from tokbench.measure.nvml import NvmlError, open_nvml
from tokbench.measure.rapl import POWERCAP, PackageEnergy

READABLE = f"sudo chmod a+r {POWERCAP}/intel-rapl*/energy_uj"


class NoMeterError(Exception):
    """The energy of a device cannot be measured; the message says why."""


@dataclass(frozen=True)
class Meter:
    """A counter of energy.

    Attributes:
        name: What counts: `NVML` for a whole GPU, `RAPL` for all packages of a machine's CPUs.
        read: Joules since some moment. It never falls, and changes in steps: NVML's every 20 to 100 ms.
    """

    name: str
    read: Callable[[], float]


def meter_of(device: torch.device) -> Meter:
    """The counter of a device's energy.

    Args:
        device: Any device of torch.

    Raises:
        NoMeterError: There is none, or it cannot be read.
    """
    if device.type == "cpu":
        return _of_packages()
    if device.type == "cuda" and torch.version.hip is None:
        return _of_gpu(device)
    name = "ROCm" if device.type == "cuda" else device.type
    raise NoMeterError(f"tokbench can read no energy counter of {name}")


def meter_name(device: str) -> str | None:
    """The name of the counter of a type of device, such as `cuda`; None without one."""
    try:
        return meter_of(torch.device(device)).name
    except NoMeterError:
        return None


def _of_gpu(device: torch.device) -> Meter:
    try:
        nvml = open_nvml(device)
    except NvmlError as error:
        raise NoMeterError(str(error)) from None
    if nvml.is_part:
        raise NoMeterError("a part of a GPU (MIG) has no energy counter of its own")

    def read() -> float:
        millijoules = nvml.ask("nvmlDeviceGetTotalEnergyConsumption", nvml.whole)
        if millijoules is None:
            raise NoMeterError("this GPU, or its driver, does not count its energy")
        return float(millijoules / 1e3)

    read()
    return Meter("NVML", read)


def _of_packages() -> Meter:
    try:
        return Meter("RAPL", PackageEnergy().read)
    except FileNotFoundError:
        raise NoMeterError(f"this machine shows no energy counter of its CPU ({POWERCAP}/intel-rapl:0)") from None
    except PermissionError:
        raise NoMeterError(f"only root may read the CPU's energy counter: {READABLE}") from None
    except (OSError, ValueError) as error:
        raise NoMeterError(f"the CPU's energy counter cannot be read: {error}") from None
