"""What do the published settings compute, counted by tokbench?

    python benchmarks/claimed_macs.py

Every setting in tokbench/published/published.csv whose model and token counts are known is built with random weights
and counted on one image of noise: MACs depend on neither. What LayerNorm would add is counted as fvcore does, 5 for
each element, because many papers include it. A setting that cannot be counted is an error. Takes up to five minutes on
one core.

Writes tokbench/published/counted_gmacs.csv.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import timm
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

import tokbench
from tokbench import DownsampledViT, Schedule, create
from tokbench.files import write_atomically
from tokbench.measure.macs import count_macs
from tokbench.names import PLAIN
from tokbench.notation import parse_call
from tokbench.published.claims import load_claims
from tokbench.published.counted import FILE_NAME, KEY, architecture, can_be_counted
from tokbench.registry import discover

FILE = Path(tokbench.__file__).parent / "published" / FILE_NAME
PER_ELEMENT = 5  # of LayerNorm with weight and bias, in fvcore


def settings() -> pd.DataFrame:
    """The settings that can be counted, each once, with the columns `KEY`."""
    known = [claim for claim in load_claims().to_dict("records") if can_be_counted(claim)]
    columns = list(KEY)
    found = pd.DataFrame(known).assign(architecture=[architecture(claim) for claim in known])[columns]
    return found.drop_duplicates().sort_values(columns)


def count(setting: dict[Any, Any]) -> dict[Any, Any]:
    """A line of the table."""
    vit = build(setting["architecture"])
    if setting["method"] == PLAIN:
        model = DownsampledViT(vit)
    else:
        keep = None if pd.isna(setting["keep"]) else setting["keep"]
        named = parse_call(f"{setting['method']}({setting['params']})").named
        model = DownsampledViT(vit, create(setting["method"], **named), Schedule.parse(setting["schedule"], keep))
    image = torch.randn(1, 3, *vit.patch_embed.img_size, generator=torch.Generator().manual_seed(0))
    macs = count_macs(model.eval(), image)
    with normalised_elements(vit) as elements, torch.inference_mode():
        model(image)
    norm = PER_ELEMENT * sum(elements)
    return {
        **setting,
        "gmacs": macs.total / 1e9,
        "gmacs_method": macs.method / 1e9,
        "gmacs_norm": norm / 1e9,
    }


@cache
def build(architecture: str) -> Any:
    """A model of timm's with random weights."""
    call = parse_call(architecture)
    shape = {name: int(value) for name, value in call.named.items()}
    return timm.create_model(call.name, pretrained=False, **shape).eval()


@contextmanager
def normalised_elements(vit: nn.Module) -> Iterator[list[int]]:
    """Collect how many elements each call of LayerNorm in the model normalises."""
    elements: list[int] = []

    def record(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        elements.append(inputs[0].numel())

    hooks = [one.register_forward_pre_hook(record) for one in vit.modules() if isinstance(one, nn.LayerNorm)]
    try:
        yield elements
    finally:
        for hook in hooks:
            hook.remove()


def main() -> None:
    """Count every setting and write the table."""
    discover()
    found = track(settings().to_dict("records"), console=Console(stderr=True))
    table = pd.DataFrame([count(setting) for setting in found])
    write_atomically(FILE, lambda path: table.to_csv(path, index=False, float_format="%.6g"))


if __name__ == "__main__":
    main()
