"""What will be measured: the cells of a suite, each of which becomes one row of the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tokbench.config import Config, Suite
from tokbench.downsampler import Downsampler
from tokbench.errors import UserError, did_you_mean
from tokbench.names import FUSED, OFF_THE_SHELF, PLAIN, PUBLISHED, RANDOM, UNFUSED, Mode, Site
from tokbench.notation import parameters_text, parse_call, split_list
from tokbench.registry import bind_parameters, create
from tokbench.rows import RowId
from tokbench.schedule import Schedule, Stages, takes_keep
from tokbench.values import freeze

UNTRAINED = "needs fine-tuned weights; compare measures pretrained ones"


@dataclass(frozen=True)
class Variant:
    """A method as it is put into a model.

    Attributes:
        method: Its name, or `none` for the plain model.
        params: All of its parameters, by name, sorted, in a form that hashes.
        schedule: As the table shows it, without the keep.
        keep: The fraction that a reduction leaves, None where the schedule names counts.
        site: Where in a block it acts; empty for the plain model.
        stochastic: Whether it is measured over several seeds.
        adaptive: Whether the number of tokens depends on the images.
        regime: `off-the-shelf`, `calibrated` or `fine-tuned`.
        skipped: Why it is not measured; empty where it is.
    """

    method: str
    params: tuple[tuple[str, Any], ...] = ()
    schedule: str = ""
    keep: float | None = 1.0
    site: Site | str = ""
    stochastic: bool = False
    adaptive: bool = False
    regime: str = OFF_THE_SHELF
    skipped: str = ""

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
    """The cells of a suite: for each model the plain one, then method by method, from the largest keep to the smallest.

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
    variants = [Variant(PLAIN), *_variants(suite, config, known)]
    return tuple(
        Cell(model, variant, batch_size, mode, seed)
        for model in dict.fromkeys(suite.models)
        for variant in dict.fromkeys(variants)
        for batch_size in dict.fromkeys(suite.batch_size)
        for mode in dict.fromkeys(suite.mode)
        for seed in (dict.fromkeys(suite.seeds) if variant.stochastic else (None,))
    )


def _variants(suite: Suite, config: Config, known: Sequence[str]) -> Iterator[Variant]:
    for text in suite.methods:
        for written in known if text == "all" else split_list(text):
            call = parse_call(written)
            if call.positional:
                raise UserError(f"method '{written}': name its parameters, as in {call.name}(parameter=value)")
            if call.name == PLAIN:
                yield from _plain(written, call.named)
                continue
            params = bind_parameters(call.name, {**config.methods.get(call.name, {}), **call.named})
            method = create(call.name, **params)
            for keep in sorted(set(suite.keep), reverse=True):
                yield _variant(method, params, suite, keep)


def _plain(written: str, named: dict[str, Any]) -> Iterator[Variant]:
    """The plain model is always included; without fused attention only on request."""
    attention = named.get("attention", FUSED)
    if set(named) - {"attention"} or attention not in (FUSED, UNFUSED):
        raise UserError(f"method '{written}': the plain model is '{PLAIN}' or '{PLAIN}(attention={UNFUSED})'")
    if attention == UNFUSED:
        yield Variant(PLAIN, params=(("attention", UNFUSED),))


def _variant(method: Downsampler, params: dict[str, Any], suite: Suite, keep: float) -> Variant:
    text = (method.schedule or str(Stages(keep))) if suite.schedule == PUBLISHED else suite.schedule
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
        stochastic=method.stochastic,
        adaptive=method.adaptive,
        skipped=UNTRAINED if method.trained and suite.weights != RANDOM else "",
    )
