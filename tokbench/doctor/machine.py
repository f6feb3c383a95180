"""What this machine is and what is installed on it: one finding a subject.

A finding is `ok`, a `note` (it works, and you may want to know) or a `problem` (something that was asked for will not
work), with the mend. Nothing here needs a network.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sysconfig
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import psutil
import torch
from packaging.requirements import Requirement
from timm.layers import use_fused_attn

from tokbench.measure.cpu import usable_cpus
from tokbench.measure.environment import clock_mhz, describe, device_name
from tokbench.measure.gpu import condition

GIB = 2**30
LEAST_MEMORY = 4 * GIB  # below it a ViT-B with its batch does not fit

KERNELS = {"flash": "flash", "memory-efficient": "mem_efficient", "cuDNN": "cudnn", "math": "math"}
"""CUDA's kernels of fused attention, and torch's words for them."""

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """What was found out about one subject, in a line, and what to do where it is not well."""

    name: str
    status: Status
    told: str
    mend: str = ""


def system() -> Finding:
    """The operating system."""
    return Finding("system", "ok", f"{platform.system()} {platform.release()}, {platform.machine()}")


def processor() -> Finding:
    """The CPU, and how many of its cores this process may use."""
    cores = os.cpu_count() or 1
    name = device_name(torch.device("cpu"))
    return Finding("processor", "ok", f"{name}, {usable_cpus()} of {cores} cores usable")


def memory() -> Finding:
    """The machine's memory."""
    now = psutil.virtual_memory()
    told = f"{now.available / GIB:.1f} of {now.total / GIB:.1f} GiB free"
    if now.available >= LEAST_MEMORY:
        return Finding("memory", "ok", told)
    return Finding("memory", "note", told, "a small --batch-size and --workers 0 need the least")


def gpu() -> Finding:
    """The NVIDIA GPUs, and whether torch can use them."""
    driver = _driver()
    if torch.cuda.is_available():
        found = []
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            found.append(f"{torch.cuda.get_device_name(number)}, {free / GIB:.0f} of {total / GIB:.0f} GiB free")
        return Finding("gpu", "ok", f"{'; '.join(found)}; driver {driver or 'unknown'}, CUDA {torch.version.cuda}")
    if driver:
        why = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
        return Finding(
            "gpu",
            "problem",
            f"driver {driver} is here, and torch {torch.__version__} (built with {why}) finds no GPU",
            "install a torch built for this driver's CUDA, and look whether CUDA_VISIBLE_DEVICES hides the GPU",
        )
    return Finding("gpu", "ok", "none: everything runs on the CPU")


def versions() -> Finding:
    """Python and the packages that tokbench stands on, against what its own metadata ask for."""
    own = metadata("tokbench")
    told, wanted = [f"Python {platform.python_version()}", f"tokbench {own['Version']}"], []
    pythons = [line.rpartition(" ")[2] for line in own.get_all("Classifier") or [] if re.search(r":: 3\.\d+$", line)]
    untested = ".".join(platform.python_version_tuple()[:2]) not in pythons
    for text in requires("tokbench") or ():
        needed = Requirement(text)
        if needed.marker is not None and not needed.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(needed.name)
        except PackageNotFoundError:
            found = "missing"
        told.append(f"{needed.name} {found}")
        if found == "missing" or not needed.specifier.contains(found, prereleases=True):
            wanted.append(f"'{needed}'")
    if wanted:
        return Finding("versions", "problem", ", ".join(told), f"pip install {' '.join(wanted)}")
    if untested:
        return Finding("versions", "note", ", ".join(told), f"tokbench is tested with Python {', '.join(pythons)}")
    return Finding("versions", "ok", ", ".join(told))


def device_choice(device: torch.device) -> Finding:
    """What --device auto means here."""
    return Finding("device", "ok", f"auto chooses {device.type}: {device_name(device)}")


def threads() -> Finding:
    """The CPU threads that torch computes with, against the cores there are for them."""
    used, cores = torch.get_num_threads(), usable_cpus()
    told = f"torch computes with {used} on {cores} cores"
    if used <= cores:
        return Finding("threads", "ok", told)
    return Finding("threads", "note", told, f"they get in each other's way: set OMP_NUM_THREADS={cores}")


def attention(device: torch.device) -> Finding:
    """Which attention kernel the plain models run with."""
    if not use_fused_attn():
        return Finding(
            "attention",
            "note",
            "timm's fused kernel is off: the plain model is slower than it need be, and speedups look larger",
            "unset TIMM_FUSED_ATTN",
        )
    if device.type != "cuda":
        return Finding("attention", "ok", "fused (scaled_dot_product_attention)")
    enabled = ", ".join(
        name for name, kernel in KERNELS.items() if getattr(torch.backends.cuda, f"{kernel}_sdp_enabled")()
    )
    return Finding("attention", "ok", f"fused (scaled_dot_product_attention), enabled: {enabled}")


def precision(device: torch.device) -> Finding:
    """What fp32 means here, and whether torch is held to deterministic algorithms."""
    settings = describe(device)
    product, convolution = settings["tf32"]["matmul"], settings["tf32"]["cudnn"]
    told = f"fp32 products '{product}'"
    if device.type == "cuda":
        told += f", convolutions {'in TF32' if convolution else 'in full'}"
    told += f"; deterministic algorithms {'on' if settings['deterministic'] else 'off'}"
    if product == "highest":
        return Finding("precision", "ok", told)
    return Finding("precision", "note", told, "torch.set_float32_matmul_precision('highest') computes fp32 in full")


def clocks(device: torch.device) -> Finding:
    """The clock of the processor that measures, and what holds it down."""
    now = condition(device)
    if now is None:
        mhz = clock_mhz(device)
        return Finding("clocks", "ok", "cannot be read here" if mhz is None else f"{mhz:.0f} MHz")
    told = f"{now.sm_mhz} MHz, memory {now.memory_mhz} MHz, {now.temperature_c} °C"
    if not now.throttled:
        return Finding("clocks", "ok", told)
    why = ", ".join(now.throttled)
    return Finding("clocks", "note", f"{told}, held down: {why}", "times are a throttled GPU's until that ends")


def compiler(device: torch.device) -> Finding:
    """Whether torch.compile can work: it writes C++ for a CPU and Triton for a GPU, which calls a C compiler."""
    wanted = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++", "c++", "cl"]
    found = next((path for name in wanted if (path := shutil.which(name))), None)
    missing = [] if found else ["a C++ compiler (g++)"]
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        missing.append("Python's headers (Python.h)")
    if device.type == "cuda" and find_spec("triton") is None:
        missing.append("triton")
    if missing:
        told = f"torch.compile cannot work, for want of {' and '.join(missing)}"
        return Finding("compiler", "note", told, "install them for --mode compile; nothing else needs them")
    return Finding("compiler", "ok", f"torch.compile has {found}")


def package(name: str, use: str, mend: str) -> Finding:
    """A package that tokbench can do without.

    Args:
        name: As it is imported.
        use: What it does.
        mend: How to get it.
    """
    if find_spec(name) is not None:
        return Finding(name, "ok", f"is there, and {use}")
    return Finding(name, "note", f"is not there; it {use}", mend)


def _driver() -> str:
    """The version of NVIDIA's kernel driver, as Linux tells it; empty where there is none."""
    told = Path("/proc/driver/nvidia/version")
    found = re.search(r"\b\d{3,}\.\d+(\.\d+)?\b", told.read_text()) if told.is_file() else None
    return found[0] if found else ""
