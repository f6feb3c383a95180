"""MACs: counted again on models that are built here, and held against the closed form where they depend on images."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import torch

from tokbench.contribute.planned import cell_of, described, planned_cells
from tokbench.contribute.problem import Name, Problem
from tokbench.errors import UserError
from tokbench.kinds import KINDS
from tokbench.kinds.macs import BatchCount, MacsRecord
from tokbench.measure.ledger import Ledger, closed_form
from tokbench.measure.macs import TOLERANCE, count_macs, disagreement
from tokbench.names import CALIBRATED, EMBEDDED_MODELS, FINE_TUNED, RANDOM
from tokbench.results import Plan, PlannedRow, Results
from tokbench.run.build import build_model
from tokbench.run.cells import Cell
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.models import Pretrained, load_model

CLASSES = re.compile(r" with (\d+) classes$")  # at the end of a model's name in the plan
MACS = KINDS["macs"]


@dataclass
class Recount:
    """Counts the rows of one plan again.

    Attributes:
        results: The contributed results.
        not_counted: Rows that could not be counted, and why.
    """

    results: Results
    not_counted: dict[str, str] = field(default_factory=dict)

    def problems(self) -> Iterator[Problem]:
        """Compare every count with that of a model built here; weights do not matter, so they are drawn.

        A method that is given noise may leave other tokens than on images. Such methods are adaptive, and of these only
        the model's own part is checked, by the closed form from the recorded token counts.
        """
        cells = planned_cells(self.results.plan)
        done: dict[Any, str] = {}
        for row in self.results.plan.rows:
            cell = cell_of(row, cells)
            if cell is None:
                self.not_counted[described(row)] = "its schedule or its checkpoint is not in the results"
            elif row.skipped or row.failed:
                yield from self._unmeasured(row, cell)
            else:
                same = (cell.model, cell.variant, row.keys.get("macs"), row.params_m)
                if same not in done:
                    done[same] = self._wrong(row, cell)
                if done[same]:
                    yield Problem(Name.WRONG_MACS, f"{described(row)}: {done[same]}")

    def _unmeasured(self, row: PlannedRow, cell: Cell) -> Iterator[Problem]:
        """A row that is said to be impossible must be: whoever can leave rows out can choose among results."""
        if cell.variant.skipped or row.id.regime in (CALIBRATED, FINE_TUNED) or row.keys:
            return
        try:
            model = self._build(row, cell)
            with torch.inference_mode():
                model(_image(model))
        except (UserError, RuntimeError, ValueError):
            return
        text = f"plan.json: {described(row)} is left out ({row.skipped or row.failed}), and can be built and run here"
        yield Problem(Name.CHANGED_PLAN, text)

    def _wrong(self, row: PlannedRow, cell: Cell) -> str:
        """What is wrong with the counts of a row; empty if nothing is."""
        record: MacsRecord | None = self.results.record(MACS, row)
        if record is None:
            return ""
        model = self._build(row, cell)
        if not row.adaptive:
            if row.id.regime == CALIBRATED:
                self.not_counted[described(row)] = "its calibrated constants are not in the results"
                return ""
            counted = count_macs(model, _image(model))
            if record.tokens != counted.ledger.leaving:
                return f"tokens {_texts(record.tokens)}, and counted here {_texts(counted.ledger.leaving)}"
            for what, was, now in (
                ("", record.total, counted.total),
                (" of the method", record.method, counted.method),
            ):
                if disagreement((was, now)) > TOLERANCE:
                    return f"{was:,} MACs{what}, and counted here {now:,}"
            return ""
        if not record.batches:
            return "the counts of its batches are missing"
        self.not_counted.setdefault(f"the method's own part of {row.id.method}", "it depends on the images")
        return next((wrong for batch in record.batches if (wrong := _wrong_batch(batch, model))), "")

    def _build(self, row: PlannedRow, cell: Cell) -> DownsampledViT:
        return build_model(
            cell, _model(row.id.model, self.results.plan.suite.img_size, _classes(self.results.plan, row))
        )


@lru_cache(maxsize=1)
def _model(name: str, img_size: int | None, classes: int | None) -> Pretrained:
    """A model with random weights, or an embedded one."""
    model = load_model(name, None if name in EMBEDDED_MODELS else RANDOM, img_size=img_size)
    if classes is not None:
        model.vit.reset_classifier(classes)
    return model


def _classes(plan: Plan, row: PlannedRow) -> int | None:
    """How many outputs the model's head has; None for its own."""
    found = CLASSES.search(plan.models.get(row.id.model, ""))
    return int(found[1]) if found else None


def _image(model: DownsampledViT) -> torch.Tensor:
    """(1, C, H, W) noise of the size that the model reads."""
    embed = model.vit.patch_embed
    shape = (1, embed.proj.in_channels, *embed.img_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _wrong_batch(batch: BatchCount, model: DownsampledViT) -> str:
    backbone = closed_form(model, _ledger(batch.ledger))
    if disagreement((batch.total - batch.method, backbone)) > TOLERANCE:
        return f"{batch.total - batch.method:,} MACs of the model in a batch, and the closed form gives {backbone:,}"
    return ""


def _ledger(counts: Mapping[str, Any]) -> Ledger:
    images = tuple(tuple(image) for image in counts["images"])
    return Ledger(tuple(counts["attention"]), tuple(counts["mlp"]), tuple(counts["leaving"]), images)


def _texts(tokens: tuple[int, ...]) -> str:
    return " ".join(map(str, tokens))
