"""`tokbench show`: draw which patches become which token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokbench.cli.options import (
    AsJson,
    ConfigFile,
    PluginList,
    Settings,
    parse_settings,
    plugin_paths,
    resolve_suite,
    suite_options,
)
from tokbench.cli.output import check_ending, print_json, warn, warn_broken, writing
from tokbench.errors import UserError
from tokbench.names import POSITIONS

if TYPE_CHECKING:
    from PIL import Image

    from tokbench.show.token_map import Sheet

DEFAULTS = {
    "models": "deit_small_patch16_224",
    "methods": "token_pooling,tome,evit,grid_pooling,random_selection",
    "keep": "0.7",
    "schedule": "stages(at=3-6-9)",
}
# One image at a time on the CPU, nothing timed; these replace the default suite's own settings.
MEASURE_NOTHING = {
    "data": None,
    "calibration": None,
    "set_apart": None,
    "baselines": ["none"],
    "device": "cpu",
    "batch_size": [1],
    "mode": ["eager"],
    "only": ["macs"],
    "site": None,
    "position": POSITIONS[0],
    "weights": None,
    "no_ema": False,
    "img_size": None,
}


@suite_options(
    *("models", "methods", "keep", "schedule", "site", "position", "weights", "no_ema", "img_size"),
    *("calibration", "calibration_limit"),
    defaults=DEFAULTS,
)
def show(
    *,
    images: Annotated[list[Path], typer.Argument(help="Photographs.", metavar="IMAGE")],
    settings: Settings,
    seed: Annotated[int, typer.Option(metavar="INT", help="Seed for stochastic methods.")] = 0,
    plugins: PluginList = None,
    config: ConfigFile = None,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The PNG to write.")] = Path("tokens.png"),
    as_json: AsJson = False,
) -> None:
    """Draw which patches of a photograph become which token.

    Patches in one token are drawn in their mean colour, dropped patches dark. The most likely classes are above the
    patches, and each block shows its number of tokens. A soft method mixes all patches into each token; a patch is then
    drawn in the token with its largest weight. Lists are comma-separated.

    Example: tokbench show photo.jpg --methods token_pooling,tome --keep 0.5
    """
    from tokbench.comparison import plan_comparison
    from tokbench.config import load_config
    from tokbench.files import write_atomically
    from tokbench.schedule_text import refuse_searches
    from tokbench.show.sheet import draw
    from tokbench.show.token_map import left_out, sheets

    check_ending(out, (".png",))
    if not out.parent.is_dir():
        raise UserError(f"there is no folder {out.parent}: make it, or choose another file with --out FILE")
    photographs = [(path.name, _open_image(path)) for path in images]
    loaded = load_config(config)
    suite = resolve_suite(loaded, None, settings, base={**MEASURE_NOTHING, **parse_settings(DEFAULTS), "seeds": [seed]})
    refuse_searches(suite.schedule)
    comparison = plan_comparison(suite, loaded, plugin_paths(loaded, plugins))
    warn_broken(comparison.broken)
    prepared = comparison.prepared
    for row in prepared.rows:
        if reason := left_out(row):
            warn(f"{row.cell.variant.method} in {row.cell.model} is left out: {reason}")
    drawn, failures = sheets(prepared, photographs, seed)
    for failure in failures:
        warn(failure)
    picture = draw(drawn)
    with writing(out):
        write_atomically(out, lambda path: picture.save(path, format="PNG", optimize=True))
    if as_json:
        print_json([entry for sheet in drawn for entry in _sheet_json(sheet)])
    else:
        typer.echo(str(out))
    if failures or any(row.failed for row in prepared.rows):
        raise typer.Exit(1)


def _open_image(path: Path) -> Image.Image:
    """Open a photograph, rotated as its EXIF data say."""
    from PIL import ImageOps, UnidentifiedImageError

    from tokbench.data.readers import decode

    if not path.is_file():
        raise UserError(f"there is no image {path}: give photographs, as in tokbench show photo.jpg")
    try:
        return ImageOps.exif_transpose(decode(path))
    except UnidentifiedImageError:
        raise UserError(f"{path} is not an image: give a photograph, such as a .jpg or .png") from None
    # Decoders raise all kinds of exceptions on a damaged file.
    except Exception as error:
        raise UserError(f"{path} cannot be read ({error or type(error).__name__}): give another photograph") from None


def _sheet_json(sheet: Sheet) -> list[dict[str, Any]]:
    """The content of a sheet, an entry for each method."""
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
