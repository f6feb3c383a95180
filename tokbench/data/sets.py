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
from dataclasses import replace
from functools import partial
from itertools import accumulate
from os.path import commonpath
from pathlib import Path
from posixpath import dirname

from tokbench.data.archives import expand_shards, open_archive
from tokbench.data.errors import DataError
from tokbench.data.folders import list_files
from tokbench.data.formats import count_left_out, hidden, is_image
from tokbench.data.found import FoundImages
from tokbench.data.hub import HUB, open_hub
from tokbench.data.image_set import ImageSet
from tokbench.data.label_file import read_label_file
from tokbench.data.labelling import Labelling
from tokbench.data.labels import SOLUTION
from tokbench.data.own_classes import classes_from_folders, classes_from_texts
from tokbench.data.readers import Files, Joined, Reader, Subset
from tokbench.data.splits import of_split, refuse_several_splits
from tokbench.data.tables import open_tables

__all__ = ["DataError", "FoundImages", "ImageSet", "Labelling", "find_images", "open_images"]


def open_images(source: str | Path, labelling: Labelling | None = None) -> ImageSet:
    """Open an image set, without decoding any image.

    Args:
        source: A folder, a tar archive, a parquet file, or `hfds/NAME`; the module docstring lists the layouts.
        labelling: How the images are labelled, and what is known of the classes; None expects those of ImageNet-1k.

    Raises:
        DataError: The source does not exist, has no images, or some of its images have a known class and others none.
    """
    labelling = labelling or Labelling()
    return find_images(source, labelling).with_classes(labelling)


def find_images(source: str | Path, labelling: Labelling) -> FoundImages:
    """Find the images of a set, and everything that is said of their classes, before it is known which there are.

    Args:
        source: As for `open_images`.
        labelling: How the images are labelled; of the classes nothing need be known.

    Raises:
        DataError: The source does not exist, cannot be read, or has no images.
    """
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


def _open_folder(root: Path, labelling: Labelling) -> FoundImages:
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
            stems = [shard[: -len(".tar")] for shard in shards]
            shards = [shards[place] for place in of_split(stems, labelling.split, str(root))]
        refuse_several_splits(f"{shard[: -len('.tar')]}/" for shard in shards)
        return _open_tars([root / shard for shard in shards], replace(labelling, split=None))
    _not_empty(names, root)
    return _named(names, Files(root, tuple(names)), count_left_out(files, SOLUTION), root, root, labelling)


def _is_table(name: str) -> bool:
    return name.lower().endswith(".parquet")


def _open_tars(shards: Sequence[Path], labelling: Labelling) -> FoundImages:
    """One archive, or several as one set, where the path of each is the folder of its images."""
    archives = [open_archive(shard, labelling.label_column) for shard in shards]
    several = len(shards) > 1
    above = Path(commonpath([shard.parent for shard in shards]))
    names = [
        (shard.relative_to(above).with_suffix("") / name).as_posix() if several else name
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
    counts = dict(ignored.most_common())
    if labels and labelling.labels is None:
        classes = partial(classes_from_texts, labels, where=str(shards[0]))
        return FoundImages(tuple(names), reader, counts, classes, "shards")
    return _named(names, reader, counts, shards[0].parent, shards[0], labelling)


def _open_parquet(root: Path, tables: Sequence[str], labelling: Labelling) -> FoundImages:
    _no_label_file(root, labelling)
    found = open_tables(root, tables, labelling)
    _not_empty(found.names, root)
    return FoundImages(found.names, found.reader, {}, found.classes, "parquet")


def _open_hub(source: str, labelling: Labelling) -> FoundImages:
    _no_label_file(source, labelling)
    count, classes, reader = open_hub(source, labelling)
    names = tuple(f"{row:07d}" for row in range(count))
    _not_empty(names, source)
    return FoundImages(names, reader, {}, classes, source.partition(":")[0])


def _no_label_file(where: Path | str, labelling: Labelling) -> None:
    if labelling.labels is not None:
        raise DataError(f"--labels is a table of image files, and {where} has a column of labels: use --label-column")


def _named(
    names: Sequence[str], reader: Reader, ignored: Mapping[str, int], folder: Path, where: Path, labelling: Labelling
) -> FoundImages:
    """Images whose class is in a table, in their names, or nowhere; those of one split, if one is named."""
    labels = None
    if labelling.labels is not None:  # which may be of all splits
        labels = read_label_file(labelling.labels, names, labelling.label_column)
    if labelling.split is not None:
        places = of_split([dirname(name) for name in names], labelling.split, str(where))
        labels = None if labels is None else [labels[place] for place in places]
        names, reader = [names[place] for place in places], Subset(reader, tuple(places))
    if labels is not None:
        classes = partial(classes_from_texts, labels, where=str(labelling.labels))
        return FoundImages(tuple(names), reader, ignored, classes, "labels")
    if labelling.split is None:
        refuse_several_splits(names)
    return FoundImages(tuple(names), reader, ignored, partial(classes_from_folders, names, _with_parents(folder)))


def _not_empty(names: Sequence[str], where: Path | str) -> None:
    if not names:
        raise DataError(
            f"{where} has no images (.jpg, .png, .webp or others that Pillow reads): pass the folder of the images, or "
            "the .tar or .parquet file itself"
        )


def _with_parents(folder: Path) -> list[Path]:
    # in Kaggle's archive the list is four folders above the images
    folder = folder.resolve()
    return [folder, *folder.parents]
