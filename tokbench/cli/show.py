"""`tokbench show`: which patches became which token."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokbench.cli.arguments import schedule_of, split
from tokbench.errors import UserError

if TYPE_CHECKING:
    from PIL import Image

    from tokbench.config import Config, Suite
    from tokbench.show.token_map import Sheet

MODEL = "deit_small_patch16_224"
METHODS = "token_pooling,tome,evit,grid_pooling,random_selection"
KEEP = "0.7"
SCHEDULE = "stages(at=3-6-9)"


def show(
    images: Annotated[list[Path], typer.Argument(help="Photographs.", metavar="IMAGE")],
    models: Annotated[str, typer.Option(help="timm's ViTs, or digits_deit.")] = MODEL,
    methods: Annotated[str, typer.Option(help="name or name(parameter=value,...); 'all' takes every one.")] = METHODS,
    keep: Annotated[
        str | None, typer.Option(help=f"Fractions of the patch tokens that a reduction leaves; default: {KEEP}.")
    ] = None,
    schedule: Annotated[
        str | None, typer.Option(help=f"Such as every_block(r=13), budget(0.7), published; default: {SCHEDULE}.")
    ] = None,
    at: Annotated[str | None, typer.Option(help="Depths: --at 3,6,9 is short for stages(at=3-6-9).")] = None,
    site: Annotated[str | None, typer.Option(help="before_block, after_attention or after_block.")] = None,
    weights: Annotated[str | None, typer.Option(help="A .safetensors or .pth for the model; else timm's hub.")] = None,
    seed: Annotated[int, typer.Option(help="Of the stochastic methods.")] = 0,
    plugins: Annotated[str | None, typer.Option(help="Files or folders with methods of your own.")] = None,
    config: Annotated[Path | None, typer.Option(help="A tokbench.toml; default: the current folder's.")] = None,
    out: Annotated[Path, typer.Option(help="The picture, a PNG.")] = Path("tokens.png"),
    as_json: Annotated[bool, typer.Option("--json", help="Print what is drawn as JSON and nothing else.")] = False,
) -> None:
    """Draw what methods make of photographs: patches of one token in their mean colour, dropped ones dark.

    Above them stand the likeliest classes, over each block's patches the number of its tokens. A soft method mixes all
    patches into each token; a patch is drawn in the one that it went into most. Lists are comma-separated.

    Example: tokbench show photo.jpg --methods token_pooling,tome --keep 0.5
    """
    from tokbench.comparison import plan_comparison
    from tokbench.config import load_config
    from tokbench.files import write_atomically
    from tokbench.schedule import takes_keep
    from tokbench.show.sheet import draw
    from tokbench.show.token_map import left_out, sheets

    if out.suffix.lower() != ".png":
        raise UserError(f"--out {out}: the picture is a PNG, so give it a name that ends in .png")
    if not out.parent.is_dir():
        raise UserError(f"there is no folder {out.parent}: make it, or choose another file with --out FILE")
    photographs = [(path.name, _opened(path)) for path in images]
    chosen = schedule_of(schedule, at) or SCHEDULE
    if keep is not None and not takes_keep(chosen):
        raise UserError(f"schedule '{chosen}' says itself how much stays: leave --keep out")
    settings = load_config(config)
    suite = _suite(
        settings,
        models=split(models),
        methods=split(methods),
        keep=split(keep or KEEP),
        schedule=chosen,
        site=site,
        weights=weights,
        seeds=[seed],
    )
    comparison = plan_comparison(suite, settings, [Path(path) for path in split(plugins) or ()])
    for one in comparison.broken:
        typer.echo(f"tokbench: broken plugin {one.source}: {one.reason}", err=True)
    prepared = comparison.prepared
    for row in prepared.rows:
        if reason := left_out(row):
            typer.echo(f"tokbench: {row.cell.variant.method} in {row.cell.model} is left out: {reason}", err=True)
    drawn, failures = sheets(prepared, photographs, seed)
    for failure in failures:
        typer.echo(f"tokbench: {failure}", err=True)
    picture = draw(drawn)
    try:
        write_atomically(out, lambda path: picture.save(path, format="PNG", optimize=True))
    except OSError as error:
        raise UserError(f"cannot write {out} ({error.strerror}): choose another file with --out FILE") from None
    typer.echo(json.dumps([line for sheet in drawn for line in _told(sheet)], indent=2) if as_json else str(out))
    if failures or any(row.failed for row in prepared.rows):
        raise typer.Exit(1)


def _suite(settings: Config, **asked: Any) -> Suite:
    """What to draw as a suite: one image at a time on the CPU, nothing measured."""
    looked_at = {"data": None, "device": "cpu", "batch_size": [1], "mode": ["eager"], "only": ["macs"]}
    return settings.suite(settings.default_suite, {**looked_at, **asked})


def _opened(path: Path) -> Image.Image:
    """A photograph, upright."""
    from PIL import ImageOps, UnidentifiedImageError

    from tokbench.data.readers import decode

    if not path.is_file():
        raise UserError(f"there is no image {path}: name photographs, as in tokbench show photo.jpg")
    try:
        return ImageOps.exif_transpose(decode(path))
    except UnidentifiedImageError:
        raise UserError(f"{path} is no image: give a photograph, such as a .jpg or .png") from None
    # Decoders raise nearly everything on a damaged file.
    except Exception as error:
        raise UserError(f"{path} cannot be read ({error or type(error).__name__}): give another photograph") from None


def _told(sheet: Sheet) -> list[dict[str, Any]]:
    """What a sheet shows, as JSON takes it."""
    return [
        {
            "image": sheet.image,
            "model": sheet.model,
            "method": " ".join(one.caption),
            "tokens_per_block": " ".join(str(block.count) for block in one.blocks),
            "classes": [
                {"index": guess.index, "name": guess.name, "probability": guess.probability} for guess in one.guesses
            ],
        }
        for one in (sheet.plain, *sheet.maps)
    ]
