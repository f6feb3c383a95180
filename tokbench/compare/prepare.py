"""From a plan to what can be measured: models loaded, data opened, and for each row the keys of its measurements.

A key is a hash of all that the measurement depends on, so what changed is measured again, by itself.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer

from tokbench.compare.plan import Cell, Variant
from tokbench.compare.sample_images import adaptive, pictures_for, shown
from tokbench.config import Suite
from tokbench.data.sets import ImageSet, open_images
from tokbench.embedded.images import image_set
from tokbench.errors import UserError
from tokbench.measure.budget import OutOfReachError, solve_keep
from tokbench.measure.environment import device_name, resolve_device
from tokbench.measure.macs import count_macs, spread_of_macs
from tokbench.measure.modes import check_mode
from tokbench.names import EMBEDDED, EMBEDDED_MODEL, PLAIN, RANDOM
from tokbench.registry import method_class, source_digest
from tokbench.results.store import identity
from tokbench.schedule import Budget, Schedule
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.models import Pretrained, check_name, load_model

# The parts of tokbench that a measured number can depend on: of the modules at the top, all but these.
MEASURING = (
    "*.py",
    "compare/accuracy.py",
    "compare/pictures.py",
    "compare/redundancy.py",
    "compare/run.py",
    "compare/timing.py",
    "data/*.py",
    "embedded/*.py",
    "measure/*.py",
)
NOT_MEASURING = (
    "__init__.py",
    "__main__.py",
    "claims.py",
    "config.py",
    "errors.py",
    "notation.py",
    "proportions.py",
    "reference.py",
    "stats.py",
    "store.py",
)


@dataclass(frozen=True)
class Row:
    """A row of the table to come.

    Attributes:
        cell: What is measured.
        keys: The key of each wanted measurement, by its kind; none where the cell is skipped.
        attention_kernel: `fused`, `eager` or `fused+eager`.
        params_m: Millions of parameters.
        failed: Why the method cannot even be put into the model; empty where it can.
    """

    cell: Cell
    keys: dict[str, str]
    attention_kernel: str = ""
    params_m: float | None = None
    failed: str = ""


@dataclass(frozen=True, eq=False)
class Prepared:
    """Everything that a run needs.

    Attributes:
        suite: The settings.
        device: Where it runs.
        models: By name.
        images: None where no accuracy is measured and no data are named.
        rows: In the plan's order.
    """

    suite: Suite
    device: torch.device
    models: dict[str, Pretrained]
    images: ImageSet | None
    rows: tuple[Row, ...]


def prepare(cells: Sequence[Cell], suite: Suite) -> Prepared:
    """Load and check everything, so that the user's mistakes come out before the first measurement.

    Args:
        cells: The plan.
        suite: Its settings.

    Raises:
        UserError: A model, its weights, the device or the data cannot be had, or do not fit together.
    """
    device = resolve_device(suite.device)
    for mode in suite.mode:
        check_mode(mode, device)
    if suite.threads is not None:
        torch.set_num_threads(suite.threads)
    names = list(dict.fromkeys(suite.models))
    for name in names:
        check_name(name)
    _check_fit(names, suite)
    images = _open_data(suite)
    models = {name: load_model(name, suite.weights) for name in names}
    rows = []
    built: dict[tuple[str, Variant], Row] = {}
    for cell in cells:
        place = (cell.model, cell.variant)
        if place not in built:
            built[place] = _try(cell, models[cell.model], images)
        tried = built[place]
        cell = replace(cell, variant=tried.cell.variant)
        keys = {} if cell.variant.skipped else _keys(cell, suite, device, models[cell.model], images)
        rows.append(Row(cell, keys, tried.attention_kernel, tried.params_m, tried.failed))
    return Prepared(suite, device, models, images, tuple(rows))


def put_together(cell: Cell, model: Pretrained) -> DownsampledViT:
    """The cell's model with its method in it.

    Raises:
        UserError: Method, schedule and model do not fit together.
        Exception: Whatever the method raises.
    """
    variant = cell.variant
    if variant.method == PLAIN:
        return DownsampledViT(_unfused(model.vit) if variant.params else model.vit).eval()
    method, schedule = variant.build()
    return DownsampledViT(model.vit, method, schedule, site=variant.site, seed=cell.seed or 0).eval()


def _unfused(vit: VisionTransformer) -> VisionTransformer:
    """The same model, its weights shared, that computes the attention matrix."""
    shared = {id(tensor): tensor for tensor in (*vit.parameters(), *vit.buffers())}
    opened = copy.deepcopy(vit, shared)
    for block in opened.blocks:
        block.attn.fused_attn = False
    return opened


def _try(cell: Cell, model: Pretrained, images: ImageSet | None) -> Row:
    if cell.variant.skipped and _budget(cell.variant):  # a trace for nothing
        return Row(cell, {})
    try:
        cell = _solved(cell, model, images)
        built = put_together(cell, model)
    # One method of many may be unable to get there: it must not stop the others.
    except OutOfReachError as error:
        return Row(replace(cell, variant=replace(cell.variant, skipped=str(error))), {})
    except UserError:
        raise
    # A method is somebody else's code: what it raises costs its own rows only.
    except Exception as error:
        return Row(cell, {}, failed=f"{type(error).__name__}: {error}".splitlines()[0])
    params = sum(parameter.numel() for parameter in built.parameters())
    return Row(cell, {}, built.attention_kernel, params / 1e6)


def _solved(cell: Cell, model: Pretrained, images: ImageSet | None) -> Cell:
    """A cell whose budget, where it has one, has got its keep: on the images that its MACs will be counted on."""
    budget = _budget(cell.variant)
    if budget is None:
        return cell
    pictures = pictures_for([cell], model, images)
    plain = count_macs(DownsampledViT(model.vit).eval(), pictures[:1]).total

    def cost(keep: float) -> float:
        tried = replace(cell, variant=replace(cell.variant, keep=keep))
        built = put_together(tried, model)
        if adaptive(cell.variant):
            return spread_of_macs(built, shown(cell, pictures)).total / plain
        return count_macs(built, pictures[:1]).total / plain

    keep = solve_keep(cost, budget.fraction)
    return replace(cell, variant=replace(cell.variant, keep=keep))


def _budget(variant: Variant) -> Budget | None:
    """The variant's budget as long as it has no keep."""
    if variant.method == PLAIN or variant.keep is not None:
        return None
    schedule = Schedule.parse(variant.schedule)
    return schedule if isinstance(schedule, Budget) else None


