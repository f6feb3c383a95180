"""The functions that Python code calls: what the commands do, without the command line."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from tokbench.comparison import carry_out, plan_comparison, unwatched
from tokbench.config import load_config
from tokbench.downsampler import Downsampler
from tokbench.errors import UserError
from tokbench.measure.budget import solve_budget
from tokbench.names import POSITIONS, PUBLISHED, Position, Site
from tokbench.observers import watch_in_place
from tokbench.registry import make
from tokbench.run.fine_tuned import choose_checkpoints
from tokbench.schedule import Budget, Schedule
from tokbench.schedule_text import takes_keep
from tokbench.suite import as_lists
from tokbench.vit.adapters import TimmViT
from tokbench.vit.backbone import DownsampledViT
from tokbench.vit.supported import check_supported

DEFAULT_KEEP = 0.7
DEFAULT_SCHEDULE = "stages"


def reduce(
    vit: TimmViT,
    method: str | Downsampler,
    keep: float | None = DEFAULT_KEEP,
    *,
    schedule: str | Schedule | None = None,
    site: Site | None = None,
    position: Position = POSITIONS[0],
    seed: int = 0,
    **params: Any,
) -> DownsampledViT:
    """Put a token-reduction method into a timm ViT.

    The result is an `nn.Module` from images to logits, to be used, trained, compiled or saved like any other. It
    shares its parameters with `vit`: training one trains the other, so pass `copy.deepcopy(vit)` to keep the original
    as it is. It is in the mode (training or evaluation) that `vit` is in.

    Some methods (`tokbench list methods` says which) mean nothing before they are trained: their own weights are
    random here. Train the result, or load a state dict that was saved after training.

    Args:
        vit: A timm ViT (`VisionTransformer` or `Eva`), such as `deit_small_patch16_224`.
        method: A name, as in "tome"; a name with parameters, as in "token_pooling(algorithm=kmeans)"; or a
            Downsampler, of which the result becomes the owner: its weights are initialised again for this model.
        keep: The fraction of the patch tokens that each reduction leaves, in (0, 1]. Ignored (or None) where the
            schedule fixes the token counts.
        schedule: When the method acts: "stages(at=3-6-9)", the default; "every_block"; "every_block(r=13)";
            "explicit(counts=...)"; "budget(0.7)", for which the keep is solved by counting MACs (see
            `solve_budget`); "published" for the method's own; or a Schedule.
        site: Where in a block the method acts: "before_block", "after_attention" or "after_block". None takes the
            method's own site.
        position: In a model with rotary positions, where merged tokens are: "mean", the mean coordinate of their
            patches; "destination", the place of the largest member; "rotation", the mean of the members' rotations;
            "none", not rotated. Tokens of a single patch keep their own position.
        seed: Seed of a stochastic method's choices.
        **params: The method's parameters, where `method` is a name.

    Returns:
        The model with the method in it; `counts` holds the patch tokens left after each reduction, `schedule.keep`
        the keep.

    Raises:
        UnsupportedModelError: `vit` is not a ViT of the supported kind; a UserError.
        UserError: Method, parameters, keep, schedule, site and model do not fit together.

    Example:
        >>> vit = timm.create_model("deit_small_patch16_224", pretrained=True)
        >>> model = tokbench.reduce(vit, "tome", keep=0.5)
        >>> logits = model(images)
    """
    check_supported(vit)
    downsampler = make(method, params)
    chosen = _schedule(downsampler, keep, schedule)
    if isinstance(chosen, Budget) and chosen.keep is None:
        chosen = replace(chosen, keep=solve_budget(vit, downsampler, chosen.fraction, at=chosen.at, site=site))
    return DownsampledViT(vit, downsampler, chosen, site=site, position=position, seed=seed)


def _schedule(method: Downsampler, keep: float | None, schedule: str | Schedule | None) -> Schedule:
    if schedule == PUBLISHED:
        schedule = method.schedule
    if schedule is None:
        schedule = DEFAULT_SCHEDULE
    if isinstance(schedule, str):
        if takes_keep(schedule):
            return Schedule.parse(schedule, keep)
        schedule = Schedule.parse(schedule)
    if not isinstance(schedule, Schedule):
        raise UserError(f"a schedule is a text, as in 'stages(at=3-6-9)', or a Schedule; got {schedule!r}")
    if keep not in (None, DEFAULT_KEEP, schedule.keep):  # the default may not be the caller's choice
        raise UserError(f"schedule '{schedule}' already fixes the token counts; drop keep={keep}")
    return schedule


def compare(
    suite: str | None = None,
    *,
    out: Path | str | None = None,
    plugins: Sequence[Path | str] = (),
    config: Path | str | None = None,
    fresh: bool = False,
    retry: bool = False,
    progress: bool = True,
    **settings: Any,
) -> pd.DataFrame:
    """Measure compute, time and accuracy of methods in models: `tokbench compare` from Python.

    What was measured before in the same directory under the same conditions is not measured again.

    Args:
        suite: A suite of `tokbench.toml`; None takes the default one, which needs no data.
        out: The results directory; None takes `results/<suite>`. `tokbench.load` opens it.
        plugins: Files or folders with methods of your own.
        config: A `tokbench.toml`; None takes the current folder's, where there is one.
        fresh: Measure everything again; the records of before are moved aside.
        retry: Also measure what has ended a process before.
        progress: Show progress on a terminal or in a notebook.
        **settings: Settings that replace the suite's, under the names of `tokbench.suite.Suite`: `models`, `methods`,
            `keep`, `schedule`, `data`, `weights`, `device`, `only` and so on. Lists may be given as a single value.

    Returns:
        The table: one row per model, method, keep and seed; its columns are those of `tokbench.results.COLUMNS`.

    Raises:
        UserError: A setting is wrong, or models, data or the directory cannot be used.

    Example:
        >>> table = tokbench.compare(methods=["tome", "random_selection"], keep=[0.7, 0.5])
    """
    settings_file = load_config(None if config is None else Path(config))
    name = suite or settings_file.default_suite
    chosen = choose_checkpoints(settings_file.suite(name, as_lists(settings)), settings)
    own = [*settings_file.plugin_paths, *map(Path, plugins)]
    directory = Path("results") / name if out is None else Path(out)
    comparison = plan_comparison(chosen, settings_file, own, directory)
    finished = carry_out(
        comparison,
        directory,
        fresh=fresh,
        retry=retry,
        watch=watch_in_place() if progress else unwatched,
    )
    for one in comparison.broken:
        warnings.warn(f"broken plugin {one.source}: {one.reason}", stacklevel=2)
    for text in finished.warnings:
        warnings.warn(text, stacklevel=2)
    return finished.results.table
