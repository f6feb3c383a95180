"""Token maps as a picture: a column for each method, a row for each block in which something happened.

It is laid out pixel by pixel, each panel an image enlarged by a whole number, so that no border of a patch is blurred.
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

from tokbench.errors import UserError
from tokbench.notation import printable
from tokbench.show.token_map import Picture, Sheet, TokenMap, paint

PANEL = 448  # pixels that a panel is wide, as near as a whole number of times the image's comes
COLUMNS = 6  # side by side
ROWS = 4  # of blocks; with more, none would be looked at
MOST_PIXELS = 80_000_000  # of the picture; programs take much larger ones for an attack

EMS = 14  # letters' size: a panel is so many times as wide
LEADING = 1.35  # a line's height in ems
PERCENT = 2.8  # ems for a probability

PAPER, INK, FAINT, ALARM = "#ffffff", "#1f2328", "#59636e", "#a40e26"
BAR, ALARM_BAR = "#d4e4fa", "#ffd8d3"

OTHER = "\N{NOT EQUAL TO} "
LEGEND = (
    "One colour, outlined: the patches of one token, in their mean colour. Dark: dropped. "
    f"As it was: a token by itself. {OTHER}not the plain model's class."
)


@dataclass(frozen=True)
class _Line:
    """A line of text; a probability stands before it and is a bar behind it."""

    text: str
    colour: str = INK
    bold: bool = False
    probability: float | None = None
    bar: str = BAR


def draw(sheets: Sequence[Sheet]) -> Image.Image:
    """Draw the sheets below each other, and what the signs mean.

    Args:
        sheets: At least one.

    Raises:
        UserError: The picture would be too large to be opened.
    """
    drawn: list[Image.Image] = []
    for sheet in sheets:
        # Those of all images: an adaptive method may act on one image and not on another.
        maps = [one for other in sheets if other.model == sheet.model for one in other.maps]
        drawn.append(_sheet(sheet, chosen(sorted({depth for one in maps for depth in one.acted}))))
        if sum(one.width * one.height for one in drawn) > MOST_PIXELS:
            raise UserError("the picture becomes too large for most programs: name fewer images or methods at once")
    em = PANEL // EMS
    width = max(one.width for one in drawn)
    legend = [_Line(line, FAINT) for line in textwrap.wrap(LEGEND, int(width / (0.56 * em)))]
    return ImageOps.expand(_below([*drawn, _write(legend, width, em)], 2 * em), border=em, fill=PAPER)


def chosen(depths: Sequence[int], most: int = ROWS) -> tuple[int, ...]:
    """So many of the depths, evenly spread, the last one always among them; all where there are no more."""
    if len(depths) <= most:
        return tuple(depths)
    return tuple(depths[(place + 1) * len(depths) // most - 1] for place in range(most))


def _sheet(sheet: Sheet, depths: Sequence[int]) -> Image.Image:
    times = max(1, round(PANEL / sheet.picture.shape[1]))
    picture = sheet.picture.repeat(times, axis=0).repeat(times, axis=1)
    maps = [sheet.plain, *sheet.maps]
    lines = max(len(one.caption) for one in maps)
    columns = [_column(one, sheet.plain, picture, depths, lines) for one in maps]
    bands = -(-len(columns) // COLUMNS)
    each = -(-len(columns) // bands)
    em = picture.shape[1] // EMS
    rows = [_beside(columns[first : first + each], em) for first in range(0, len(columns), each)]
    width = max(row.width for row in rows)
    title = _write([_Line(f"{sheet.image}  \N{MIDDLE DOT}  {sheet.model}", bold=True)], width, em * 5 // 4)
    return _below([title, *rows], em)


def _column(one: TokenMap, plain: TokenMap, picture: Picture, depths: Sequence[int], lines: int) -> Image.Image:
    """One method: its caption, filled up to so many lines, its guesses, and its panels."""
    width = picture.shape[1]
    em = width // EMS
    head, *settings = one.caption
    blank = [_Line("")] * (lines - len(one.caption))
    caption = [_Line(head, bold=True), *(_Line(text, FAINT) for text in settings), *blank]
    panels = [_below([_write([_Line(_tokens(one.blocks[0].count), FAINT)], width, em), _image(picture)], 0)]
    if one.acted:
        panels = []
        for depth in depths:
            behind = one.blocks[depth]
            title = _Line(f"block {depth}: {_tokens(behind.count)}", FAINT)
            panels.append(_below([_write([title], width, em), _image(paint(picture, behind.owner))], 0))
    return _below([_write([*caption, *_guessed(one, plain)], width, em), *panels], em // 2)


def _guessed(one: TokenMap, plain: TokenMap) -> list[_Line]:
    """The likeliest classes, the first one marked where it is not the plain model's."""
    lines = [_Line(guess.name, probability=guess.probability) for guess in one.guesses]
    if lines and one.guesses[0].index != plain.guesses[0].index:
        first = one.guesses[0]
        lines[0] = _Line(OTHER + first.name, ALARM, bold=True, probability=first.probability, bar=ALARM_BAR)
    return lines


def _tokens(count: int) -> str:
    return f"{count} token{'' if count == 1 else 's'}"


def _write(lines: Sequence[_Line], width: int, em: int) -> Image.Image:
    """Lines of text, each cut to the width."""
    height = round(LEADING * em)
    image = Image.new("RGB", (width, height * len(lines)), PAPER)
    pen = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        font = _font(em, "DejaVuSans-Bold.ttf" if line.bold else "DejaVuSans.ttf")
        top, middle, left = number * height, number * height + height // 2, 0
        if line.probability is not None:
            left = round((PERCENT + 0.4) * em)
            filled = round(line.probability * (width - left))
            pen.rectangle((left - em // 5, top + 1, left - em // 5 + filled, top + height - 2), fill=line.bar)
            pen.text((PERCENT * em, middle), f"{line.probability:.0%}", line.colour, font, anchor="rm")
        pen.text((left, middle), _cut(printable(line.text), font, width - left), line.colour, font, anchor="lm")
    return image


def _font(em: int, file: str) -> ImageFont.FreeTypeFont:
    """A font that comes with matplotlib: every system has other ones."""
    return ImageFont.truetype(str(Path(mpl.get_data_path()) / "fonts" / "ttf" / file), em)


def _cut(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """As much of a text as the width holds."""
    if font.getlength(text) <= width:
        return text
    fits = bisect(range(len(text)), float(width), key=lambda length: font.getlength(text[:length] + "…"))
    return text[: max(0, fits - 1)] + "…"


def _image(picture: Picture) -> Image.Image:
    return Image.fromarray((255 * picture).round().astype(np.uint8))


def _below(parts: Sequence[Image.Image], gap: int) -> Image.Image:
    """Images below each other, their left edges in line."""
    height = sum(part.height for part in parts) + gap * (len(parts) - 1)
    whole = Image.new("RGB", (max(part.width for part in parts), height), PAPER)
    top = 0
    for part in parts:
        whole.paste(part, (0, top))
        top += part.height + gap
    return whole


def _beside(parts: Sequence[Image.Image], gap: int) -> Image.Image:
    """Images side by side, their tops in line."""
    width = sum(part.width for part in parts) + gap * (len(parts) - 1)
    whole = Image.new("RGB", (width, max(part.height for part in parts)), PAPER)
    left = 0
    for part in parts:
        whole.paste(part, (left, 0))
        left += part.width + gap
    return whole
