"""What will be measured: the cells of a suite, each of which becomes one row of the table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
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
    PUBLISHED,
    RANDOM,
    UNFUSED,
    Mode,
)
from tokbench.notation import parse_call, split_list
from tokbench.registry import bind_parameters, create
from tokbench.rows import RowId
from tokbench.run.contain import MethodFailedError, contained, is_built_in
from tokbench.run.fine_tuned import fine_tuned_of
from tokbench.run.method_info import method_info
from tokbench.run.variant import Variant
from tokbench.schedule import Budget, Schedule, Searched, Stages
from tokbench.schedule_text import takes_keep
from tokbench.suite import Suite
from tokbench.values import freeze
from tokbench.vit.variants import smaller_sizes

UNTRAINED = "needs fine-tuned weights: train them with tokbench finetune, and name the folder with --checkpoint"
UNCALIBRATED = "needs images to calibrate on: name them with --calibration, or let compare --set-apart 0.2 take a part"
IGNORES_KEEP = "the keep has no effect: this method decides itself how many tokens stay"
NO_BUDGET = "this method decides itself how many tokens stay, so that it meets no budget: use stages or every_block"


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
    trained = fine_tuned_of(suite.checkpoint, suite.models) if suite.checkpoint else []
    return tuple(
        Cell(model, variant, batch_size, mode, seed)
        for model in dict.fromkeys(suite.models)
        for variant in _of_model(model, variants, [one.variant for one in trained if one.model == model], suite)
        for batch_size in dict.fromkeys(suite.batch_size)
        for mode in dict.fromkeys(suite.mode)
        for seed in _seeds(variant, suite)
    )


def _of_model(model: str, variants: Sequence[Variant], trained: Sequence[Variant], suite: Suite) -> Iterable[Variant]:
    """What is put into a model, each once: nothing, the methods as they are, and those that were fine-tuned with it.

    A method that needs training is no longer skipped where a checkpoint of it is compared.
    """
    own = any(one.fine_tuned and one.fine_tuned.own_model for one in trained)
    methods = {one.method for one in trained}
    untrained = [] if own else [one for one in variants if not (one.skipped == UNTRAINED and one.method in methods)]
    return dict.fromkeys([Variant(PLAIN), *_baselines(suite, model, own=own), *untrained, *trained])


def _seeds(variant: Variant, suite: Suite) -> Iterable[int | None]:
    """The seeds of a variant's rows: of a fine-tuned one that of its training, if it is known."""
    if variant.fine_tuned is not None and variant.fine_tuned.seed is not None:
        return (variant.fine_tuned.seed,)
    return dict.fromkeys(suite.seeds) if variant.stochastic else (None,)


def _baselines(suite: Suite, model: str, *, own: bool) -> Iterator[Variant]:
    """The plain model with fewer pixels, from the largest images to the smallest; a checkpoint's own model has none."""
    sizes = {size for size in suite.baselines if isinstance(size, int)}
    if "auto" in suite.baselines and not own:
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
    if isinstance(size, str) and size.isdecimal():
        size = int(size)
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