def _keys(cell: Cell, suite: Suite, device: torch.device, model: Pretrained, images: ImageSet | None) -> dict[str, str]:
    variant = cell.variant
    plain = variant.method == PLAIN
    data = images.identity if images else None
    seen = {"data": data, "batch": cell.batch_size} if adaptive(variant) else {}
    base = {
        "harness": _harness_digest(),
        "versions": [version(name) for name in ("torch", "timm", "fvcore")],
        "model": cell.model,
        "weights": model.identity,
        "variant": asdict(variant),
        "source": None if plain else source_digest(method_class(variant.method)),
        **seen,
    }
    place = {"device": device.type, "name": device_name(device), "dtype": suite.dtype}
    running = {"batch": cell.batch_size, "mode": cell.mode, "threads": torch.get_num_threads()}
    timing = {"seconds": suite.seconds, "precision": suite.precision}
    answers = {"data": data, "batch": suite.accuracy_batch, "seed": cell.seed}
    parts: dict[str, dict[str, Any]] = {
        "macs": {**base, **(place if adaptive(variant) else {})},
        "latency": {**base, **place, **running, **timing},
        "memory": {**base, **place, **running},
        "accuracy": {**base, **place, **answers},
        "spectra": {**base, **place, "data": data},
        "reconstruction": {**base, **place, "data": data, "seed": cell.seed},
    }
    wanted: list[str] = [*suite.only]
    # Compiling takes more of a process than what it compiles; CUDA's allocator does not see it.
    if "latency" in wanted and (cell.mode == "eager" or device.type == "cuda"):
        wanted.append("memory")
    if suite.analyse and not (plain and variant.params):  # without fusion, the plain model's spectra are the same
        wanted.append("spectra" if plain else "reconstruction")
    return {kind: identity({"kind": kind, **parts[kind]}) for kind in wanted}


@cache
def _harness_digest() -> str:
    """A hash of the code that measures."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for pattern in MEASURING:
        for file in sorted(root.glob(pattern)):
            if file.parent != root or file.name not in NOT_MEASURING:
                digest.update(file.read_bytes())
    return digest.hexdigest()


def _check_fit(names: list[str], suite: Suite) -> None:
    if isinstance(suite.weights, Path) and len(names) > 1:
        raise UserError(f"--weights is one model's, and {len(names)} models are named: run them one by one")
    if "accuracy" not in suite.only and not suite.analyse:
        return
    if suite.data is None:
        purpose, way_out = "measure accuracy on", "leave accuracy out with --only macs,latency"
        if "accuracy" not in suite.only:
            purpose, way_out = "analyse", "leave --analyse out"
        raise UserError(
            f"no data to {purpose}: name them with --data (a folder by synset id, a .tar, a .parquet), or {way_out}"
        )
    if suite.weights == RANDOM:
        raise UserError(
            "random weights have learnt nothing: name a model's with --weights FILE, or measure --only macs,latency"
        )
    strangers = [name for name in names if (name == EMBEDDED_MODEL) != (suite.data == EMBEDDED)]
    if strangers:
        raise UserError(
            f"model '{strangers[0]}' cannot read these data: {EMBEDDED_MODEL} goes with --data {EMBEDDED}, "
            "timm's models with ImageNet's"
        )


def _open_data(suite: Suite) -> ImageSet | None:
    if suite.data is None:
        return None
    images = image_set() if suite.data == EMBEDDED else open_images(suite.data)
    return images.head(suite.limit) if suite.limit else images
