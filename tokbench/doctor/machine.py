"""Checks of the hardware and the installed software: one finding per subject.

A finding is `ok`, a `note` (it works, but you may want to know) or a `problem` (something will not work), with a fix.
Nothing here needs a network.
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
from tokbench.measure.devices import processor_name
from tokbench.measure.environment import describe

GIB = 2**30
MIN_MEMORY = 4 * GIB  # with less, a ViT-B with its batch does not fit

KERNELS = {"flash": "flash", "memory-efficient": "mem_efficient", "cuDNN": "cudnn", "math": "math"}
"""CUDA's kernels for fused attention, and their names in torch."""

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        name: The subject of the check.
        status: Whether it is as it should be.
        text: What was found, one line.
        fix: What to do about it; empty if nothing.
    """

    name: str
    status: Status
    text: str
    fix: str = ""


def system() -> Finding:
    """The operating system."""
    return Finding("system", "ok", f"{platform.system()} {platform.release()}, {platform.machine()}")


def processor() -> Finding:
    """The CPU, and how many of its cores this process can use."""
    cores = os.cpu_count() or 1
    return Finding("processor", "ok", f"{processor_name()}, {usable_cpus()} of {cores} cores usable")


def memory() -> Finding:
    """Total and free memory."""
    now = psutil.virtual_memory()
    text = f"{now.available / GIB:.1f} of {now.total / GIB:.1f} GiB free"
    if now.available >= MIN_MEMORY:
        return Finding("memory", "ok", text)
    return Finding("memory", "note", text, "use a small --batch-size and --workers 0")


def versions() -> Finding:
    """Python and the packages that tokbench depends on, checked against the requirements in tokbench's metadata."""
    own = metadata("tokbench")
    installed, required = [f"Python {platform.python_version()}", f"tokbench {own['Version']}"], []
    pythons = [line.rpartition(" ")[2] for line in own.get_all("Classifier") or [] if re.search(r":: 3\.\d+$", line)]
    untested = ".".join(platform.python_version_tuple()[:2]) not in pythons
    for text in requires("tokbench") or ():
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            found = "missing"
        installed.append(f"{requirement.name} {found}")
        if found == "missing" or not requirement.specifier.contains(found, prereleases=True):
            required.append(f"'{requirement}'")
    if required:
        return Finding("versions", "problem", ", ".join(installed), f"pip install {' '.join(required)}")
    if untested:
        return Finding("versions", "note", ", ".join(installed), f"tokbench is tested with Python {', '.join(pythons)}")
    return Finding("versions", "ok", ", ".join(installed))


def threads() -> Finding:
    """The number of torch's CPU threads, compared with the number of usable cores."""
    used, cores = torch.get_num_threads(), usable_cpus()
    text = f"torch uses {used} CPU threads on {cores} cores"
    if used <= cores:
        return Finding("threads", "ok", text)
    return Finding("threads", "note", text, f"use at most one thread per core: set OMP_NUM_THREADS={cores}")


def attention(device: torch.device) -> Finding:
    """Which attention kernel the plain models use."""
    if not use_fused_attn():
        return Finding(
            "attention",
            "note",
            "timm's fused kernel is disabled: the plain model is slower than necessary, and speedups look larger",
            "unset TIMM_FUSED_ATTN",
        )
    if device.type != "cuda":
        return Finding("attention", "ok", "fused (scaled_dot_product_attention)")
    enabled = ", ".join(
        name for name, kernel in KERNELS.items() if getattr(torch.backends.cuda, f"{kernel}_sdp_enabled")()
    )
    return Finding("attention", "ok", f"fused (scaled_dot_product_attention), enabled: {enabled}")


def precision(device: torch.device) -> Finding:
    """The precision of fp32 arithmetic, and whether torch uses deterministic algorithms."""
    settings = describe(device)
    matmul, tf32_convolution = settings["tf32"]["matmul"], settings["tf32"]["cudnn"]
    text = f"fp32 matrix products '{matmul}'"
    if device.type == "cuda":
        text += f", convolutions in {'TF32' if tf32_convolution else 'full precision'}"
    text += f"; deterministic algorithms {'on' if settings['deterministic'] else 'off'}"
    if matmul == "highest":
        return Finding("precision", "ok", text)
    return Finding("precision", "note", text, "use torch.set_float32_matmul_precision('highest') for full precision")


def compiler(device: torch.device) -> Finding:
    """Whether torch.compile can work: it generates C++ on a CPU and Triton on a GPU, and Triton needs a C compiler."""
    compilers = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++", "c++", "cl"]
    found = next((path for name in compilers if (path := shutil.which(name))), None)
    missing = [] if found else ["a C++ compiler (g++)"]
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        missing.append("Python's headers (Python.h)")
    if device.type == "cuda" and find_spec("triton") is None:
        missing.append("triton")
    if missing:
        text = f"torch.compile does not work: missing {' and '.join(missing)}"
        return Finding("compiler", "note", text, "install the missing parts if you use --mode compile")
    return Finding("compiler", "ok", f"torch.compile uses {found}")


def package(name: str, purpose: str, fix: str) -> Finding:
    """Whether an optional package is installed.

    Args:
        name: The name under which it is imported.
        purpose: What tokbench uses it for.
        fix: How to install it.
    """
    if find_spec(name) is not None:
        return Finding(name, "ok", f"installed (used for {purpose})")
    return Finding(name, "note", f"not installed (needed for {purpose})", fix)
