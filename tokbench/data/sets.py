"""Opening a labelled image set: ImageNet and its variants, in the layouts in which they are distributed.

| source | layout |
| --- | --- |
| folder | by synset id, `n01440764/any.JPEG`, at any depth; or the id in the file name, `n01440764_any.JPEG` |
| folder | by class number, `0` to `999` (ImageNet-V2), or `1` to `1000`: the number is the class |
| folder | the official validation images, with Kaggle's `LOC_val_solution.csv` next to or above them |
| tar | any of these, uncompressed: the official `ILSVRC2012_img_val.tar`, ImageNet-V2's, your own |
| parquet | HuggingFace's columns `image` (struct of bytes and path) and `label`; a file, or a folder of them |
| `hfds/NAME` | a HuggingFace dataset through timm; `hfds/NAME:SPLIT` if the split is not `validation` |

Images are files with the suffix of a format that Pillow reads. Hidden files are ignored, others are counted. An image
without a known class is an error.
"""

import hashlib
import importlib.util
import json
import mimetypes
import os
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from timm.data.dataset_factory import create_dataset

from tokbench.data.errors import DataError
from tokbench.data.labels import labels_from_names, labels_from_values, recognise, tables_of_one_split
from tokbench.data.readers import Files, HubRows, ParquetRows, Reader, Subset, TarMembers, suffixes

__all__ = ["DataError", "ImageSet", "open_images"]

_HUB = "hfds/"


