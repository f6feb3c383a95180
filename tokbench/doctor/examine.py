"""`tokbench doctor`: whether this machine, its settings and what the user named can be measured with.

First what the machine is (see `machine`), then the plugins, the folders and the images, at last how far times can be
trusted here and now.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torchvision.transforms.functional import pil_to_tensor

from tokbench.config import load_config
from tokbench.data.loading import batches
from tokbench.data.sets import open_images
from tokbench.doctor import machine
from tokbench.doctor.machine import GIB, Finding
from tokbench.errors import UserError
from tokbench.measure.environment import resolve_device
from tokbench.measure.latency import measure_floor, noise_floor
from tokbench.names import EMBEDDED_MODEL
from tokbench.registry import discover
from tokbench.stats.times import MIN_MARGIN
from tokbench.vit.models import load_model

LEAST_DISK = 1 * GIB  # a suite's results with every image's answer

# A floor above this hides what most methods gain at keep 0.9, and a tenth of the CPUs is what raises it so.
NOISY = 0.03
BUSY = 0.1

BLOCK_SECONDS = 0.5  # of each of the floor's blocks
BATCH = 16  # images; a few milliseconds of the embedded model


def examine(data: str | None, results: Path, config: Path | None) -> Iterator[Finding]:
    """Look at everything, the quick things first; takes about five seconds.

    Args:
        data: An image set as `tokbench compare --data` takes it; or None.
        results: The folder that results will be written to.
        config: A tokbench.toml; None takes the current folder's, where there is one.
    """
    device = resolve_device("auto")
    yield machine.system()
    yield machine.processor()
    yield machine.memory()
    yield machine.gpu()
    yield machine.versions()
    yield machine.device_choice(device)
    yield machine.threads()
    yield machine.attention(device)
    yield machine.precision(device)
    yield machine.clocks(device)
    yield machine.compiler(device)
    yield machine.package("datasets", "reads --data hfds/NAME", "pip install 'tokbench[hf]'")
    if device.type == "cuda":
        told = "tells the GPU's clocks, temperature and throttling"
        yield machine.package("pynvml", told, "pip install 'tokbench[nvidia]'")
    yield plugins(config)
    yield results_folder(results)
    yield images(data) if data else Finding("data", "ok", "none named: --data PATH looks at some")
    yield from noise(device)


def plugins(config: Path | None) -> Finding:
    """The methods there are, and the plugins that do not import."""
    try:
        known, broken = discover(load_config(config).plugin_paths)
    except UserError as error:
        return Finding("plugins", "problem", str(error))
    if broken:
        lost = "; ".join(f"{one.source} does not import: {one.reason}" for one in broken)
        return Finding("plugins", "problem", lost, "mend these files; their methods are left out until then")
    return Finding("plugins", "ok", f"{len(known)} methods, none broken")


def results_folder(folder: Path) -> Finding:
    """Whether results can be written, and how much room there is."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    mend = "choose another folder with tokbench compare --out DIR"
    try:
        with tempfile.TemporaryFile(dir=place):
            free = shutil.disk_usage(place).free
    except OSError as error:
        return Finding("results", "problem", f"{folder} cannot be written ({error.strerror})", mend)
    told = f"{folder} is writable, {free / GIB:.1f} GiB free"
    return Finding("results", "ok", told) if free >= LEAST_DISK else Finding("results", "note", told, mend)


def images(source: str) -> Finding:
    """The image set: whether it opens, what it holds, and whether its first image decodes."""
    try:
        found = open_images(source)
    except UserError as error:
        return Finding("data", "problem", str(error))
    told = f"{found.name}: {len(found):,} images of {len(set(found.labels)):,} classes"
    first, lost = next(batches(found, pil_to_tensor, batch_size=1, workers=0, stop=1))
    if lost:
        return Finding("data", "problem", f"{told}; {lost[0].name} cannot be read ({lost[0].reason})", "get it again")
    height, width = first.images.shape[2:]
    return Finding("data", "ok", f"{told}; the first one decodes ({width}x{height})")


def noise(device: torch.device) -> Iterator[Finding]:
    """How far a model differs from itself here and now, and what other processes use meanwhile."""
    vit = load_model(EMBEDDED_MODEL).vit.to(device)
    weight = vit.patch_embed.proj.weight
    pictures = torch.zeros(BATCH, weight.shape[1], *vit.patch_embed.img_size, device=device)
    blocks = measure_floor(vit, [pictures], BLOCK_SECONDS, MIN_MARGIN)
    floor = max(MIN_MARGIN, noise_floor(blocks))
    # Besides what is sure, a difference must outgrow what is left to chance in so much time.
    floor += max(block.half_width for block in blocks)
    told = f"{100 * floor:.1f} %: a smaller difference in time cannot be told from none here and now"
    mend = "end other programs, and let clocks and temperature settle; more --seconds narrow it"
    yield Finding("noise floor", "note", told, mend) if floor > NOISY else Finding("noise floor", "ok", told)
    load = max(block.other_load for block in blocks)
    told = f"other processes used up to {100 * load:.0f} % of the CPUs meanwhile"
    yield (
        Finding("other load", "note", told, "end them while times are measured")
        if load > BUSY
        else Finding("other load", "ok", told)
    )
