"""Token maps: which of an image's patches share a token after each block, and which were dropped."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data import ImageNetInfo, infer_imagenet_subset
from torch import Tensor

from tokbench.data.preprocessing import preprocessing_of
from tokbench.errors import printable
from tokbench.names import PLAIN
from tokbench.notation import parse_call
from tokbench.registry import method_class
from tokbench.report.labels import PARAMETER, labels
from tokbench.run.build import build_model
from tokbench.run.prepare import Prepared, Row
from tokbench.tokens import Tokens
from tokbench.vit.adapters import TimmViT
from tokbench.vit.backbone import DownsampledViT

TOP_CLASSES = 3

DARKENED = 0.2  # brightness of a dropped patch, as a fraction of its own
BRIGHT = 0.6  # tokens of at least this luminance get a dark outline, others a light one
OUTLINE = 0.75  # the outline's colour, as a fraction of the way from the token's colour to black or white
PATCH_PER_OUTLINE = 32  # a patch is at least this many outlines wide
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601

RGBArray = NDArray[np.float64]
"""An image (H, W, 3) with values from 0 to 1."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The tokens that leave a block.

    Attributes:
        depth: The block's index.
        count: Patch tokens.
        owner: (h, w), the token that contains each patch of the image; -1 if the patch was dropped. Soft pooling mixes
            every patch into every token; then it is the token with the largest weight for the patch.
    """

    depth: int
    count: int
    owner: NDArray[np.int64]


@dataclass(frozen=True)
class Guess:
    """One of a model's most likely classes.

    Attributes:
        index: The class index.
        name: The class name; several classes can have the same name.
        probability: From 0 to 1.
    """

    index: int
    name: str
    probability: float


@dataclass(frozen=True, eq=False)
class TokenMap:
    """What happened to the tokens of an image in a model.

    Attributes:
        caption: The method, then its settings.
        blocks: The tokens that leave each block.
        guesses: The most likely classes, in descending order of probability.
    """

    caption: tuple[str, ...]
    blocks: tuple[Snapshot, ...]
    guesses: tuple[Guess, ...]

    @property
    def changed_depths(self) -> tuple[int, ...]:
        """The depths of the blocks in which the number of tokens or the token of a patch changed."""
        owner = self.blocks[0].owner
        start = Snapshot(-1, owner.size, np.arange(owner.size).reshape(owner.shape))
        return tuple(
            after.depth
            for before, after in itertools.pairwise((start, *self.blocks))
            if after.count != before.count or not np.array_equal(after.owner, before.owner)
        )


@dataclass(frozen=True, eq=False)
class Sheet:
    """The token maps of one image in one model.

    Attributes:
        image: The name of the image.
        model: The name of the model.
        picture: The image after the model's resizing and cropping.
        plain: The token map of the plain model.
        maps: The token maps of the methods.
    """

    image: str
    model: str
    picture: RGBArray
    plain: TokenMap
    maps: tuple[TokenMap, ...]


def sheets(
    prepared: Prepared, photographs: Sequence[tuple[str, Image.Image]], seed: int
) -> tuple[list[Sheet], list[str]]:
    """Follow photographs through every model with every method.

    Args:
        prepared: The models and methods; rows that `left_out` gives a reason for are skipped.
        photographs: Each with its name.
        seed: Seed of the initial weights of methods that have weights.

    Returns:
        A sheet for each photograph and model, and a message for each failure.
    """
    models: dict[str, list[tuple[tuple[str, ...], DownsampledViT]]] = {}
    for name, model in prepared.models.items():
        rows = [row for row in prepared.rows if row.cell.model == name and not left_out(row)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            models[name] = list(zip(captions(rows), (build_model(row.cell, model) for row in rows), strict=True))
    drawn, failures = [], []
    for image, photograph in photographs:
        for name, model in prepared.models.items():
            names = class_names(model.vit)
            pixels, picture = preprocess(photograph, model.vit)
            (caption, plain_model), *others = models[name]
            plain = TokenMap(caption, *follow_tokens(plain_model, pixels, names))
            maps = []
            for caption, reduced_model in others:
                try:
                    maps.append(TokenMap(caption, *follow_tokens(reduced_model, pixels, names)))
                # A method may be a user's plugin: whatever it raises affects only its own panels.
                except Exception as error:
                    reason = f"{type(error).__name__}: {error}"
                    failures.append(printable(f"{' '.join(caption)} on {image} in {name}: {reason}"))
            drawn.append(Sheet(image, name, picture, plain, tuple(maps)))
    return drawn, failures


def left_out(row: Row) -> str:
    """Why a row cannot be drawn; empty if it can be.

    A method that needs training is drawn with its initial weights.
    """
    variant = row.cell.variant
    if variant.skipped and not row.failed and method_class(variant.method).trained:
        # With a budget schedule the keep of a skipped row has not been solved for, so it cannot run.
        return variant.skipped if variant.keep is None and parse_call(variant.schedule).name == "budget" else ""
    return row.failed or variant.skipped


def captions(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """The method and the settings that distinguish the rows of one model, as a few lines for each row.

    Args:
        rows: The plain model's row first.
    """
    variants = [row.cell.variant for row in rows]
    table = pd.DataFrame({"method": [v.method for v in variants], "params": [v.params_text for v in variants]})
    captioned = []
    for label, variant in zip(labels(table), variants, strict=True):
        name, *params = PARAMETER.split(label.removesuffix(")"))
        lines = ["plain model" if variant.method == PLAIN else name, *params]
        if variant.method != PLAIN:
            lines.append(variant.schedule if variant.keep is None else f"keep {variant.keep:.3g}")
        if variant.skipped:
            lines.append("weights not trained")
        captioned.append(tuple(lines))
    return captioned


def preprocess(photograph: Image.Image, vit: TimmViT) -> tuple[Tensor, RGBArray]:
    """Apply a model's preprocessing to a photograph.

    Args:
        photograph: Of any size.
        vit: Its data config defines how a photograph is resized, cropped and normalised.

    Returns:
        The model's input (1, C, H, W), and the part of the image that is covered by patches, for display.
    """
    preprocessing = preprocessing_of(vit)
    grey = preprocessing.shape[0] == 1
    pixels = preprocessing.pixels(photograph.convert("L" if grey else "RGB"))
    patches = zip(vit.patch_embed.grid_size, vit.patch_embed.patch_size, strict=True)
    height, width = (count * size for count, size in patches)
    covered = (pixels / 255)[:, :height, :width].expand(3, -1, -1)
    return preprocessing.normalise(pixels[None], torch.empty(())), covered.permute(1, 2, 0).double().numpy()


def class_names(vit: TimmViT) -> list[str]:
    """The names of a model's classes: ImageNet's if the number of classes matches, else their indices."""
    subset = infer_imagenet_subset({"num_classes": vit.num_classes})
    if subset is None:
        return [str(index) for index in range(vit.num_classes)]
    return [description.partition(",")[0] for description in ImageNetInfo(subset).label_descriptions()]


def follow_tokens(
    model: DownsampledViT, image: Tensor, names: Sequence[str]
) -> tuple[tuple[Snapshot, ...], tuple[Guess, ...]]:
    """Run one image through a model and record which token contains each patch.

    Args:
        model: In evaluation mode.
        image: (1, C, H, W).
        names: The names of the classes.

    Returns:
        The tokens that leave each block, and the most likely classes.

    Raises:
        Exception: Whatever the method raises.
    """
    blocks: list[Snapshot] = []

    def observe(depth: int, tokens: Tokens) -> None:
        # A single image is never padded.
        blocks.append(Snapshot(depth, tokens.n_patches, tokens.owner[0].reshape(tokens.grid).cpu().numpy()))

    with torch.inference_mode():
        top = model(image, observe=observe).float().softmax(dim=1)[0].topk(min(TOP_CLASSES, len(names)))
    guesses = zip(top.indices.tolist(), top.values.tolist(), strict=True)
    return tuple(blocks), tuple(Guess(index, names[index], probability) for index, probability in guesses)


def paint(picture: RGBArray, owner: NDArray[np.int64]) -> RGBArray:
    """Fill each token of several patches with their mean colour and outline it; darken dropped patches.

    A token of a single patch is not changed. The outline is inside its token, along the border to other tokens.

    Args:
        picture: (H, W, 3), with sides that are multiples of the grid's.
        owner: (h, w), as in `Snapshot`.

    Returns:
        (H, W, 3), a new array.
    """
    rows, columns = owner.shape
    height, width = picture.shape[0] // rows, picture.shape[1] // columns
    patches = picture.reshape(rows, height, columns, width, 3).mean(axis=(1, 3)).reshape(-1, 3)
    _, token, size = np.unique(owner, return_inverse=True, return_counts=True)
    token = token.reshape(-1)  # only in numpy 2.0 it has the shape of `owner`
    sums = np.stack([np.bincount(token, patches[:, channel]) for channel in range(3)], axis=1)
    colour = (sums / size[:, None])[token].reshape(rows, columns, 3)
    contrast = np.where(colour @ LUMA < BRIGHT, 1.0, 0.0)[..., None]
    outline = colour + OUTLINE * (contrast - colour)
    several = (owner >= 0) & (size[token].reshape(rows, columns) > 1)

    def per_pixel(patches: NDArray[Any]) -> NDArray[Any]:
        return patches.repeat(height, axis=0).repeat(width, axis=1)

    pixel_owner, grouped, fill, line = map(per_pixel, (owner, several, colour, outline))
    edge = grouped & _edges(pixel_owner, max(1, min(height, width) // PATCH_PER_OUTLINE))
    painted = np.where((pixel_owner < 0)[..., None], DARKENED * picture, picture)
    painted[grouped] = fill[grouped]
    painted[edge] = line[edge]
    return painted


def _edges(owner: NDArray[np.int64], distance: int) -> NDArray[np.bool_]:
    """The pixels (H, W) that have another token's pixel within a distance; the border of the image is not an edge."""
    height, width = owner.shape
    padded = np.pad(owner, distance, mode="edge")
    edge = np.zeros(owner.shape, dtype=bool)
    for down, across in itertools.product((0, distance, 2 * distance), repeat=2):
        edge |= padded[down : down + height, across : across + width] != owner
    return edge
