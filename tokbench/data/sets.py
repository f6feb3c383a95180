"""Opening an image set: ImageNet and its variants, in the layouts in which they are distributed.

| source | layout |
| --- | --- |
| folder | by synset id, `n01440764/any.JPEG`, at any depth; or the id in the file name, `n01440764_any.JPEG` |
| folder | by class number, `0` to `999` (ImageNet-V2), or `1` to `1000` if there is a `1000` and no `0` |
| folder | the official validation images, with Kaggle's `LOC_val_solution.csv` next to or above them |
| tar | any of these, uncompressed: the official `ILSVRC2012_img_val.tar`, ImageNet-V2's, your own |
| parquet | HuggingFace's columns `image` (struct of bytes and path) and `label`; a file, or a folder of them |
| `hfds/NAME` | a HuggingFace dataset through timm; `hfds/NAME:SPLIT` if the split is not `validation` |

Images are the files that Pillow can read, by their suffix. Hidden files are ignored, other files are counted in
`ImageSet.ignored`. Where no image has a known class, the set is unlabelled; a few without one are an error, and so are
images of several splits. Of parquet files of several splits, the validation split is read.
"""

import importlib.util
import os
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath

import pyarrow as pa
from timm.data.dataset_factory import create_dataset

from tokbench.data.errors import DataError, UnlabelledError
from tokbench.data.formats import count_left_out, hidden, is_image
from tokbench.data.identity import content_digests, digest
from tokbench.data.labels import SOLUTION, labels_from_names, labels_from_values, recognise
from tokbench.data.names import in_utf8
from tokbench.data.readers import Files, HubRows, Reader, Subset, TarMembers
from tokbench.data.tables import open_tables

__all__ = ["DataError", "ImageSet", "open_images"]

_HUB = "hfds/"


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images in a fixed order, sorted by name.

    Attributes:
        name: 'imagenet', 'imagenet-v2', 'imagenet-a' or 'imagenet-r' if it is that set, else how it is labelled:
            'synsets', 'numbers', 'official', 'parquet', 'hfds/NAME' or 'unlabelled'. A part of a set has the
            set's name if it was taken by `head` or `set_apart`, else not.
        names: A stable name per image: its path under the root or in the archive, or `file.parquet#row`; bytes that
            are not UTF-8 as in `in_utf8`.
        labels: The ImageNet-1k class of each image, 0..999; all -1 where the images have no labels.
        classes: The classes that logits are restricted to (the 200 of ImageNet-A and -R), None for all.
        reader: Decodes the image at a position.
        ignored: How many files were left out, by their suffix (see `tokbench.data.formats.describe_left_out`).
        unlabelled: Why the images have no labels, and how to give them some; empty where they have.
    """

    name: str
    names: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[int, ...] | None
    reader: Reader
    ignored: Mapping[str, int] = field(default_factory=dict)
    unlabelled: str = ""

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
        return self._subset([i * len(self) // limit for i in range(limit)])

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
        first, rest = map(self._subset, sides)
        return first, rest

    def _subset(self, chosen: Sequence[int]) -> "ImageSet":
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


def open_images(source: str | Path) -> ImageSet:
    """Open an image set, without decoding any image.

    Args:
        source: A folder, a tar archive, a parquet file, or `hfds/NAME`; the module docstring lists the layouts.

    Raises:
        DataError: The source does not exist, has no images, or some of its images have a known class and others none.
    """
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            return _open_folder(path)
        if path.is_file():
            return _open_parquet(path.parent, [path.name]) if _is_table(path.name) else _open_tar(path)
        exists = path.exists()
    except (OSError, RuntimeError) as error:  # RuntimeError: a home of nobody, a link to itself
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{source} cannot be opened ({reason}): check the path and its permissions") from error
    if str(source).startswith(_HUB):
        return _open_hub(str(source))
    problem = "is neither a folder nor a file" if exists else "does not exist"
    raise DataError(f"{path} {problem}: expected a folder of images, a .tar, a .parquet or hfds/NAME")


def _open_folder(root: Path) -> ImageSet:
    files = _list_files(root)
    names = [name for name in files if is_image(name)]
    tables = [name for name in files if _is_table(name) and not hidden(name)]
    if names and tables:
        raise DataError(f"{root} has both images and parquet files: pass a folder with only one of them")
    if tables:
        return _open_parquet(root, tables)
    _not_empty(names, root)
    return _named(names, _with_parents(root), Files(root, tuple(names)), count_left_out(files, SOLUTION))


def _is_table(name: str) -> bool:
    return name.lower().endswith(".parquet")


def _open_tar(archive: Path) -> ImageSet:
    try:
        # "r:" rejects compressed archives: there, reading one image means decompressing everything before it
        with tarfile.open(archive, "r:") as tar:
            spans, others = _spans(tar)
            _check_end_of_archive(archive, tar.offset)
    except Exception as error:  # a damaged header makes tarfile raise almost anything
        raise DataError(
            f"{archive} cannot be read as a tar archive ({_first_line(error)}): decompress it if it ends in .gz, "
            "unpack it if it is another type of archive, or download it again if it is truncated"
        ) from error
    names = sorted(name for name in spans if is_image(name))
    _not_empty(names, archive)
    reader = TarMembers(archive, tuple(spans[name] for name in names))
    return _named(names, _with_parents(archive.parent), reader, {**count_left_out(spans, SOLUTION), **others})


def _spans(tar: tarfile.TarFile) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
    """Each file's (offset, size), and how many images are links or others that are no files, by suffix."""
    spans: dict[str, tuple[int, int]] = {}
    others: Counter[str] = Counter()
    for member in tar:
        name = str(PurePosixPath(member.name))
        if member.isfile():
            spans[name] = member.offset_data, member.size  # the last member of a name counts, as when unpacking
        elif member.islnk() and (target := str(PurePosixPath(member.linkname))) in spans:
            spans[name] = spans[target]  # tar stores a file with two names once
        elif not member.isdir() and is_image(name):
            others[f"{PurePosixPath(name).suffix.lower()} (link)"] += 1
    return spans, others


