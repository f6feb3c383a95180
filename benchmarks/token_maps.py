"""Draws which patches of three photographs become one token, a picture for each method.

    python benchmarks/token_maps.py DATA WEIGHTS [METHOD ...]

DeiT-Ti, keep 0.5 at depths 3, 6 and 9. A picture has a column for each photograph: above the tokens after the first
reduction, below those after the last. It is drawn as by `tokbench show`: patches in one token have their mean colour
and an outline, dropped patches are dark. Methods that need trained weights are left out, because untrained weights
choose tokens by chance. DATA also sets the constants of calibrated methods.

The photographs are those of results/maps/photographs.csv. Writes results/maps/METHOD.webp, and results/maps/tokens.csv
with the tokens that leave each block.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer
from PIL import Image

from tokbench.comparison import plan_comparison
from tokbench.config import load_config
from tokbench.data.readers import decode
from tokbench.files import write_atomically
from tokbench.names import ALL
from tokbench.run.prepare import Prepared
from tokbench.show.token_map import RGBArray, Sheet, TokenMap, left_out, paint, sheets

MAPS = Path(__file__).parents[1] / "results" / "maps"
MODEL = "deit_tiny_patch16_224"
KEEP = 0.5
PANEL, GAP = 294, 9  # pixels; a panel is a multiple of the 14 patches of a side
LARGEST = 40_000  # bytes of a picture
QUALITIES = range(80, 10, -5)  # of WebP, the best that is small enough is taken


def prepared_model(data: Path, weights: Path, methods: tuple[str, ...]) -> Prepared:
    """DeiT-Ti with each method."""
    settings = {
        "models": (MODEL,),
        "methods": methods,
        "baselines": ("none",),
        "keep": (KEEP,),
        "calibration": str(data),
        "weights": (str(weights),),
        "device": "cpu",
        "seeds": (0,),
        "batch_size": (1,),
        "only": ("macs",),
    }
    config = load_config()
    return plan_comparison(config.suite("imagenet", settings), config).prepared


def panel(picture: RGBArray, token_map: TokenMap, depth: int) -> RGBArray:
    """One photograph with the tokens that leave a block."""
    return paint(picture, token_map.blocks[depth].owner)


def draw(pictures: list[RGBArray], maps: list[TokenMap]) -> Image.Image:
    """The picture of one method: a column for each photograph."""
    whole = np.ones((2 * PANEL + GAP, len(maps) * (PANEL + GAP) - GAP, 3))
    for column, (picture, token_map) in enumerate(zip(pictures, maps, strict=True)):
        left = column * (PANEL + GAP)
        for row, depth in enumerate((token_map.changed_depths[0], token_map.changed_depths[-1])):
            top = row * (PANEL + GAP)
            whole[top : top + PANEL, left : left + PANEL] = panel(picture, token_map, depth)
    return Image.fromarray((255 * whole).round().astype(np.uint8))


def enlarged(picture: RGBArray) -> RGBArray:
    """A photograph in the size of a panel."""
    image = Image.fromarray((255 * picture).round().astype(np.uint8))
    return np.asarray(image.resize((PANEL, PANEL), Image.Resampling.LANCZOS), dtype=np.float64) / 255


def write(path: Path, picture: Image.Image) -> None:
    """Write a picture in the best quality that keeps it small.

    Raises:
        RuntimeError: It is too large in any quality.
    """
    for quality in QUALITIES:
        write_atomically(path, lambda scratch, q=quality: picture.save(scratch, format="WEBP", quality=q, method=6))  # type: ignore[misc]
        if path.stat().st_size <= LARGEST:
            return
    raise RuntimeError(f"{path} is larger than {LARGEST} bytes in every quality")


def tokens_of(name: str, drawn: list[Sheet], maps: list[TokenMap]) -> list[dict[str, str]]:
    """A line of the table for each photograph."""
    return [
        {
            "method": name,
            "photograph": sheet.image,
            "tokens_per_block": " ".join(str(block.count) for block in token_map.blocks),
            "class": token_map.guesses[0].name,
            "class_of_plain_model": sheet.plain.guesses[0].name,
        }
        for sheet, token_map in zip(drawn, maps, strict=True)
    ]


def main(
    data: Annotated[Path, typer.Argument(help="A folder of images, one subfolder per class.")],
    weights: Annotated[Path, typer.Argument(help="The weights of DeiT-Ti.")],
    methods: Annotated[list[str] | None, typer.Argument(help="Methods to draw; default: all.")] = None,
) -> None:
    """Draw the maps of each method."""
    prepared = prepared_model(data, weights, tuple(methods or [ALL]))
    names = [row.cell.variant.method for row in prepared.rows if not left_out(row)][1:]  # the plain model is the first
    untrained = {row.cell.variant.method for row in prepared.rows if row.cell.variant.skipped}
    chosen = pd.read_csv(MAPS / "photographs.csv", index_col="photograph")["file"]
    photographs = [(str(name), decode(data / file)) for name, file in chosen.items()]
    drawn, failures = sheets(prepared, photographs, seed=0)
    if failures:
        raise RuntimeError("; ".join(failures))
    pictures = [enlarged(sheet.picture) for sheet in drawn]
    lines: list[dict[str, str]] = []
    for number, name in enumerate(names):
        if name in untrained:
            continue
        maps = [sheet.maps[number] for sheet in drawn]
        write(MAPS / f"{name}.webp", draw(pictures, maps))
        lines += tokens_of(name, drawn, maps)
    table = pd.DataFrame(lines)
    if not methods:
        write_atomically(MAPS / "tokens.csv", lambda scratch: table.to_csv(scratch, index=False))
    print(table.to_string(index=False))


if __name__ == "__main__":
    typer.run(main)
