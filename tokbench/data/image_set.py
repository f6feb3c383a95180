"""Labelled images in a fixed order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from tokbench.data.errors import DataError
from tokbench.data.identity import content_digests, digest
from tokbench.data.labelling import IMAGENET_CLASSES
from tokbench.data.readers import Reader, Subset

__all__ = ["ImageSet"]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images in a fixed order, sorted by name.

    Attributes:
        name: 'imagenet', 'imagenet-v2', 'imagenet-a' or 'imagenet-r' if it is that set, else how it is labelled:
            'synsets', 'numbers', 'official', 'folders', 'labels', 'shards', 'parquet', 'hfds/NAME' or 'unlabelled'.
            A part of a set has the set's name if it was taken by `head` or `set_apart`, else not.
        names: A stable name per image: its path under the root or in the archive, or `file.parquet#row`; bytes that
            are not UTF-8 as in `in_utf8`.
        labels: The class of each image, from 0; all -1 where the images have no labels.
        classes: The classes that logits are restricted to (the 200 of ImageNet-A and -R), None for all.
        reader: Decodes the image at a position.
        ignored: How many files were left out, by their suffix (see `tokbench.data.formats.describe_left_out`).
        unlabelled: Why the images have no labels, and how to give them some; empty where they have.
        class_names: The names of the classes in the order of their indices; empty for ImageNet-1k's, and where the
            classes have numbers only.
        class_count: How many classes there are.
        notes: What a user should know of how the classes were found, a line each.
    """

    name: str
    names: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[int, ...] | None
    reader: Reader
    ignored: Mapping[str, int] = field(default_factory=dict)
    unlabelled: str = ""
    class_names: tuple[str, ...] = ()
    class_count: int = IMAGENET_CLASSES
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def identity(self) -> str:
        """sha256 (hexadecimal) of names, labels, classes and content, wherever and whenever these were stored.

        It reads all images once.
        """
        return digest(self.names, self.labels, self.classes, self.digests)

    @cached_property
    def digests(self) -> list[str | None]:
        """The sha256 (hexadecimal) of each encoded image; None for one that cannot be read. It reads all images."""
        return content_digests(self.reader, len(self))

    def head(self, limit: int) -> "ImageSet":
        """A subset of `limit` images, evenly spaced over the list so that all classes stay in proportion.

        It has the same images each time, and is the whole set if that has no more than `limit`.

        Raises:
            DataError: `limit` is not positive.
        """
        if limit < 1:
            raise DataError(f"invalid limit {limit}: expected 1 or more images")
        if limit >= len(self):
            return self
        return self.part([i * len(self) // limit for i in range(limit)])

    def set_apart(self, fraction: float) -> tuple["ImageSet", "ImageSet"]:
        """Divide the set in two by a hash of each image, so that copies of an image are on the same side.

        An image is on the same side in every set and on every machine. One that cannot be read is among the rest.

        Args:
            fraction: How much to set apart, between 0 and 1.

        Returns:
            The images set apart, and the rest.

        Raises:
            DataError: One of them would be empty.
        """
        below = int(fraction * 2**32)
        apart = [found is not None and int(found[:8], 16) < below for found in self.digests]
        if all(apart) or not any(apart):
            raise DataError(
                f"a fraction of {fraction:g} sets {sum(apart)} of {len(self)} images apart: choose another fraction"
            )
        sides = ([i for i, chosen in enumerate(apart) if chosen is side] for side in (True, False))
        first, rest = map(self.part, sides)
        return first, rest

    def part(self, chosen: Sequence[int]) -> "ImageSet":
        """The images at these positions."""
        part = replace(
            self,
            names=tuple(self.names[i] for i in chosen),
            labels=tuple(self.labels[i] for i in chosen),
            reader=Subset(self.reader, tuple(chosen)),
        )
        if "digests" in vars(self):  # known already: reading all images again would take minutes
            vars(part)["digests"] = [self.digests[i] for i in chosen]
        return part
