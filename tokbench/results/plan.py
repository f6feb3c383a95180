"""`plan.json`: what a comparison measures, and what a reader needs to know of its methods and models."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tokbench.errors import UserError
from tokbench.names import FINE_TUNED, PLAIN
from tokbench.notation import split_parameters
from tokbench.outcomes import shards
from tokbench.rows import FIELDS, RowId
from tokbench.schedule_text import takes_keep
from tokbench.suite import Suite

PLAN = "plan.json"
SCHEMA = 4
READABLE = (2, 3, SCHEMA)
MOST_IMAGES = 2**26  # no image set has more; a damaged number could fill the memory with shards


@dataclass(frozen=True)
class PlannedRow:
    """A row of the table to come.

    Attributes:
        id: What identifies it.
        parameters: The method's parameters, all of them.
        attention_kernel: `fused`, `eager` or `fused+eager`.
        params_m: Millions of parameters of the model and the method.
        adaptive: Whether the number of tokens depends on the images.
        skipped: Why it is not measured; empty where it is.
        failed: Why the method cannot be put into the model; empty where it can.
        training: Of a fine-tuned row, a hash of how it was trained but for the method and the seed, empty where that is
            not known; None for the others.
        keys: The key of each wanted measurement, by kind.
        remarks: What a reader should know of the row besides what was measured.
    """

    id: RowId
    parameters: Mapping[str, Any] = field(default_factory=dict)
    attention_kernel: str = ""
    params_m: float | None = None
    adaptive: bool = False
    skipped: str = ""
    failed: str = ""
    training: str | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether this is the untouched model that the others are compared with."""
        return self.id.method == PLAIN and not self.id.params and self.id.regime != FINE_TUNED

    @property
    def matched_by(self) -> RowId:
        """What the same row of another directory has in common: not a budget's keep, which is what it was solved to."""
        given = not self.id.schedule or takes_keep(self.id.schedule)
        return self.id if given else self.id.without("keep")


@dataclass(frozen=True)
class ImagesInfo:
    """The image set.

    Attributes:
        name: As in `tokbench.data.sets`.
        count: How many images were asked for.
        identity: A hash of which they are.
        classes: How many classes an image may belong to.
        class_names: The names of classes other than ImageNet's, in the order of their indices.
    """

    name: str
    count: int
    identity: str = ""
    classes: int = 1000
    class_names: tuple[str, ...] = ()

    @property
    def own_classes(self) -> bool:
        """Whether the classes are not those of ImageNet-1k, of which the known sets may have a part."""
        return bool(self.class_names) or (self.classes != 1000 and not self.name.startswith("imagenet"))


@dataclass(frozen=True)
class PublishedNumber:
    """A number that a method's own class claims; see `tokbench.Claim`. `full_name` is the model's with its tag."""

    full_name: str
    model: str
    regime: str
    gmacs: float | None
    top1: float | None
    source: str
    schedule: str = ""
    keep: float | None = None
    params: str = ""


