"""Checks of the GPUs and other accelerators. Only the one that would be used is touched, as a GPU may be another's."""

from __future__ import annotations

import torch

from tokbench.doctor.machine import GIB, Finding
from tokbench.measure.accelerator import synchronize
from tokbench.measure.devices import device_count, device_name
from tokbench.measure.energy_meter import NoMeterError, meter_of
from tokbench.measure.environment import clock_mhz
from tokbench.measure.gpu import Condition, free_memory, limits, other_processes
from tokbench.measure.nvml import driver_version
from tokbench.measure.under_load import condition_under_load

SIDE = 2048  # of the matrices whose products load a GPU while its clocks are read
UNTESTED = "tokbench has never been run on such hardware: compare its answers and times with another program's"


def gpus() -> Finding:
    """The GPUs that torch calls `cuda`, and whether it can use them."""
    driver = driver_version()
    count = device_count("cuda")
    if count:
        built = f"ROCm {torch.version.hip}" if torch.version.hip else f"CUDA {torch.version.cuda}"
        found = "; ".join(_described(torch.device("cuda", number)) for number in range(count))
        return Finding("gpu", "ok", f"{found}; driver {driver or 'unknown'}, {built}")
    if driver:
        build = f"with CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
        return Finding(
            "gpu",
            "problem",
            f"driver {driver} is installed, but torch {torch.__version__} (built {build}) finds no GPU",
            "install a torch built for this driver's CUDA, and check that CUDA_VISIBLE_DEVICES does not hide the GPU",
        )
    return Finding("gpu", "ok", "none that CUDA can use")


def other_accelerators() -> Finding:
    """GPUs of other makers than NVIDIA, on which tokbench is untested."""
    found = [
        *([f"ROCm {torch.version.hip} (--device cuda)"] if torch.version.hip and device_count("cuda") else []),
        *(["Intel's GPU (--device xpu)"] if device_count("xpu") else []),
        *(["Apple's GPU (--device mps)"] if device_count("mps") else []),
    ]
    if not found:
        return Finding("other gpus", "ok", "none: neither ROCm nor XPU nor MPS")
    return Finding("other gpus", "note", f"{', '.join(found)}: {UNTESTED}", "docs/devices.md says what works there")


def device_choice(device: torch.device) -> Finding:
    """The device that --device auto stands for, and whether it can be used now."""
    try:
        torch.ones(1, device=device).add_(1)
        synchronize(device)
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0]
        return Finding(
            "device",
            "problem",
            f"--device auto would use {device.type}, which cannot be used: {reason}",
            "another program may have it to itself (nvidia-smi lists them); else choose --device cpu",
        )
    text = f"--device auto uses {device.type}: {device_name(device)}"
    others = other_processes(device)
    if not others:
        return Finding("device", "ok", text)
    text += f"; {others} other process{'es use' if others > 1 else ' uses'} it"
    return Finding("device", "note", text, "wait until they have ended before times are measured")


def clocks(device: torch.device) -> Finding:
    """The clock of the device while it works, and whether it is reduced."""
    matrix = torch.randn(SIDE, SIDE, device=device)  # not zeros, on which a GPU draws less power
    now = condition_under_load(lambda values: values @ values, matrix)
    if now is None:
        mhz = clock_mhz(device)
        return Finding("clocks", "ok", "cannot be read on this machine" if mhz is None else f"{mhz:.0f} MHz")
    return clocks_of(now, None if (found := limits(device)) is None else found.power_limit_w)


def clocks_of(now: Condition, power_limit_w: float | None) -> Finding:
    """What the state of a GPU under load means for times.

    Args:
        now: While it worked.
        power_limit_w: The power that it may draw, watts; None where unknown.
    """
    limit = "" if power_limit_w is None else f" of {power_limit_w:.0f}"
    known = {
        "{} MHz": now.sm_mhz,
        "memory {} MHz": now.memory_mhz,
        "{} °C": now.temperature_c,
        "{:.0f}" + limit + " W": now.power_w,
    }
    text = ", ".join(form.format(value) for form, value in known.items() if value is not None) or "not reported"
    text = f"under load: {text}"
    if now.throttled:
        reasons = ", ".join(now.throttled)
        fix = "let it cool, or fix a lower clock that it can hold: sudo nvidia-smi -lgc MHZ (undo: -rgc)"
        return Finding("clocks", "note", f"{text}; the clock is reduced: {reasons}", fix)
    advice = "" if now.sm_mhz is None else f"for steadier times fix the clock: sudo nvidia-smi -lgc {now.sm_mhz}"
    return Finding("clocks", "ok", text, advice and f"{advice} (undo: -rgc)")


def energy(device: torch.device) -> Finding:
    """Whether `--only energy` can measure anything here."""
    try:
        meter = meter_of(device)
    except NoMeterError as error:
        return Finding("energy", "note", f"--only energy stays empty: {error}")
    return Finding("energy", "ok", f"--only energy reads {meter.name}")


def _described(device: torch.device) -> str:
    """Name and memory, from what is known without opening a context on the GPU."""
    found = torch.cuda.get_device_properties(device)
    free = free_memory(device)
    memory = f"{found.total_memory / GIB:.0f} GiB"
    return f"{found.name}, {memory if free is None else f'{free / GIB:.0f} of {memory} free'}"
