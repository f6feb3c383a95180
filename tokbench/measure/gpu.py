"""A GPU's clocks, temperature and throttling, as reported by NVIDIA's management library (NVML)."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

import torch

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
    """The state of a GPU at one moment.

    Attributes:
        sm_mhz: Clock of the streaming multiprocessors, MHz.
        memory_mhz: Memory clock, MHz.
        temperature_c: Temperature, degrees Celsius.
        throttled: Reasons for reduced clocks; empty where they are not reduced.
    """

    sm_mhz: int
    memory_mhz: int
    temperature_c: int
    throttled: tuple[str, ...]


def condition(device: torch.device) -> Condition | None:
    """Current clocks, temperature and throttling; None on a CPU or without the package nvidia-ml-py.

    Args:
        device: A CUDA device, or the CPU.
    """
    if device.type != "cuda" or importlib.util.find_spec("pynvml") is None:
        return None
    import pynvml

    pynvml.nvmlInit()
    try:
        # By UUID, because CUDA_VISIBLE_DEVICES renumbers torch's devices but not NVML's.
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
    """The names of the throttle reasons that are set in NVML's bit field."""
    return tuple(name for bit, name in THROTTLING.items() if bits & bit)
