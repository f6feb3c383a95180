"""Recipes: how a model is fine-tuned together with a method, or by itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from tokbench.errors import UserError, did_you_mean
from tokbench.notation import first_problem, shortened
from tokbench.user_files import expanded, parse_toml, read_toml

_FOLDER = Path(__file__).with_name("recipes")

RECIPES = ("haurum", "evit", "dynamicvit", "tps", "short", "digits")
"""The names of the recipes that come with tokbench; the default first."""

Amp = Literal["none", "bf16", "fp16"]
Result = Literal["last", "average", "better"]

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Part = Annotated[float, Field(ge=0, lt=1)]
Pair = tuple[Positive, Positive]


class Recipe(BaseModel):
    """How a model is fine-tuned. Learning rates are those of an optimiser step; epochs count from 0.

    Attributes:
        name: The recipe's name, or the stem of its file.
        source: Where its numbers are from, as a sentence.
        epochs: How often all images are seen.
        batch: Images of an optimiser step, over all processes.
        accumulate: In how many parts a process computes its share of a batch; more parts need less memory.
        optimizer: Its name in timm.
        lr: The peak of the learning rate.
        lr_batch: The batch that `lr` is for: with others it is scaled in proportion. None uses `lr` as it is.
        min_lr: The learning rate at the end of the cosine.
        warm_up_epochs: Epochs in which the learning rate rises linearly. They are part of `epochs`.
        warm_up_lr: Where it starts.
        weight_decay: Of matrices; biases, norms and position embeddings have none.
        layer_decay: The factor of the learning rate from a block to the one before; None for the same in all.
        backbone_scale: The factor of the model's own learning rates.
        method_scale: The factor of the learning rate of the method's weights.
        frozen_epochs: Epochs at the beginning, or `all`, in which only the method's weights are trained. A number has
            no effect on a method without weights of its own; with `all`, such methods and the plain model are left out.
        frozen: Patterns of names of the model's weights that are never trained, as in `pos_embed` or `blocks.0.*`.
        clip: The largest norm of the gradient; None does not clip.
        amp: Mixed precision on a GPU: `none`, `bf16` or `fp16`. A CPU computes in float32.
        average: The decay of the exponential moving average of the weights, per step; None for no average.
        result: Which weights are kept: the `last`, their `average`, or the `better` of both on the validation images.
        smoothing: Label smoothing.
        mixup: The parameter alpha of Mixup; 0 for none.
        cutmix: The parameter alpha of CutMix; 0 for none.
        mix: The probability that a batch is mixed.
        cut: The probability that it is by CutMix, where both are used.
        auto_augment: The policy in timm's notation, as in `rand-m9-mstd0.5-inc1`; empty for none.
        color_jitter: Where there is no policy.
        scale: The smallest and largest area of a crop.
        ratio: The smallest and largest aspect ratio of a crop.
        flip: The probability of a horizontal flip.
        interpolation: Of crops; `random` for one of two.
        erase: The probability of random erasing.
        repeats: How many differently augmented copies of an image follow each other; an epoch has as many images as
            without, so that it shows only some of them.
        drop_path: The rate of stochastic depth at the last block; it rises linearly from 0.
        classify: The weight of the cross entropy with the labels.
        distill: The weight of the Kullback-Leibler divergence from the teacher's answers; the teacher is the plain
            model before training.
        distill_tokens: The weight of the squared distance from the teacher's final tokens.
        keep_warm_up: The keep stays 1 before the first of these epochs, and reaches the schedule's by a half cosine at
            the second. None trains with the schedule's from the beginning.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    name: str
    source: str
    epochs: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1)]
    accumulate: Annotated[int, Field(ge=1)] = 1
    optimizer: str = "adamw"
    lr: Positive
    lr_batch: Annotated[int, Field(ge=1)] | None = None
    min_lr: NotNegative = 0.0
    warm_up_epochs: NotNegative = 0.0
    warm_up_lr: NotNegative = 0.0
    weight_decay: NotNegative = 0.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    backbone_scale: NotNegative = 1.0
    method_scale: NotNegative = 1.0
    frozen_epochs: Annotated[int, Field(ge=0)] | Literal["all"] = 0
    frozen: tuple[str, ...] = ()
    clip: Positive | None = None
    amp: Amp = "none"
    average: Annotated[float, Field(gt=0, lt=1)] | None = None
    result: Result = "last"
    smoothing: Part = 0.0
    mixup: NotNegative = 0.0
    cutmix: NotNegative = 0.0
    mix: Fraction = 1.0
    cut: Fraction = 0.5
    auto_augment: str = ""
    color_jitter: NotNegative = 0.0
    scale: Pair = (0.08, 1.0)
    ratio: Pair = (3 / 4, 4 / 3)
    flip: Fraction = 0.5
    interpolation: Literal["bicubic", "bilinear", "random"] = "bicubic"
    erase: Fraction = 0.0
    repeats: Annotated[int, Field(ge=1)] = 1
    drop_path: Part = 0.0
    classify: NotNegative = 1.0
    distill: NotNegative = 0.0
    distill_tokens: NotNegative = 0.0
    keep_warm_up: tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]] | None = None

    @pydantic.model_validator(mode="before")
    @classmethod
    def _without(cls, fields: Any) -> Any:
        """TOML has no null: `none` stands for it in the fields that may be None."""
        if not isinstance(fields, Mapping):
            return fields
        optional = {name for name, field in cls.model_fields.items() if field.default is None}
        return {name: None if name in optional and value == "none" else value for name, value in fields.items()}

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.result != "last" and self.average is None:
            raise ValueError(f"result '{self.result}' needs an average: set average to its decay, as in 0.9999")
        if self.warm_up_epochs >= self.epochs:
            raise ValueError(f"{self.warm_up_epochs:g} of {self.epochs} epochs are warm-up: leave some after it")
        if self.keep_warm_up is not None and not self.keep_warm_up[0] < self.keep_warm_up[1] <= self.epochs:
            raise ValueError(f"keep_warm_up must be two rising epochs up to {self.epochs}, the last one")
        return self

    @property
    def mixes(self) -> bool:
        """Whether pairs of images are mixed."""
        return self.mix > 0 and (self.mixup > 0 or self.cutmix > 0)

    @property
    def distills(self) -> bool:
        """Whether there is a teacher."""
        return self.distill > 0 or self.distill_tokens > 0

    @property
    def peak_lr(self) -> float:
        """The peak of the learning rate with this batch."""
        return self.lr if self.lr_batch is None else self.lr * self.batch / self.lr_batch


