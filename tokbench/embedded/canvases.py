"""The embedded suite's images ("canvases"): handwritten digits in clutter.

Each canvas shows one real digit (`digits.npz`: the 1,797 test samples of 8×8 pixels of "Optical Recognition of
Handwritten Digits", E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, CC BY 4.0; the same as scikit-learn's
`load_digits`) at a random position, among faint fragments of other digits and low-contrast noise. Only 16 of
the 64 patches determine the label, so it matters which tokens a method drops.

A canvas is computed with integer arithmetic from the words of one counter-based random stream with the key
(seed, index). It is therefore the same on every machine and with every numpy version, and canvas i does not depend on
how many others are made.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

DIGITS = Path(__file__).with_name("digits.npz")

SIDE = 32
"""Height and width of a canvas, in pixels."""

MEAN, STD = 0.18, 0.20
"""Mean and standard deviation of the pixels of full canvases, scaled to [0, 1]."""

# Digits are placed in cells, which are then enlarged exactly, by repetition.
_SCALE = 2  # pixels per cell
_DIGIT = 8  # cells; 4×4 of the model's patches
_ALIGNED = 2  # cells; digits start on patch borders, which makes them easier to learn
_MARGIN = 1  # cells around the digit without fragments
_FRAGMENTS = 8
_FRAGMENT = 4  # cells
_FAINT = (5, 8)  # numerator and denominator of the ink level of fragments
_INK = 12  # grey levels per ink level; digits have ink levels 0 to 16
_NOISE = 48  # grey levels; ink and noise together fit into a byte
_HELD_OUT = 1000

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]
Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Canvases:
    """Images with labels.

    Attributes:
        images: (N, H, W), grey levels 0 to 255.
        labels: (N,), the digit, 0 to 9.
    """

    images: Bytes
    labels: Indices


def digits(part: Literal["train", "held_out"]) -> Canvases:
    """The plain digits of one part of the split: 797 samples for training, or the 1,000 held-out ones.

    The split is disjoint and comes from one fixed permutation of the samples; no seed changes it.

    Returns:
        Images of 8×8 pixels with levels 0 to 16, and their labels.
    """
    with np.load(DIGITS) as file:
        images, labels = file["images"], file["labels"]
    order = np.argsort(_words(seed=0, start=0, count=1, width=len(labels))[0], kind="stable")
    chosen = order[:_HELD_OUT] if part == "held_out" else order[_HELD_OUT:]
    return Canvases(images[chosen], labels[chosen].astype(np.int64))


def held_out(seed: int = 0, count: int = _HELD_OUT) -> Canvases:
    """The evaluation set: one canvas per held-out digit, so that the images are independent.

    Args:
        seed: Seed of the positions, the clutter and the noise.
        count: The number of canvases, at most 1,000.

    Raises:
        ValueError: `count` is not between 1 and 1,000.
    """
    if not 0 < count <= _HELD_OUT:
        raise ValueError(f"count must be between 1 and {_HELD_OUT}, got {count}")
    shown = digits("held_out")
    images = compose(shown.images[:count], digits("train").images, seed=seed)
    return Canvases(images, shown.labels[:count])


def compose(shown: Bytes, clutter: Bytes, *, seed: int, start: int = 0, side: int = SIDE) -> Bytes:
    """Place each digit at a random position among fragments and noise.

    The digit starts on a patch border. No fragment covers its square or the cells around it, so that every digit
    remains readable.

    Args:
        shown: (N, 8, 8) digits with levels 0 to 16, one per canvas.
        clutter: (M, 8, 8) digits from which fragments are cut.
        seed: Seed of the streams, at least 0.
        start: Index of the first canvas's stream.
        side: Height and width of a canvas in pixels, a multiple of 4 and at least 16, the size of a digit.

    Returns:
        (N, side, side) canvases.
    """
    count, reach = len(shown), side // _SCALE
    noise_words = side * side // 8
    words = _words(seed, start, count, 2 + 5 * _FRAGMENTS + noise_words)
    cells = np.zeros((count, reach + 2 * _MARGIN, reach + 2 * _MARGIN), np.uint8)
    for i in range(_FRAGMENTS):
        source, *corner = words[:, 2 + 5 * i : 7 + 5 * i].T
        cut_row, cut_column = _below(np.stack(corner[:2]), _DIGIT - _FRAGMENT + 1)
        row, column = _below(np.stack(corner[2:]), reach - _FRAGMENT + 1) + _MARGIN
        fragment = clutter[_below(source, len(clutter))][_window(cut_row, cut_column, _FRAGMENT)]
        cells[_window(row, column, _FRAGMENT)] = fragment * _FAINT[0] // _FAINT[1]

    row, column = _ALIGNED * _below(words[:, :2].T, (reach - _DIGIT) // _ALIGNED + 1)
    cells[_window(row, column, _DIGIT + 2 * _MARGIN)] = 0
    cells[_window(row + _MARGIN, column + _MARGIN, _DIGIT)] = shown
    cells = cells[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN]

    noise = words[:, -noise_words:].astype("<u8").view(np.uint8).reshape(count, side, side) % _NOISE
    return cells.repeat(_SCALE, axis=1).repeat(_SCALE, axis=2) * np.uint8(_INK) + noise


def augment(shown: Bytes, rng: np.random.Generator) -> Bytes:
    """Vary digits like handwriting: rotate, scale, slant, bend, shift, and change the ink level.

    Args:
        shown: (N, 8, 8), levels 0 to 16.
        rng: Source of the variation.

    Returns:
        (N, 8, 8), levels 0 to 16.
    """
    count = len(shown)
    angle = rng.normal(0, 0.1, count)
    slant = rng.normal(0, 0.1, count)
    zoom = np.exp(rng.normal(0, 0.08, (2, count)))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle) + slant, np.cos(angle)]])
    centre = (_DIGIT - 1) / 2
    grid = np.mgrid[:_DIGIT, :_DIGIT] - centre
    bend = ndimage.zoom(rng.normal(0, 0.3, (2, count, 3, 3)), (1, 1, _DIGIT / 3, _DIGIT / 3), order=1)
    shift = rng.normal(0, 0.3, (2, count))
    at = np.einsum("ijn,jyx->inyx", turn * zoom, grid) + bend + shift[..., None, None] + centre
    sample = np.broadcast_to(np.arange(count)[:, None, None], at.shape[1:])
    moved = ndimage.map_coordinates(shown.astype(np.float32), [sample, *at], order=1)
    return np.rint(np.clip(moved * rng.uniform(0.8, 1.2, (count, 1, 1)), 0, 16)).astype(np.uint8)


def to_input(images: Bytes) -> Tensor:
    """Normalise canvases for the model.

    Args:
        images: (N, H, W), grey levels.

    Returns:
        (N, 1, H, W), float32.
    """
    return ((torch.from_numpy(images).float() / 255 - MEAN) / STD).unsqueeze(1)


def _words(seed: int, start: int, count: int, width: int) -> Words:
    """(count, width) random words, row i from the stream (seed, start + i).

    numpy guarantees the raw words of a bit generator across versions, but not the numbers that Generator derives.
    """
    streams = [np.random.Philox(key=[seed, start + i]) for i in range(count)]
    return np.stack([stream.random_raw(width) for stream in streams])


def _below(words: Words, bound: int) -> Indices:
    """Uniform integers in [0, bound); the bias of the modulo is below 2⁻⁵⁰ for the small bounds used here."""
    return (words % np.uint64(bound)).astype(np.int64)


def _window(row: Indices, column: Indices, side: int) -> tuple[Indices, Indices, Indices]:
    """Index arrays of one side×side window per image, with its upper left corner at (row, column), both (N,)."""
    step = np.arange(side)
    return (
        np.arange(len(row))[:, None, None],
        row[:, None, None] + step[None, :, None],
        column[:, None, None] + step[None, None, :],
    )
