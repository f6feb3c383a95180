"""What will be measured: the cells of a suite, each of which becomes one row of the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from tokbench.config import Config
from tokbench.downsampler import Downsampler
from tokbench.errors import UserError, did_you_mean
from tokbench.guard import Surroundings, check_unchanged
from tokbench.names import (
    ALL,
    CALIBRATED,
    EMBEDDED,
    FUSED,
    IMG_SIZE,
    OFF_THE_SHELF,
    PLAIN,
    POSITIONS,
    PUBLISHED,
    RANDOM,
    UNFUSED,
    Mode,
    Position,
    Site,
)
from tokbench.notation import parameters_text, parse_call, split_list
from tokbench.registry import bind_parameters, create
from tokbench.rows import RowId
from tokbench.run.contain import MethodFailedError, contained, is_built_in
from tokbench.run.method_info import method_info
from tokbench.schedule import Budget, Schedule, Searched, Stages
from tokbench.schedule_text import takes_keep
from tokbench.suite import Suite
from tokbench.values import freeze
from tokbench.vit.variants import smaller_sizes

UNTRAINED = "needs fine-tuned weights; compare measures pretrained ones"
UNCALIBRATED = "needs images to calibrate on: name them with --calibration, or let compare --set-apart 0.2 take a part"
IGNORES_KEEP = "the keep has no effect: this method decides itself how many tokens stay"
NO_BUDGET = "this method decides itself how many tokens stay, so that it meets no budget: use stages or every_block"


@dataclass(frozen=True)
class Variant:
    """A method as it is put into a model.

    Attributes:
        method: Its name, or `none` for the plain model.
        params: All of its parameters, by name, sorted, in a form that hashes.
        schedule: As the table shows it, without the keep.
        keep: The fraction that a reduction leaves, None where the schedule names counts.
        site: Where in a block it acts; empty for the plain model.
        position: In models with rotary positions, where its merged tokens are.
        stochastic: Whether it is measured over several seeds.
        adaptive: Whether the number of tokens depends on the images.
        regime: `off-the-shelf`, `calibrated` or `fine-tuned`.
        constants: The state of a calibrated method as the content of a `.safetensors` file; empty before calibration.
        found: The schedule that a search has found, as text; empty before it, and where the schedule is not searched.
        remarks: What a reader should know of it.
        skipped: Why it is not measured; empty where it is.
        failed: Why the method cannot be created; empty where it can.
    """

    method: str
    params: tuple[tuple[str, Any], ...] = ()
    schedule: str = ""
    keep: float | None = 1.0
    site: Site | str = ""
    position: Position = POSITIONS[0]
    stochastic: bool = False
    adaptive: bool = False
    regime: str = OFF_THE_SHELF
    constants: bytes = field(default=b"", repr=False)
    found: str = ""
    remarks: tuple[str, ...] = ()
    skipped: str = ""
    failed: str = ""

    @property
    def unfused(self) -> bool:
        """Whether this is the plain model without fused attention."""
        return self.method == PLAIN and "attention" in dict(self.params)

    @property
    def img_size(self) -> int | None:
        """Height and width of the images in pixels, where this is the plain model with fewer of them."""
        return dict(self.params).get(IMG_SIZE) if self.method == PLAIN else None

    @property
    def params_text(self) -> str:
        """`algorithm=kmeans,weighted=true`."""
        return parameters_text(dict(self.params))


@dataclass(frozen=True)
class Cell:
    """One row of the table.

    Attributes:
        model: The model's name.
        variant: The method in it.
        batch_size: Images per timed batch.
        mode: How the timed model runs.
        seed: Of a stochastic method, else None.
    """

    model: str
    variant: Variant
    batch_size: int
    mode: Mode
    seed: int | None

    def __str__(self) -> str:
        """`tome(r=13) at keep 0.7, seed 1, in deit_tiny_patch16_224`."""
        variant = self.variant
        method = f"{variant.method}({variant.params_text})" if variant.params else variant.method
        keep = "" if variant.keep is None or variant.method == PLAIN else f" at keep {variant.keep:g}"
        seed = "" if self.seed is None else f", seed {self.seed},"
        return f"{method}{keep}{seed} in {self.model}"

    def row_id(self, dtype: str) -> RowId:
        """What identifies its row."""
        variant = self.variant
        return RowId(
            model=self.model,
            method=variant.method,
            params=variant.params_text,
            regime=variant.regime,
            site=variant.site,
            schedule=variant.schedule,
            keep=variant.keep,
            seed=self.seed,
            dtype=dtype,
            batch_size=self.batch_size,
            mode=self.mode,
        )


def cells_of(suite: Suite, config: Config, known: Sequence[str], *, broken: bool = False) -> tuple[Cell, ...]:
    """The cells of a suite: for each model the plain one, its baselines, then method by method, schedule by schedule.

    The keeps of a schedule that takes them go from the largest to the smallest.

    Args:
        suite: What to compare.
        config: Holds the methods' default parameters.
        known: All registered methods, for the suite's `all`.
        broken: Whether plugins failed to import, so that an unknown method may be one of theirs.

    Raises:
        UserError: A method, parameter, schedule or keep is wrong.
    """
    unknown = min(set(config.methods) - set(known), default=None)
    if unknown is not None and not broken:
        raise UserError(f"tokbench.toml: [methods.{unknown}]: unknown method: {did_you_mean(unknown, list(known))}")
    variants = list(_variants(suite, config, known))
    return tuple(
        Cell(model, variant, batch_size, mode, seed)
        for model in dict.fromkeys(suite.models)
        for variant in dict.fromkeys([Variant(PLAIN), *_baselines(suite, model), *variants])
        for batch_size in dict.fromkeys(suite.batch_size)
        for mode in dict.fromkeys(suite.mode)
        for seed in (dict.fromkeys(suite.seeds) if variant.stochastic else (None,))
    )


def _baselines(suite: Suite, model: str) -> Iterator[Variant]:
    """The plain model with fewer pixels, from the largest images to the smallest."""
    sizes = {size for size in suite.baselines if isinstance(size, int)}
    if "auto" in suite.baselines:
        sizes.update(smaller_sizes(model, suite.img_size))
    yield from (Variant(PLAIN, params=((IMG_SIZE, size),)) for size in sorted(sizes, reverse=True))


def _variants(suite: Suite, config: Config, known: Sequence[str]) -> Iterator[Variant]:
    surroundings = Surroundings() if any(not is_built_in(name) for name in known) else None
    for text in suite.methods:
        for written in known if text == ALL else split_list(text):
            call = parse_call(written)
            if call.positional:
                raise UserError(f"method '{written}': name its parameters, as in {call.name}(parameter=value)")
            if call.name == PLAIN:
                yield from _plain(written, call.named)
                continue
            given = {**config.methods.get(call.name, {}), **call.named}
            try:
                check = None if surroundings is None else partial(check_unchanged, surroundings)
                yield from contained(f"creating {written}", partial(_settings, call.name, given, suite), check)
            except MethodFailedError as error:
                # What is wrong with one of all methods must not stop the others.
                if isinstance(error.error, UserError) and text != ALL:
                    said = str(error.error)
                    raise UserError(said if call.name in said else f"method '{call.name}': {said}") from None
                yield from (Variant(call.name, schedule=s, keep=None, failed=str(error)) for s in suite.schedule)


def _settings(name: str, given: dict[str, Any], suite: Suite) -> list[Variant]:
    """A method with each schedule of the suite and each keep, from the largest to the smallest.

    Where a schedule takes no keep, these are equal.
    """
    params = bind_parameters(name, given)
    method = create(name, **params)
    method_info(type(method))  # so that what is wrong with its class fails here
    keeps = sorted(set(suite.keep), reverse=True)
    if method.ignores_keep:
        keeps = keeps[-1:]  # with 1, the method would not be called
    return [_variant(method, params, suite, schedule, keep) for schedule in suite.schedule for keep in keeps]


def _plain(written: str, named: dict[str, Any]) -> Iterator[Variant]:
    """The plain model is always included; without fused attention, or with other sizes of images, on request."""
    attention, size = named.get("attention", FUSED), named.get(IMG_SIZE)
    if len(named) > 1 or set(named) - {"attention", IMG_SIZE} or attention not in (FUSED, UNFUSED):
        raise UserError(
            f"method '{written}': the plain model is '{PLAIN}', '{PLAIN}({IMG_SIZE}=192)' or "
            f"'{PLAIN}(attention={UNFUSED})'"
        )
    if size is not None:
        if type(size) is not int or size < 1:
            raise UserError(f"method '{written}': {IMG_SIZE} is the height of the images in pixels, as in 192")
        yield Variant(PLAIN, params=((IMG_SIZE, size),))
    elif attention == UNFUSED:
        yield Variant(PLAIN, params=(("attention", UNFUSED),))


def _variant(method: Downsampler, params: dict[str, Any], suite: Suite, written: str, keep: float) -> Variant:
    text = (method.schedule or str(Stages(keep))) if written == PUBLISHED else written
    site = suite.site or method.site
    if site not in method.sites:
        raise UserError(f"method '{method.name}' cannot act {site}; its sites are {', '.join(method.sites)}")
    schedule = Schedule.parse(text, keep if takes_keep(text) else None)
    return Variant(
        method=method.name,
        params=tuple((name, freeze(params[name])) for name in sorted(params)),
        schedule=str(schedule),
        keep=schedule.keep,
        site=site,
        position=suite.position,
        stochastic=method.stochastic,
        adaptive=method.adaptive,
        regime=CALIBRATED if method.calibrated else OFF_THE_SHELF,
        remarks=(IGNORES_KEEP,) if method.ignores_keep else (),
        skipped=_unmet(method, schedule, suite),
    )


def _unmet(method: Downsampler, schedule: Schedule, suite: Suite) -> str:
    """What a method needs that the suite does not give; empty if that is nothing."""
    if method.trained and suite.weights != (RANDOM,):
        return UNTRAINED
    if method.calibrated and suite.calibration is None and suite.set_apart is None and suite.data != EMBEDDED:
        return UNCALIBRATED
    if method.ignores_keep and isinstance(schedule, Budget | Searched):
        return NO_BUDGET
    return ""
