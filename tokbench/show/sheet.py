"""Draws token maps as one image: a column for each method, a row for each block that changed the tokens.

The layout is computed in pixels, and each panel is the image enlarged by a whole number, so that the borders of patches
stay sharp.
"""

from __future__ import annotations

import textwrap
from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from tokbench.errors import UserError, printable
from tokbench.show.token_map import RGBArray, Sheet, TokenMap, paint

PANEL_WIDTH = 448  # in pixels, rounded to a multiple of the image's width
MAX_COLUMNS = 6  # side by side
MAX_ROWS = 4  # of blocks
MAX_PIXELS = 80_000_000  # of the whole image; viewers refuse much larger ones as decompression bombs

EMS = 14  # width of a panel in ems, which sets the font size
LINE_HEIGHT = 1.35  # in ems
PERCENT_WIDTH = 2.8  # of a probability, in ems

BACKGROUND, TEXT, GREY, RED = "#ffffff", "#1f2328", "#59636e", "#a40e26"
BAR, RED_BAR = "#d4e4fa", "#ffd8d3"

DIFFERENT = "\N{NOT EQUAL TO} "
LEGEND = (
    "One colour with an outline: the patches of one token, in their mean colour. Dark: dropped patches. "
    f"Unchanged: tokens of a single patch. {DIFFERENT}not the plain model's class."
)


@dataclass(frozen=True)
class _Line:
    """A line of text; a probability is written in front of it and drawn as a bar behind it."""

    text: str
    colour: str = TEXT
    bold: bool = False
    probability: float | None = None
    bar: str = BAR


def draw(sheets: Sequence[Sheet]) -> Image.Image:
    """Draw the sheets below each other, with a legend.

    Args:
        sheets: At least one.

    Raises:
        UserError: The image would be too large for most programs to open.
    """
    drawn: list[Image.Image] = []
    for sheet in sheets:
        # The depths of all images of a model, because an adaptive method may reduce one image and not another.
        maps = [token_map for other in sheets if other.model == sheet.model for token_map in other.maps]
        changed = sorted({depth for token_map in maps for depth in token_map.changed_depths})
        drawn.append(_draw_sheet(sheet, evenly_spaced(changed)))
        if sum(image.width * image.height for image in drawn) > MAX_PIXELS:
            raise UserError("the image would be too large for most programs: pass fewer images or methods")
    em = PANEL_WIDTH // EMS
    width = max(image.width for image in drawn)
    legend = [_Line(line, GREY) for line in textwrap.wrap(LEGEND, int(width / (0.56 * em)))]
    return ImageOps.expand(_stack([*drawn, _write(legend, width, em)], 2 * em), border=em, fill=BACKGROUND)


