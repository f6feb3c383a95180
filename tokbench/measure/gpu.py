"""The state a GPU is in, as NVIDIA's management library (NVML) tells it."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch

# NVML's bits for a clock that is held down by something (nvml.h, nvmlClocksEventReasons). Idling, clocks that a user
# has set and clocks held level with another GPU's are no trouble of this measurement.
THROTTLING = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}


@dataclass(frozen=True)
class Condition:
    """What a GPU was doing at one moment.

    Attributes:
        sm_mhz: The clock of its processors, MHz.
        memory_mhz: The clock of its memory, MHz.
        temperature_c: Degrees Celsius.
        throttled: Why its clocks were held down; empty where nothing did.
    """

    sm_mhz: int
    memory_mhz: int
    temperature_c: int
    throttled: tuple[str, ...]


def condition(device: torch.device) -> Condition | None:
    """Clocks, temperature and throttle reasons now; None on a CPU or without the package nvidia-ml-py.

    Args:
        device: A CUDA device, or the CPU.
    """
    if device.type != "cuda" or importlib.util.find_spec("pynvml") is None:
        return None
    import pynvml

    pynvml.nvmlInit()
    try:
        # By its identity, since CUDA_VISIBLE_DEVICES renumbers torch's devices and not NVML's.
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
        reasons = pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)
        return Condition(
            sm_mhz=pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM),
            memory_mhz=pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM),
            temperature_c=pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU),
            throttled=throttle_reasons(reasons),
        )
    finally:
        pynvml.nvmlShutdown()


def throttle_reasons(bits: int) -> tuple[str, ...]:
    """The names of the reasons in NVML's bit field."""
    return tuple(name for bit, name in THROTTLING.items() if bits & bit)
