"""`tokbench doctor`: checks whether this machine, its settings and the user's data are ready for measurements.

It checks the machine first (see `machine` and `accelerators`), then plugins, folders and images, and finally how
precisely times can be compared here.
"""

from __future__ import annotations

import copy
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torchvision.transforms.functional import pil_to_tensor

from tokbench.config import load_config
from tokbench.data.loading import batches
from tokbench.data.sets import Labelling, open_images
from tokbench.doctor import accelerators, machine
from tokbench.doctor.machine import GIB, Finding
from tokbench.errors import UserError
from tokbench.measure.devices import resolve_device
from tokbench.measure.latency import measure_floor, noise_floor
from tokbench.names import EMBEDDED_MODELS
from tokbench.registry import discover
from tokbench.stats.times import MIN_MARGIN
from tokbench.vit.models import load_model

MIN_DISK = 1 * GIB  # enough for a suite's results with the prediction for every image

# A coarser timing resolution hides what most methods gain at keep 0.9; other processes that use a tenth of the CPUs
# make it so coarse.
COARSE_RESOLUTION = 0.03
HIGH_LOAD = 0.1

BLOCK_SECONDS = 0.5  # time limit of each block in which the model is timed against itself
BATCH = 16  # images; the embedded model takes a few milliseconds for them


def examine(data: str | None, results: Path, config: Path | None) -> Iterator[Finding]:
    """Run all checks, the quick ones first; takes about five seconds.

    Args:
        data: An image set as for `tokbench compare --data`; None skips this check.
        results: The folder that results will be written to.
        config: A tokbench.toml; None uses the current folder's, if there is one.
    """
    device = resolve_device("auto")
    yield machine.system()
    yield machine.processor()
    yield machine.memory()
    yield accelerators.gpus()
    yield accelerators.other_accelerators()
    yield machine.versions()
    chosen = accelerators.device_choice(device)
    yield chosen
    usable = chosen.status != "problem"
    yield machine.threads()
    yield machine.attention(device)
    yield machine.precision(device)
    if usable:
        yield accelerators.clocks(device)
    yield machine.compiler(device)
    yield machine.package("datasets", "--data hfds/NAME", "pip install 'tokbench[hf]'")
    if device.type == "cuda":
        purpose = "a GPU's clocks, temperature, throttling and energy"
        yield machine.package("pynvml", purpose, "pip install 'tokbench[nvidia]'")
    yield accelerators.energy(device)
    yield plugins(config)
    yield results_folder(results)
    yield images(data) if data else Finding("data", "ok", "not checked: pass --data PATH to check an image set")
    if usable:
        yield from timing(device)


def plugins(config: Path | None) -> Finding:
    """How many methods there are, and which plugins cannot be imported."""
    try:
        known, broken = discover(load_config(config).plugin_paths)
    except UserError as error:
        return Finding("plugins", "problem", str(error))
    if broken:
        errors = "; ".join(f"{plugin.source} cannot be imported: {plugin.reason}" for plugin in broken)
        return Finding("plugins", "problem", errors, "fix these files; their methods are unavailable until then")
    return Finding("plugins", "ok", f"{len(known)} methods, none broken")


def results_folder(folder: Path) -> Finding:
    """Whether the results folder can be written, and how much disk space is free."""
    existing = folder.absolute()
    while not existing.exists():
        existing = existing.parent
    fix = "choose another folder with tokbench compare --out DIR"
    try:
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        return Finding("results", "problem", f"{folder} cannot be written ({error.strerror})", fix)
    text = f"{folder} is writable, {free / GIB:.1f} GiB free"
    return Finding("results", "ok", text) if free >= MIN_DISK else Finding("results", "note", text, fix)


def images(source: str) -> Finding:
    """Whether the image set can be opened, what it contains, and whether its first image can be decoded."""
    try:
        found = open_images(source, Labelling(outputs=()))  # of any classes: no model says which
    except UserError as error:
        return Finding("data", "problem", str(error))
    classes = "without labels" if found.unlabelled else f"of {len(set(found.labels)):,} classes"
    text = f"{found.name}: {len(found):,} images {classes}"
    first, unreadable = next(batches(found, pil_to_tensor, batch_size=1, workers=0, stop=1))
    if unreadable:
        text += f"; {unreadable[0].name} cannot be read ({unreadable[0].reason})"
        return Finding("data", "problem", text, "replace this file")
    height, width = first.images.shape[2:]
    return Finding("data", "ok", f"{text}; the first image can be decoded ({width}x{height})")


def timing(device: torch.device) -> Iterator[Finding]:
    """The timing resolution of this machine, and the CPU load of other processes in the meantime.

    The timing resolution is the smallest difference in time that a measurement as short as this one can detect: the
    margin of a verdict, which is the noise floor (how far a model differs from itself beyond the precision reached) or
    0.5 % if that is larger, plus the precision reached (half the width of the interval). More time improves only the
    precision.
    """
    vit = load_model(EMBEDDED_MODELS[0]).vit.to(device)
    weight = vit.patch_embed.proj.weight
    size = (BATCH, weight.shape[1], *vit.patch_embed.img_size)
    batch = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device)
    blocks = measure_floor(lambda: copy.deepcopy(vit), [batch], BLOCK_SECONDS, MIN_MARGIN)
    margin = max(MIN_MARGIN, noise_floor(blocks))
    precision = max(block.half_width for block in blocks)
    resolution = margin + precision
    text = (
        f"timing resolution {100 * resolution:.1f} %: smaller differences in time cannot be detected now "
        f"(noise floor {100 * margin:.1f} % + precision reached {100 * precision:.1f} %; "
        f"a noise floor below {100 * MIN_MARGIN:g} % counts as {100 * MIN_MARGIN:g} %)"
    )
    fix = "stop other programs and wait for stable clocks and temperature; more --seconds improve the precision"
    coarse = resolution > COARSE_RESOLUTION
    yield Finding("timing", "note", text, fix) if coarse else Finding("timing", "ok", text)
    load = max(block.other_load for block in blocks)
    text = f"other processes used up to {100 * load:.0f} % of the CPUs during the timing"
    yield (
        Finding("other load", "note", text, "stop them while times are measured")
        if load > HIGH_LOAD
        else Finding("other load", "ok", text)
    )