def evenly_spaced(depths: Sequence[int], most: int = MAX_ROWS) -> tuple[int, ...]:
    """At most `most` of the depths, evenly spaced, including the last one."""
    if len(depths) <= most:
        return tuple(depths)
    return tuple(depths[(i + 1) * len(depths) // most - 1] for i in range(most))


def _draw_sheet(sheet: Sheet, depths: Sequence[int]) -> Image.Image:
    factor = max(1, round(PANEL_WIDTH / sheet.picture.shape[1]))
    picture = sheet.picture.repeat(factor, axis=0).repeat(factor, axis=1)
    maps = [sheet.plain, *sheet.maps]
    lines = max(len(token_map.caption) for token_map in maps)
    columns = [_draw_column(token_map, sheet.plain, picture, depths, lines) for token_map in maps]
    n_rows = -(-len(columns) // MAX_COLUMNS)
    per_row = -(-len(columns) // n_rows)
    em = picture.shape[1] // EMS
    rows = [_side_by_side(columns[first : first + per_row], em) for first in range(0, len(columns), per_row)]
    width = max(row.width for row in rows)
    title = _write([_Line(f"{sheet.image}  \N{MIDDLE DOT}  {sheet.model}", bold=True)], width, em * 5 // 4)
    return _stack([title, *rows], em)


def _draw_column(
    token_map: TokenMap, plain: TokenMap, picture: RGBArray, depths: Sequence[int], lines: int
) -> Image.Image:
    """One method: its caption, padded to a number of lines, its most likely classes, and its panels."""
    width = picture.shape[1]
    em = width // EMS
    method, *settings = token_map.caption
    padding = [_Line("")] * (lines - len(token_map.caption))
    caption = [_Line(method, bold=True), *(_Line(text, GREY) for text in settings), *padding]
    if token_map.changed_depths:
        panels = []
        for depth in depths:
            block = token_map.blocks[depth]
            title = _Line(f"block {depth}: {_tokens(block.count)}", GREY)
            panels.append(_stack([_write([title], width, em), _to_image(paint(picture, block.owner))], 0))
    else:
        title = _Line(_tokens(token_map.blocks[0].count), GREY)
        panels = [_stack([_write([title], width, em), _to_image(picture)], 0)]
    return _stack([_write([*caption, *_class_lines(token_map, plain)], width, em), *panels], em // 2)


def _class_lines(token_map: TokenMap, plain: TokenMap) -> list[_Line]:
    """The most likely classes, the first one marked if it differs from the plain model's."""
    lines = [_Line(guess.name, probability=guess.probability) for guess in token_map.guesses]
    if lines and token_map.guesses[0].index != plain.guesses[0].index:
        first = token_map.guesses[0]
        lines[0] = _Line(DIFFERENT + first.name, RED, bold=True, probability=first.probability, bar=RED_BAR)
    return lines


def _tokens(count: int) -> str:
    return f"{count} token{'' if count == 1 else 's'}"


def _write(lines: Sequence[_Line], width: int, em: int) -> Image.Image:
    """Lines of text, each truncated to the width."""
    height = round(LINE_HEIGHT * em)
    image = Image.new("RGB", (width, height * len(lines)), BACKGROUND)
    pen = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        font = _font(em, "DejaVuSans-Bold.ttf" if line.bold else "DejaVuSans.ttf")
        top, middle, left = number * height, number * height + height // 2, 0
        if line.probability is not None:
            left = round((PERCENT_WIDTH + 0.4) * em)
            filled = round(line.probability * (width - left))
            pen.rectangle((left - em // 5, top + 1, left - em // 5 + filled, top + height - 2), fill=line.bar)
            pen.text((PERCENT_WIDTH * em, middle), f"{line.probability:.0%}", line.colour, font, anchor="rm")
        text = _truncate(printable(line.text), font, width - left)
        pen.text((left, middle), text, line.colour, font, anchor="lm")
    return image


def _font(em: int, file: str) -> ImageFont.FreeTypeFont:
    """A font that comes with matplotlib, because the fonts of the system differ from machine to machine."""
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / file), em)


def _truncate(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """As much of a text as fits into the width."""
    if font.getlength(text) <= width:
        return text
    fits = bisect(range(len(text)), float(width), key=lambda length: font.getlength(text[:length] + "…"))
    return text[: max(0, fits - 1)] + "…"


def _to_image(picture: RGBArray) -> Image.Image:
    return Image.fromarray((255 * picture).round().astype(np.uint8))


def _stack(parts: Sequence[Image.Image], gap: int) -> Image.Image:
    """Images below each other, aligned on the left."""
    height = sum(part.height for part in parts) + gap * (len(parts) - 1)
    whole = Image.new("RGB", (max(part.width for part in parts), height), BACKGROUND)
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height + gap
    return whole


def _side_by_side(parts: Sequence[Image.Image], gap: int) -> Image.Image:
    """Images side by side, aligned at the top."""
    width = sum(part.width for part in parts) + gap * (len(parts) - 1)
    whole = Image.new("RGB", (width, max(part.height for part in parts)), BACKGROUND)
    left = 0
    for part in parts:
        whole.paste(part, (left, 0))
        left += part.width + gap
    return whole