@dataclass(frozen=True)
class ImageSet:
    """Labelled images in a fixed order, sorted by name.

    Attributes:
        name: 'imagenet', 'imagenet-v2', 'imagenet-a' or 'imagenet-r' if it is that set, else how it is labelled:
            'synsets', 'numbers', 'official', 'parquet' or 'hfds/NAME'. A part of a set does not have the set's name,
            except a part taken by `head`.
        names: A stable name per image: its path under the root or in the archive, or `file.parquet#row`.
        labels: The ImageNet-1k class of each image, 0..999.
        classes: The classes that logits are restricted to (the 200 of ImageNet-A and -R), None for all.
        reader: Decodes the image at a position.
        ignored: How many files were left out because they are no images, by their suffix.
    """

    name: str
    names: tuple[str, ...]
    labels: tuple[int, ...]
    classes: tuple[int, ...] | None
    reader: Reader
    ignored: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    @cached_property
    def identity(self) -> str:
        """sha256 (hexadecimal) of names, labels and the images' bytes: not of where or when they were stored.

        It reads every image once. One that cannot be read counts as such.
        """
        threads = os.cpu_count() if self.reader.concurrent else 1
        with ThreadPoolExecutor(threads) as pool:
            contents = list(pool.map(self._content_digest, range(len(self))))
        return _digest(self.name, self.names, self.labels, contents)

    def _content_digest(self, index: int) -> str:
        try:
            return hashlib.sha256(self.reader.content(index)).hexdigest()
        except Exception:  # libraries raise almost any exception on a damaged file
            return ""

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
        chosen = tuple(i * len(self) // limit for i in range(limit))
        return replace(
            self,
            names=tuple(self.names[i] for i in chosen),
            labels=tuple(self.labels[i] for i in chosen),
            reader=Subset(self.reader, chosen),
        )


def open_images(source: str | Path) -> ImageSet:
    """Open a labelled image set, without decoding any image.

    Args:
        source: A folder, a tar archive, a parquet file, or `hfds/NAME`; the module docstring lists the layouts.

    Raises:
        DataError: The source does not exist, has no images, or has an image without a known class.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _open_folder(path)
    if path.is_file():
        return _open_parquet(path.parent, [path.name]) if path.suffix == ".parquet" else _open_tar(path)
    if str(source).startswith(_HUB):
        return _open_hub(str(source))
    raise DataError(f"{path} does not exist: expected a folder of images, a .tar, a .parquet or hfds/NAME")


def _open_folder(root: Path) -> ImageSet:
    files = _list_files(root)
    names = _images(files)
    tables = [name for name in files if name.lower().endswith(".parquet") and not _hidden(name)]
    if names and tables:
        raise DataError(f"{root} has both images and parquet files: pass a folder with only one of them")
    if tables:
        return _open_parquet(root, tables)
    kind, labels = labels_from_names(_not_empty(names, root), _with_parents(root))
    return _assemble(kind, names, labels, Files(root, tuple(names)), _ignored(files))


def _open_tar(archive: Path) -> ImageSet:
    try:
        # "r:" rejects compressed archives: there, reading one image means decompressing everything before it
        with tarfile.open(archive, "r:") as tar:
            # if a name occurs twice, the last member counts, as when unpacking
            members = {str(PurePosixPath(member.name)): member for member in tar if member.isfile()}
            _check_end_of_archive(archive, tar.offset)
    except (tarfile.TarError, OSError, ValueError, OverflowError) as error:
        raise DataError(
            f"{archive} cannot be read as a tar archive ({_first_line(error)}): decompress it if it ends in .gz, "
            "unpack it if it is another type of archive, or download it again if it is truncated"
        ) from error
    names = sorted(_images(members))
    kind, labels = labels_from_names(_not_empty(names, archive), _with_parents(archive.parent))
    spans = tuple((members[name].offset_data, members[name].size) for name in names)
    return _assemble(kind, names, labels, TarMembers(archive, spans), _ignored(members))


def _check_end_of_archive(archive: Path, end: int) -> None:
    """Raise if the archive does not end with an end marker: tarfile mistakes a broken header for the end."""
    with archive.open("rb") as file:
        file.seek(end)
        if any(file.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError(f"broken at byte {end}")


def _open_parquet(root: Path, tables: Sequence[str]) -> ImageSet:
    tables = tables_of_one_split(tables)  # HuggingFace puts all splits of a set into one folder
    names: list[str] = []
    labels: list[int] = []
    groups: list[tuple[Path, int]] = []
    sizes: list[int] = []
    for table in tables:
        column, class_names, rows = _parquet_labels(root / table)
        labels += labels_from_values(column, class_names, table)
        names += [f"{table}#{row:07d}" for row in range(len(column))]
        groups += [(root / table, number) for number in range(len(rows))]
        sizes += rows
    starts = tuple(accumulate(sizes, initial=0))[:-1]
    return _assemble("parquet", _not_empty(names, root), labels, ParquetRows(tuple(groups), starts))


def _parquet_labels(file: Path) -> tuple[list[Any], list[str] | None, list[int]]:
    """Return the label column, its class names if there are any, and the number of rows of each row group."""
    try:
        with pq.ParquetFile(file) as table:
            schema = table.schema_arrow
            if not _has_images_and_labels(schema):
                raise DataError(
                    f"{file} has the columns {', '.join(schema.names)}: expected 'label' and 'image', a struct with "
                    "'bytes'"
                )
            column = table.read(columns=["label"], use_threads=False)["label"].to_pylist()
            rows = [table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} cannot be read as parquet ({_first_line(error)}): download it again") from error
    return column, _class_names(schema, file), rows


def _class_names(schema: pa.Schema, file: Path) -> list[str] | None:
    """The names of the classes in HuggingFace's metadata, None without them."""
    try:
        described: Any = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        for key in ("info", "features", "label"):
            described = described.get(key, {})
        names = described.get("names")
    except (ValueError, AttributeError, RecursionError):
        raise DataError(f"{file} has damaged metadata under 'huggingface': download it again") from None
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{file} has class names that are no list of texts: download it again")
    return names


def _has_images_and_labels(schema: pa.Schema) -> bool:
    if not {"image", "label"} <= set(schema.names):
        return False
    image = schema.field("image").type
    return pa.types.is_struct(image) and "bytes" in {field.name for field in image}


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
    return _assemble(name, _not_empty(names, source), labels, HubRows(reader))


def _assemble(
    kind: str,
    names: Sequence[str],
    labels: Sequence[int],
    reader: Reader,
    ignored: Mapping[str, int] | None = None,
) -> ImageSet:
    name, classes = recognise(kind, labels)
    return ImageSet(
        name=name,
        names=tuple(map(_as_text, names)),
        labels=tuple(labels),
        classes=classes,
        reader=reader,
        ignored=ignored or {},
    )


def _as_text(name: str) -> str:
    r"""A file's name as valid text: bytes that are not UTF-8 as `\xe9`."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return name.replace("\\", r"\\").encode(errors="surrogateescape").decode(errors="backslashreplace")
    return name


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


def _images(names: Iterable[str]) -> list[str]:
    return [name for name in names if _is_image(name)]


def _is_image(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in suffixes() and not _hidden(name)


def _ignored(names: Iterable[str]) -> dict[str, int]:
    """How many files are no images, by suffix; hidden files, texts and tables are nobody's images."""
    left = (PurePosixPath(name) for name in names if not _is_image(name) and not _hidden(name))
    return dict(Counter(path.suffix.lower() for path in left if path.suffix and not _is_text(path.name)))


def _is_text(name: str) -> bool:
    kind = mimetypes.guess_type(name)[0] or ""
    return kind.startswith("text/") or kind in ("application/json", "application/xml", "application/pdf")


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in PurePosixPath(name).parts)


def _not_empty(names: Sequence[str], where: Path | str) -> Sequence[str]:
    if not names:
        raise DataError(
            f"{where} has no images (.png, .jpg, .webp and others): pass the folder of the images, or the .tar "
            "or .parquet file itself"
        )
    return names


def _with_parents(folder: Path) -> list[Path]:
    # in Kaggle's archive the list is four folders above the images
    folder = folder.resolve()
    return [folder, *folder.parents]


def _digest(*parts: Any) -> str:
    # JSON separates the parts and accepts names that are not valid UTF-8
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
