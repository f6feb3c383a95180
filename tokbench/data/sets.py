"""Opening an image set: ImageNet and its variants, in the layouts in which they are distributed, and any other classes.

| source | layout |
| --- | --- |
| folder | by synset id, `n01440764/any.JPEG`, at any depth; or the id in the file name, `n01440764_any.JPEG` |
| folder | by class number, `0` to `999` (ImageNet-V2), or `1` to `1000` if there is a `1000` and no `0` |
| folder | the official validation images, with Kaggle's `LOC_val_solution.csv` next to or above them |
| folder | one folder per class, `cats/any.jpg`, of any classes; see `tokbench.data.own_classes` |
| folder | any images, with a table of their classes (`Labelling.labels`) |
| tar | any of these, uncompressed: the official `ILSVRC2012_img_val.tar`, ImageNet-V2's, your own |
| tars | webdataset's shards with `.cls` or `.json` labels: one, a folder of them, or `val-{000000..000003}.tar` |
| parquet | HuggingFace's columns `image` (struct of bytes and path) and `label`; a file, or a folder of them |
| `hfds/NAME` | a HuggingFace dataset; `hfds/NAME:SPLIT` if the split is not `validation` |

Images are the files that Pillow can read, by their suffix. Hidden files are ignored, other files are counted in
`ImageSet.ignored`. Where no image has a known class, the set is unlabelled; a few without one are an error, and so are
images of several splits of which none is named. Of parquet files of several splits, the validation split is read.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from tokbench.data.archives import expand_shards, open_archive
from tokbench.data.errors import DataError, UnlabelledError
from tokbench.data.folders import list_files
from tokbench.data.formats import count_left_out, hidden, is_image
from tokbench.data.hub import HUB, open_hub
from tokbench.data.identity import content_digests, digest
from tokbench.data.label_file import read_label_file
from tokbench.data.labelling import IMAGENET_CLASSES, Labelled, Labelling
from tokbench.data.labels import SOLUTION, recognise
from tokbench.data.names import in_utf8
from tokbench.data.own_classes import classes_from_folders, classes_from_texts
from tokbench.data.readers import Files, Joined, Reader, Subset
from tokbench.data.splits import of_split, refuse_several_splits
from tokbench.data.tables import open_tables

__all__ = ["DataError", "ImageSet", "Labelling", "open_images"]


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


def open_images(source: str | Path, labelling: Labelling | None = None) -> ImageSet:
    """Open an image set, without decoding any image.

    Args:
        source: A folder, a tar archive, a parquet file, or `hfds/NAME`; the module docstring lists the layouts.
        labelling: How the images are labelled, and what is known of the classes; None expects those of ImageNet-1k.

    Raises:
        DataError: The source does not exist, has no images, or some of its images have a known class and others none.
    """
    labelling = labelling or Labelling()
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            return _open_folder(path, labelling)
        if path.is_file():
            is_table = _is_table(path.name)
            return _open_parquet(path.parent, [path.name], labelling) if is_table else _open_tars([path], labelling)
        exists = path.exists()
    except (OSError, RuntimeError) as error:  # RuntimeError: a home of nobody, a link to itself
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{source} cannot be opened ({reason}): check the path and its permissions") from error
    if str(source).startswith(HUB):
        return _open_hub(str(source), labelling)
    if shards := expand_shards(str(path)):
        return _open_tars(shards, labelling)
    problem = "is neither a folder nor a file" if exists else "does not exist"
    raise DataError(f"{path} {problem}: expected a folder of images, a .tar, a .parquet or hfds/NAME")


def _open_folder(root: Path, labelling: Labelling) -> ImageSet:
    files = list_files(root)
    names = [name for name in files if is_image(name)]
    tables = [name for name in files if _is_table(name) and not hidden(name)]
    if names and tables:
        raise DataError(f"{root} has both images and parquet files: pass a folder with only one of them")
    if tables:
        return _open_parquet(root, tables, labelling)
    shards = [name for name in files if name.lower().endswith(".tar") and not hidden(name)]
    if shards and not names:
        if labelling.split is not None:
            shards = [shards[place] for place in of_split(shards, labelling.split, str(root))]
        refuse_several_splits(f"{shard.removesuffix('.tar')}/" for shard in shards)
        return _open_tars([root / shard for shard in shards], replace(labelling, split=None))
    found = _Found(tuple(_not_empty(names, root)), Files(root, tuple(names)), count_left_out(files, SOLUTION))
    return _labelled(found, _with_parents(root), labelling, root)


def _is_table(name: str) -> bool:
    return name.lower().endswith(".parquet")


def _open_tars(shards: Sequence[Path], labelling: Labelling) -> ImageSet:
    """One archive, or several as one set, where the name of each is the folder of its images."""
    archives = [open_archive(shard, labelling.label_column) for shard in shards]
    several = len(shards) > 1
    names = [
        f"{shard.stem}/{name}" if several else name
        for shard, own in zip(shards, archives, strict=True)
        for name in own.names
    ]
    _not_empty(names, shards[0].parent if several else shards[0])
    if len({own.labels is None for own in archives if own.names}) > 1:
        raise DataError(f"some shards in {shards[0].parent} have labels and others none: pass only those of one set")
    labels = [label for own in archives for label in own.labels or ()]
    starts = tuple(accumulate((len(own.names) for own in archives), initial=0))[:-1]
    reader: Reader = Joined(tuple(own.reader for own in archives), starts) if several else archives[0].reader
    ignored = sum((Counter({**count_left_out(own.files, SOLUTION), **own.links}) for own in archives), Counter())
    found = _Found(tuple(names), reader, dict(ignored.most_common()))
    if labels and labelling.labels is None:
        return _assemble("shards", found, classes_from_texts(labels, labelling, str(shards[0])))
    return _labelled(found, _with_parents(shards[0].parent), labelling, shards[0])


def _open_parquet(root: Path, tables: Sequence[str], labelling: Labelling) -> ImageSet:
    found = open_tables(root, tables, labelling)
    return _assemble("parquet", _Found(tuple(_not_empty(found.names, root)), found.reader, {}), found.labelled)


def _open_hub(source: str, labelling: Labelling) -> ImageSet:
    labelled, reader = open_hub(source, labelling)
    names = tuple(f"{row:07d}" for row in range(len(labelled.labels)))
    return _assemble(source.partition(":")[0], _Found(tuple(_not_empty(names, source)), reader, {}), labelled)


@dataclass(frozen=True, eq=False)
class _Found:
    """Images without their classes: their names, their reader, and how many other files there were."""

    names: tuple[str, ...]
    reader: Reader
    ignored: Mapping[str, int]


def _labelled(found: _Found, solution_folders: Sequence[Path], labelling: Labelling, where: Path) -> ImageSet:
    """The set of images whose class is in a table, in their names, or nowhere."""
    labels = None
    if labelling.labels is not None:  # which may be of all splits
        labels = read_label_file(labelling.labels, found.names, labelling.label_column)
    if labelling.split is not None:
        places = of_split(found.names, labelling.split, str(where))
        labels = None if labels is None else [labels[place] for place in places]
        found = replace(
            found,
            names=tuple(found.names[place] for place in places),
            reader=Subset(found.reader, tuple(places)),
        )
    if labels is not None:
        return _assemble("labels", found, classes_from_texts(labels, labelling, str(labelling.labels)))
    try:
        labelled = classes_from_folders(found.names, solution_folders, labelling)
    except UnlabelledError as error:
        none = (-1,) * len(found.names)
        names = tuple(map(in_utf8, found.names))
        return ImageSet("unlabelled", names, none, None, found.reader, found.ignored, str(error))
    return _assemble(labelled.kind, found, labelled)


def _assemble(kind: str, found: _Found, labelled: Labelled) -> ImageSet:
    name, classes = recognise(kind, labelled.labels) if labelled.imagenet else (kind, None)
    return ImageSet(
        name,
        tuple(map(in_utf8, found.names)),
        labelled.labels,
        classes,
        found.reader,
        found.ignored,
        class_names=labelled.class_names,
        class_count=labelled.class_count,
        notes=labelled.notes,
    )


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
