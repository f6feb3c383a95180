"""A GPU's clocks, temperature, power and throttling, as reported by NVIDIA's management library (NVML)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tokbench.measure.nvml import Nvml, NvmlError, open_nvml

# NVML's bits for the reasons of a reduced clock (nvml.h, nvmlClocksEventReasons). Left out because they do not disturb
# a measurement: an idle GPU, clocks set by the user, and clocks synchronised with another GPU.
THROTTLING = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}


@dataclass(frozen=True)
class Condition:
    """The state of a GPU at one moment. What the GPU or its driver does not report is None.

    Of a part of a GPU (MIG), it is the state of the whole GPU, which other parts affect too.

    Attributes:
        sm_mhz: Clock of the streaming multiprocessors, MHz.
        memory_mhz: Memory clock, MHz.
        temperature_c: Temperature, degrees Celsius.
        throttled: Reasons for reduced clocks; empty where they are not reduced, and where that is not reported.
        power_w: Power that the GPU draws, watts; NVML averages it over up to a second.
    """

    sm_mhz: int | None
    memory_mhz: int | None
    temperature_c: int | None
    throttled: tuple[str, ...]
    power_w: float | None


@dataclass(frozen=True)
class Limits:
    """Settings of a GPU that change how fast it is. What is not reported is None.

    Attributes:
        power_limit_w: The power that it may draw, watts.
        persistence: Whether the driver stays loaded while nobody uses the GPU.
        mig: Whether the GPU is divided into parts (MIG).
    """

    power_limit_w: float | None
    persistence: bool | None
    mig: bool | None


def condition(device: torch.device) -> Condition | None:
    """Current clocks, temperature, power and throttling; None on other devices than NVIDIA's and without NVML.

    Clocks and power of an idle GPU say nothing about those under load: call it while work is queued.

    Args:
        device: Any device of torch.
    """
    nvml = _open(device)
    if nvml is None:
        return None
    library, gpu = nvml.library, nvml.whole
    milliwatts = nvml.ask("nvmlDeviceGetPowerUsage", gpu)
    return Condition(
        sm_mhz=nvml.ask("nvmlDeviceGetClockInfo", gpu, library.NVML_CLOCK_SM),
        memory_mhz=nvml.ask("nvmlDeviceGetClockInfo", gpu, library.NVML_CLOCK_MEM),
        temperature_c=nvml.ask("nvmlDeviceGetTemperature", gpu, library.NVML_TEMPERATURE_GPU),
        throttled=throttle_reasons(nvml.ask("nvmlDeviceGetCurrentClocksThrottleReasons", gpu) or 0),
        power_w=None if milliwatts is None else milliwatts / 1e3,
    )


def limits(device: torch.device) -> Limits | None:
    """The settings of a GPU; None on other devices than NVIDIA's and without NVML.

    Args:
        device: Any device of torch.
    """
    nvml = _open(device)
    if nvml is None:
        return None
    milliwatts = nvml.ask("nvmlDeviceGetEnforcedPowerLimit", nvml.whole)
    persistence = nvml.ask("nvmlDeviceGetPersistenceMode", nvml.whole)
    mode = nvml.ask("nvmlDeviceGetMigMode", nvml.whole)  # the current one, and the one after the next reset
    return Limits(
        power_limit_w=None if milliwatts is None else milliwatts / 1e3,
        persistence=None if persistence is None else bool(persistence),
        mig=None if mode is None else bool(mode[0]),
    )


def other_processes(device: torch.device) -> int | None:
    """How many other processes have memory on the GPU; None where that is not known.

    This process must have used the GPU before: one that NVML does not list sees no others either, as in a container
    with process numbers of its own.

    Args:
        device: Any device of torch.
    """
    nvml = _open(device)
    found = None if nvml is None else nvml.ask("nvmlDeviceGetComputeRunningProcesses", nvml.own)
    return len(found) - 1 if found else None


def free_memory(device: torch.device) -> int | None:
    """The bytes of a GPU that nobody uses, read without opening a context on it; None without NVML.

    Args:
        device: Any device of torch.
    """
    nvml = _open(device)
    found = None if nvml is None else nvml.ask("nvmlDeviceGetMemoryInfo", nvml.own)
    return None if found is None else int(found.free)


def throttle_reasons(bits: int) -> tuple[str, ...]:
    """The names of the throttle reasons that are set in NVML's bit field."""
    return tuple(name for bit, name in THROTTLING.items() if bits & bit)


def _open(device: torch.device) -> Nvml | None:
    try:
        return open_nvml(device)
    except NvmlError:
        return None
