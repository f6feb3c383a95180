"""What happened to an image's patches: which of them became one token, block by block, and which were dropped."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data import ImageNetInfo, infer_imagenet_subset
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tokbench.data.preprocessing import preprocessing_of
from tokbench.names import PLAIN
from tokbench.notation import parse_call, printable
from tokbench.registry import method_class
from tokbench.report.labels import PARAMETER, labels
from tokbench.run.build import build_model
from tokbench.run.prepare import Prepared, Row
from tokbench.tokens import Tokens
from tokbench.vit.backbone import DownsampledViT

TOP = 3  # classes named

DARKENED = 0.2  # of its brightness that a dropped patch keeps
BRIGHT = 0.6  # luminance from which on an outline is dark
OUTLINE = 0.75  # of the way from a token's colour to black or white
OUTLINES = 32  # a patch is at least so many outlines wide
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601

Picture = NDArray[np.float64]
"""(H, W, 3), from 0 to 1."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The tokens that leave a block.

    Attributes:
        depth: The block's index.
        count: Patch tokens.
        owner: (h, w), the token that each patch of the image is in; -1 where it was dropped. Soft pooling mixes every
            patch into every token; here a patch is in the one that it went into most.
    """

    depth: int
    count: int
    owner: NDArray[np.int64]


@dataclass(frozen=True)
class Guess:
    """A class that a model names.

    Attributes:
        index: The class.
        name: What it is called; several classes may share a name.
        probability: From 0 to 1.
    """

    index: int
    name: str
    probability: float


@dataclass(frozen=True, eq=False)
class TokenMap:
    """What became of an image in a model.

    Attributes:
        caption: The method, then its settings.
        blocks: The tokens that leave each block.
        guesses: The likeliest classes first.
    """

    caption: tuple[str, ...]
    blocks: tuple[Snapshot, ...]
    guesses: tuple[Guess, ...]

    @property
    def acted(self) -> tuple[int, ...]:
        """The depths of the blocks in which patches changed their token, or tokens their number."""
        owner = self.blocks[0].owner
        image = Snapshot(-1, owner.size, np.arange(owner.size).reshape(owner.shape))
        return tuple(
            after.depth
            for before, after in itertools.pairwise((image, *self.blocks))
            if after.count != before.count or not np.array_equal(after.owner, before.owner)
        )


@dataclass(frozen=True, eq=False)
class Sheet:
    """One image in one model.

    Attributes:
        image: What the image is called.
        model: What the model is called.
        picture: The image as the model saw it.
        plain: What the plain model made of it.
        maps: What was made of it with the methods.
    """

    image: str
    model: str
    picture: Picture
    plain: TokenMap
    maps: tuple[TokenMap, ...]


def sheets(
    prepared: Prepared, photographs: Sequence[tuple[str, Image.Image]], seed: int
) -> tuple[list[Sheet], list[str]]:
    """Follow photographs through every model with every method.

    Args:
        prepared: The models and what is put into them; rows for which `left_out` has a reason are passed over.
        photographs: Each with what it is called.
        seed: Of the weights that a method starts from.

    Returns:
        A sheet for each photograph and model, and what failed and why.
    """
    built: dict[str, list[tuple[tuple[str, ...], DownsampledViT]]] = {}
    for name, model in prepared.models.items():
        rows = [row for row in prepared.rows if row.cell.model == name and not left_out(row)]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            built[name] = list(zip(captions(rows), (build_model(row.cell, model) for row in rows), strict=True))
    drawn, failures = [], []
    for image, photograph in photographs:
        for name, model in prepared.models.items():
            names = class_names(model.vit)
            seen, picture = as_seen(photograph, model.vit)
            (caption, plain), *others = built[name]
            whole = TokenMap(caption, *follow(plain, seen, names))
            maps = []
            for caption, reduced in others:
                try:
                    maps.append(TokenMap(caption, *follow(reduced, seen, names)))
                # A method is somebody else's code: what it raises costs its own panels only.
                except Exception as error:
                    reason = f"{type(error).__name__}: {error}"
                    failures.append(printable(f"{' '.join(caption)} on {image} in {name}: {reason}"))
            drawn.append(Sheet(image, name, picture, whole, tuple(maps)))
    return drawn, failures


def left_out(row: Row) -> str:
    """Why a row cannot be drawn; empty where it can be.

    A method that must be trained first can still be looked at, with the weights that it starts from.
    """
    variant = row.cell.variant
    if variant.skipped and not row.failed and method_class(variant.method).trained:
        # How much stays was never solved for.
        return variant.skipped if variant.keep is None and parse_call(variant.schedule).name == "budget" else ""
    return row.failed or variant.skipped


def captions(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    """What tells the rows of one model apart, each in a few lines.

    Args:
        rows: With the plain model's first.
    """
    variants = [row.cell.variant for row in rows]
    table = pd.DataFrame({"method": [v.method for v in variants], "params": [v.params_text for v in variants]})
    told = []
    for label, variant in zip(labels(table), variants, strict=True):
        name, *params = PARAMETER.split(label.removesuffix(")"))
        lines = ["plain model" if variant.method == PLAIN else name, *params]
        if variant.method != PLAIN:
            lines.append(variant.schedule if variant.keep is None else f"keep {variant.keep:.3g}")
        if variant.skipped:
            lines.append("weights not trained")
        told.append(tuple(lines))
    return told


def as_seen(photograph: Image.Image, vit: VisionTransformer) -> tuple[Tensor, Picture]:
    """A photograph as a model reads it.

    Args:
        photograph: Of any size.
        vit: Its data config says how a photograph is resized, cut and normalised.

    Returns:
        What goes into the model (1, C, H, W), and as much of it as patches cover, to be looked at.
    """
    preprocessing = preprocessing_of(vit)
    grey = preprocessing.shape[0] == 1
    pixels = preprocessing.pixels(photograph.convert("L" if grey else "RGB"))
    covered = zip(vit.patch_embed.grid_size, vit.patch_embed.patch_size, strict=True)
    height, width = (count * size for count, size in covered)
    looks = (pixels / 255)[:, :height, :width].expand(3, -1, -1)
    return preprocessing.normalise(pixels[None], torch.empty(())), looks.permute(1, 2, 0).double().numpy()


def class_names(vit: VisionTransformer) -> list[str]:
    """What a model's classes are called: ImageNet's names where it has as many classes, else their indices."""
    subset = infer_imagenet_subset({"num_classes": vit.num_classes})
    if subset is None:
        return [str(index) for index in range(vit.num_classes)]
    return [description.partition(",")[0] for description in ImageNetInfo(subset).label_descriptions()]


def follow(
    model: DownsampledViT, image: Tensor, names: Sequence[str]
) -> tuple[tuple[Snapshot, ...], tuple[Guess, ...]]:
    """Run one image through a model and write down where its patches are.

    Args:
        model: In evaluation mode.
        image: (1, C, H, W).
        names: Of the classes.

    Returns:
        The tokens that leave each block, and the likeliest classes.

    Raises:
        Exception: Whatever the method raises.
    """
    blocks: list[Snapshot] = []

    def observe(depth: int, tokens: Tokens) -> None:
        # There is no padding to leave out: that comes with longer images in the batch, and this one is alone.
        blocks.append(Snapshot(depth, tokens.n_patches, tokens.owner[0].reshape(tokens.grid).cpu().numpy()))

    with torch.inference_mode():
        likely = model(image, observe=observe).float().softmax(dim=1)[0].topk(min(TOP, len(names)))
    guesses = zip(likely.indices.tolist(), likely.values.tolist(), strict=True)
    return tuple(blocks), tuple(Guess(index, names[index], probability) for index, probability in guesses)


def paint(picture: Picture, owner: NDArray[np.int64]) -> Picture:
    """Fill each token of several patches with their mean colour and outline it; darken dropped patches.

    A token of one patch stays as it is. An outline runs inside its token, along those beside it.

    Args:
        picture: (H, W, 3), its sides multiples of the grid's.
        owner: (h, w), as in `Snapshot`.

    Returns:
        (H, W, 3), a new picture.
    """
    rows, columns = owner.shape
    height, width = picture.shape[0] // rows, picture.shape[1] // columns
    patches = picture.reshape(rows, height, columns, width, 3).mean(axis=(1, 3)).reshape(-1, 3)
    _, token, size = np.unique(owner, return_inverse=True, return_counts=True)
    token = token.reshape(-1)  # in numpy 2.0 alone it has the shape of the owners
    sums = np.stack([np.bincount(token, patches[:, channel]) for channel in range(3)], axis=1)
    colour = (sums / size[:, None])[token].reshape(rows, columns, 3)
    contrast = np.where(colour @ LUMA < BRIGHT, 1.0, 0.0)[..., None]
    line = colour + OUTLINE * (contrast - colour)
    several = (owner >= 0) & (size[token].reshape(rows, columns) > 1)

    whose = owner.repeat(height, axis=0).repeat(width, axis=1)
    grouped = several.repeat(height, axis=0).repeat(width, axis=1)
    fill, outline = (part.repeat(height, axis=0).repeat(width, axis=1) for part in (colour, line))
    edge = grouped & _edges(whose, max(1, min(height, width) // OUTLINES))
    painted = np.where((whose < 0)[..., None], DARKENED * picture, picture)
    painted[grouped] = fill[grouped]
    painted[edge] = outline[edge]
    return painted


def _edges(whose: NDArray[np.int64], reach: int) -> NDArray[np.bool_]:
    """The pixels (H, W) that have another token's within reach; beyond the picture there is none."""
    height, width = whose.shape
    around = np.pad(whose, reach, mode="edge")
    edge = np.zeros(whose.shape, dtype=bool)
    for down, across in itertools.product((0, reach, 2 * reach), repeat=2):
        edge |= around[down : down + height, across : across + width] != whose
    return edge
