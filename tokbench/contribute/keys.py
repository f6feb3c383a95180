"""Keys: computed again from the plan and the environment, where models and images come with tokbench.

A key is a hash of everything that a measurement depends on: code, versions, weights, method, seed, images, device. A
plan or an environment that was edited afterwards no longer gives the keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch

from tokbench.contribute.planned import cell_of, planned_cells
from tokbench.contribute.problem import Name, Problem
from tokbench.names import CALIBRATED, EAGER, EMBEDDED, EMBEDDED_MODELS, FINE_TUNED, RANDOM, RUNTIMES
from tokbench.results import Results
from tokbench.run.inputs import Inputs, open_inputs
from tokbench.run.keys import keys_of
from tokbench.run.machine import PACKAGES, Machine
from tokbench.run.prepare import Row
from tokbench.suite import Suite

BY_COUNT = "macs"  # a kind whose key depends on no device


@dataclass
class KeyCheck:
    """Computes the keys of one plan again.

    Attributes:
        results: The contributed results.
        notes: What could not be checked, and why.
    """

    results: Results
    notes: list[str] = field(default_factory=list)

    def problems(self) -> Iterator[Problem]:
        """Compare the keys that can be computed here with those of the plan.

        Keys that were made by other code all differ. The keys of counts, which depend on no device, show whether it was
        the same code.
        """
        if not _has_everything(self.results.plan.suite):
            self.notes.append("keys are not checked: the weights or the images do not come with tokbench")
            return
        agree, differ = self._compare()
        if differ and not agree[BY_COUNT]:
            self.notes.append("keys are not checked: no key of a count is one of this version's code and packages")
            return
        for kind, rows in differ.items():
            yield Problem(
                Name.WRONG_KEY,
                f"plan.json: the keys of {kind} of {rows} rows do not follow from the plan and environment.json: one "
                "of the two was changed, or the code was",
            )

    def _compare(self) -> tuple[Counter[str], Counter[str]]:
        """How many keys agree and how many differ, by kind."""
        plan, machine = self.results.plan, _machine(self.results)
        # What is opened here needs no GPU; the device's type is that of the plan.
        opened = open_inputs(plan.suite.model_copy(update={"device": "cpu", "mode": (EAGER,), "checkpoint": None}))
        inputs: Inputs = replace(opened, device=torch.device(plan.device))
        cells = planned_cells(plan)
        agree: Counter[str] = Counter()
        differ: Counter[str] = Counter()
        for row in plan.rows:
            cell = cell_of(row, cells)
            if cell is None or row.skipped or row.id.regime in (CALIBRATED, FINE_TUNED):
                continue
            for kind, key in keys_of(Row(cell), plan.suite, inputs, machine).items():
                if kind in row.keys and row.id.mode not in RUNTIMES:  # whose versions are not in the environment
                    (agree if row.keys[kind] == key else differ)[kind] += 1
        return agree, differ


def _has_everything(suite: Suite) -> bool:
    """Whether models and images of a suite can be opened without anything but tokbench."""
    embedded = all(model in EMBEDDED_MODELS for model in suite.models) and suite.weights is None
    own_images = suite.data in (None, EMBEDDED) and suite.calibration in (None, EMBEDDED) and suite.train is None
    return own_images and (embedded or suite.weights == (RANDOM,))


def _machine(results: Results) -> Machine:
    """The machine that the environment describes."""
    environment = results.environment
    gpu = environment.get("gpu") or {}
    facts = {
        "name": environment["device_name"],
        "torch": environment.get("torch_build"),
        **{name: gpu.get(name) for name in ("driver", "cuda", "hip", "cudnn", "multiprocessors", "power_limit_w")},
    }
    return Machine(
        name=environment["device_name"],
        facts={name: str(value) for name, value in facts.items() if value is not None},
        threads=environment["threads"],
        versions={name: environment["versions"][name] for name in PACKAGES},
    )
