"""What the keys of measurements say of the machine that makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

import torch

from tokbench.measure.devices import device_name
from tokbench.measure.environment import device_facts

PACKAGES = ("torch", "timm", "fvcore")
"""What runs a model and counts its MACs; the versions of these are in the keys."""


@dataclass(frozen=True)
class Machine:
    """What keys say of the machine that measures.

    Attributes:
        name: Of the device.
        facts: What times on the device depend on; see `device_facts`.
        threads: CPU threads for computing.
        versions: Of the installed packages, by name.
    """

    name: str
    facts: Mapping[str, str]
    threads: int
    versions: Mapping[str, str]


def this_machine(device: torch.device) -> Machine:
    """The machine on which this runs.

    Args:
        device: Where models run.
    """
    versions = {name: version(name) for name in PACKAGES}
    return Machine(device_name(device), device_facts(device), torch.get_num_threads(), versions)