def load_recipe(name: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Read a recipe.

    Args:
        name: One of `RECIPES`, or the path of a TOML file with the fields of a `Recipe`. It may name a recipe as
            `base`, from which it takes the fields that it does not set.
        overrides: Values of fields in place of the recipe's, as TOML or a command line has them. With other
            `epochs`, those of warm-up and with a frozen backbone change in proportion, unless they are given too.

    Raises:
        UserError: There is no such recipe, or a field is wrong.
    """
    recipe, given = _checked(_fields(name), name), dict(overrides or {})
    phases = _phases(recipe, given["epochs"] / recipe.epochs) if isinstance(given.get("epochs"), int) else {}
    return _checked({**recipe.model_dump(), **phases, **given}, name)


def _phases(recipe: Recipe, ratio: float) -> dict[str, Any]:
    """What counts epochs in a recipe, for so many times its epochs."""
    found: dict[str, Any] = {"warm_up_epochs": recipe.warm_up_epochs * ratio}
    if recipe.frozen_epochs != "all":
        found["frozen_epochs"] = round(recipe.frozen_epochs * ratio)
    if recipe.keep_warm_up is not None:
        begin, end = (round(epoch * ratio) for epoch in recipe.keep_warm_up)
        end = min(max(end, 1), round(recipe.epochs * ratio))
        found["keep_warm_up"] = (min(begin, end - 1), end)
    return found


def _checked(fields: Mapping[str, Any], name: str) -> Recipe:
    try:
        return Recipe.model_validate(fields)
    except pydantic.ValidationError as error:
        raise UserError(_described(error, name)) from None


def _fields(name: str) -> dict[str, Any]:
    """What a recipe's file says, with what it takes from its base."""
    if name in RECIPES:
        file = _FOLDER / f"{name}.toml"
        fields = parse_toml(file.read_bytes(), str(file))
    elif name.endswith(".toml"):
        file = expanded(name)
        fields = read_toml(file)
        fields.setdefault("source", f"{file.name}, a file of the user")
    else:
        raise UserError(
            f"unknown recipe '{shortened(name)}': {did_you_mean(name, list(RECIPES))}, or give the path of a .toml file"
        )
    base = fields.pop("base", None)
    if base is None:
        return {"name": file.stem, **fields}
    if base not in RECIPES:
        raise UserError(f"{name}: base must be one of {', '.join(RECIPES)}, got {shortened(repr(base))}")
    return {**_fields(base), "name": file.stem, **fields}


def _described(error: pydantic.ValidationError, name: str) -> str:
    problem = error.errors()[0]
    if problem["type"] == "extra_forbidden":
        field = str(problem["loc"][0])
        known = did_you_mean(field, list(Recipe.model_fields))
        return f"recipe '{shortened(name)}' has no field '{shortened(field)}': {known}"
    return f"recipe '{shortened(name)}': {first_problem(error).removeprefix(': ')}"