def _check_end_of_archive(archive: Path, end: int) -> None:
    """Raise if the archive does not end with an end marker: tarfile mistakes a broken header for the end."""
    with archive.open("rb") as file:
        file.seek(end)
        if any(file.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError(f"broken at byte {end}")


def _open_parquet(root: Path, tables: Sequence[str]) -> ImageSet:
    found = open_tables(root, tables)
    return _assemble("parquet", _not_empty(found.names, root), found.labels, found.reader, {})


def _open_hub(source: str) -> ImageSet:
    name, _, split = source.partition(":")
    if importlib.util.find_spec("datasets") is None:
        raise DataError(f"{source} needs HuggingFace datasets: pip install 'tokbench[hf]'")
    try:
        reader = create_dataset(name, root=None, split=split or "validation").reader
        column = list(reader.dataset[reader.label_key])
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DataError(
            f"{source} cannot be opened ({_first_line(error)}): check its name and split, log in if it is gated, or "
            "download its parquet files and pass their folder"
        ) from error
    labels = labels_from_values(column, list(reader.class_to_idx), source)
    names = [f"{row:07d}" for row in range(len(labels))]
    return _assemble(name, _not_empty(names, source), labels, HubRows(reader), {})


def _named(
    names: Sequence[str], solution_folders: Sequence[Path], reader: Reader, ignored: Mapping[str, int]
) -> ImageSet:
    """The set of images whose class is in their names, or nowhere."""
    try:
        kind, labels = labels_from_names(names, solution_folders)
    except UnlabelledError as error:
        none = (-1,) * len(names)
        return ImageSet("unlabelled", tuple(map(in_utf8, names)), none, None, reader, ignored, str(error))
    return _assemble(kind, names, labels, reader, ignored)


def _assemble(
    kind: str, names: Sequence[str], labels: Sequence[int], reader: Reader, ignored: Mapping[str, int]
) -> ImageSet:
    name, classes = recognise(kind, labels)
    return ImageSet(name, tuple(map(in_utf8, names)), tuple(labels), classes, reader, ignored)


def _list_files(root: Path) -> list[str]:
    """Return the files under a folder, sorted, so that their order does not depend on the file system."""

    def fail(error: OSError) -> None:
        raise DataError(
            f"{error.filename} cannot be listed ({error.strerror}): check its permissions or remove it"
        ) from error

    found: list[str] = []
    seen: set[Path] = set()
    for name, _, files in os.walk(root, followlinks=True, onerror=fail):
        folder = Path(name)
        if folder.resolve() in seen:
            raise DataError(f"{folder} links to a folder that is already part of the set: remove the link")
        seen.add(folder.resolve())
        found += ((folder / file).relative_to(root).as_posix() for file in files)
    return sorted(found)


def _not_empty(names: Sequence[str], where: Path | str) -> Sequence[str]:
    if not names:
        raise DataError(
            f"{where} has no images (.jpg, .png, .webp or others that Pillow reads): pass the folder of the images, or "
            "the .tar or .parquet file itself"
        )
    return names


def _with_parents(folder: Path) -> list[Path]:
    # in Kaggle's archive the list is four folders above the images
    folder = folder.resolve()
    return [folder, *folder.parents]


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