@dataclass(frozen=True)
class MethodInfo:
    """What a reader needs to know of a method whose file may be elsewhere.

    Attributes:
        defaults: The default of each parameter, as text; those without one are missing.
        paper: The title of its paper; empty without one.
        own: Whether it is a file of the user's own, so that a rerun needs --plugins.
        claims: Published numbers that its class brings along.
    """

    defaults: Mapping[str, str] = field(default_factory=dict)
    paper: str = ""
    own: bool = False
    claims: tuple[PublishedNumber, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What a comparison measures.

    Attributes:
        suite: The settings.
        device: `cpu` or `cuda`.
        images: The image set; None without data.
        rows: In the table's order.
        methods: By name; empty in directories of older versions.
        models: Each model's name with the tag of its weights, as timm has it; empty in those of older versions.
    """

    suite: Suite
    device: str
    images: ImagesInfo | None
    rows: tuple[PlannedRow, ...]
    methods: Mapping[str, MethodInfo] = field(default_factory=dict)
    models: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def plain(self) -> dict[tuple[str, int | None, str], PlannedRow]:
        """The plain model's rows, by model, batch size and mode."""
        return {(row.id.model, row.id.batch_size, row.id.mode): row for row in self.rows if row.is_plain}

    def plain_of(self, row: PlannedRow) -> PlannedRow | None:
        """The row of the model as it was before any training; None in a plan without it."""
        return self.plain.get((row.id.model, row.id.batch_size, row.id.mode))

    def reference_of(self, row: PlannedRow) -> PlannedRow | None:
        """The row that a row's accuracy is compared with; None in a plan without it.

        Of a method that was fine-tuned with its model, this is the plain model fine-tuned the same way, with the same
        seed if there are several. For all others, and without such a row, it is the plain model.
        """
        same = [
            one
            for one in self.rows
            if row.training
            and row.id.method != PLAIN
            and one.id.method == PLAIN
            and one.training == row.training
            and (one.id.model, one.id.batch_size, one.id.mode) == (row.id.model, row.id.batch_size, row.id.mode)
        ]
        return max(same, key=lambda one: one.id.seed == row.id.seed, default=self.plain_of(row))

    def before_training(self, row: PlannedRow) -> PlannedRow | None:
        """The row of a fine-tuned method before training: the same method, schedule and keep; None without."""
        if row.training is None:
            return None
        if row.id.method == PLAIN:
            return self.plain_of(row)
        wanted = row.id.without("regime", "seed")
        others = (one for one in self.rows if one.id.regime != FINE_TUNED)
        same = [one for one in others if one.id.without("regime", "seed") == wanted]
        return next((one for one in same if not one.skipped), None)

    @cached_property
    def shards(self) -> list[range]:
        """The positions of each shard of the images."""
        return shards(self.images.count, self.suite.accuracy_batch) if self.images else []

    def measurements(self) -> Iterable[tuple[str, str]]:
        """Kind and key of everything that is to be measured, each once."""
        return dict.fromkeys(place for row in self.rows if not row.failed for place in row.keys.items())


def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan as JSON."""
    written = _PLAN.dump_python(plan, mode="json", fallback=str)
    rows = [{**row.pop("id"), **row} for row in written.pop("rows")]
    return {"schema": SCHEMA, **written, "rows": rows}


def read_plan(directory: Path) -> Plan:
    """A directory's plan.

    Raises:
        UserError: The directory holds none, it is damaged, or another version of tokbench wrote it.
    """
    file = directory / PLAN
    if not file.is_file():
        raise UserError(
            f"no results in {directory}: it has no {PLAN}; create them with tokbench compare --out {directory}"
        )
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        schema = content.get("schema")
        if schema in READABLE:
            return _parse(content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{file} is damaged ({reason}): run the same tokbench compare again") from None
    raise _unknown_format(directory, schema)


def refuse_newer(directory: Path) -> None:
    """Leave results alone that a newer version of tokbench wrote.

    Raises:
        UserError: The directory holds such results.
    """
    try:
        schema = json.loads((directory / PLAN).read_text(encoding="utf-8"))["schema"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # there is no readable plan, so nothing newer
        return
    if isinstance(schema, int) and schema > SCHEMA:
        raise _unknown_format(directory, schema)


def _unknown_format(directory: Path, schema: object) -> UserError:
    return UserError(
        f"{directory} has results of format {schema}, this tokbench reads {READABLE[0]} to {SCHEMA}: "
        "choose another folder with --out DIR, or update tokbench"
    )


def _parse(content: dict[str, Any]) -> Plan:
    suite = content["suite"]
    known = {name: value for name, value in suite.items() if name in Suite.model_fields}
    known.setdefault("baselines", ["none"])  # before format 4 there were none
    rows = [_row(row, suite["dtype"]) for row in content["rows"]]
    others = {name: content[name] for name in ("methods", "models") if name in content}
    if content["images"] is not None and not 0 <= content["images"]["count"] <= MOST_IMAGES:
        raise ValueError(f"it has {content['images']['count']} images")
    return _PLAN.validate_python(
        {"suite": known, "device": content["device"], "images": content["images"], "rows": rows, **others}
    )


def _row(row: dict[str, Any], dtype: str) -> dict[str, Any]:
    """A row of the file, nested; format 2 had no dtype and no parameters in its rows."""
    row = {"dtype": dtype, "parameters": split_parameters(row["params"]), **row}
    return {"id": {name: row.pop(name) for name in FIELDS}, **{k: v for k, v in row.items() if k != "id"}}


_PLAN = TypeAdapter(Plan)
