"""Reading single images from a folder, a tar archive, parquet files or a HuggingFace dataset.

Readers are sent to the loader's worker processes, so they hold paths and positions but no open files: processes that
share a file offset would read each other's images.
"""

import stat
import threading
import warnings
from bisect import bisect_right
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tokbench.data.formats import image_formats

_MAX_ASPECT = 100  # the longer side over the shorter: a model's preprocessing scales the shorter side to hundreds
_MAX_BYTES = 2**30  # of one encoded image


class Reader(Protocol):
    """Reads single images, in any order and from any process or thread. Picklable."""

    def read(self, index: int) -> Image.Image:
        """Decode one image to RGB; raises the decoder's exception if it cannot be read."""
        ...

    def content(self, index: int) -> bytes:
        """The encoded bytes that `read` decodes: images with the same bytes have the same pixels."""
        ...


def decode(file: Path | IO[bytes]) -> Image.Image:
    """Decode a whole image to RGB, as timm does.

    Raises:
        Image.DecompressionBombWarning: It has more pixels than `Image.MAX_IMAGE_PIXELS`, which is more than any image
            of these sets has; Pillow itself only warns up to twice that number.
        ValueError: It is so narrow that resizing it would take gigabytes.
        Exception: Whatever Pillow raises for a file that is truncated or not an image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata; the pixels are read or not
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(file, formats=image_formats()) as image:
            _check_shape(*image.size)
            return image.convert("RGB")


def regular(file: Path) -> Path:
    """The file itself, if it is one of at most 1 GiB: opening a FIFO or a device may wait for ever.

    Raises:
        OSError: There is no such file, or it cannot be looked at.
        ValueError: It is something else, or too large.
    """
    status = file.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"not a file but {_TYPES.get(stat.S_IFMT(status.st_mode), 'something else')}")
    _check_bytes(status.st_size)
    return file


_TYPES = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def _check_bytes(size: int) -> None:
    if size > _MAX_BYTES:
        raise ValueError(f"{size:,} bytes are too many for an image")


def _check_shape(width: int, height: int) -> None:
    if max(width, height) > _MAX_ASPECT * min(width, height):
        raise ValueError(f"{width} x {height} pixels are too narrow for a photograph")


@dataclass(frozen=True)
class Files:
    """Image files under one folder."""

    root: Path
    names: tuple[str, ...]

    def read(self, index: int) -> Image.Image:
        """Decode the file at a position."""
        return decode(regular(self.root / self.names[index]))

    def content(self, index: int) -> bytes:
        """The bytes of the file at a position."""
        return regular(self.root / self.names[index]).read_bytes()


@dataclass(frozen=True)
class TarMembers:
    """Members of an uncompressed tar archive, each by its (offset, size) in bytes."""

    archive: Path
    spans: tuple[tuple[int, int], ...]

    def read(self, index: int) -> Image.Image:
        """Decode the member at a position."""
        return decode(BytesIO(self.content(index)))

    def content(self, index: int) -> bytes:
        """The bytes of the member at a position."""
        offset, size = self.spans[index]
        _check_bytes(size)
        with self.archive.open("rb") as file:
            file.seek(offset)
            return file.read(size)


@dataclass(frozen=True)
class Joined:
    """The images of several readers, one after the other.

    Attributes:
        readers: In order.
        starts: The position of the first image of each in the whole set.
    """

    readers: tuple[Reader, ...]
    starts: tuple[int, ...]

    def read(self, index: int) -> Image.Image:
        """Decode the image at a position."""
        reader, place = self._at(index)
        return reader.read(place)

    def content(self, index: int) -> bytes:
        """The bytes of the image at a position."""
        reader, place = self._at(index)
        return reader.content(place)

    def _at(self, index: int) -> tuple[Reader, int]:
        number = bisect_right(self.starts, index) - 1
        return self.readers[number], index - self.starts[number]


class ParquetRows:
    """Rows of parquet files in HuggingFace's layout, read lazily, one row group at a time.

    Args:
        groups: The row groups in order, each a file and the number of the group in it.
        starts: The position of each group's first row in the whole set.
        column: The column with the images.
    """

    def __init__(self, groups: tuple[tuple[Path, int], ...], starts: tuple[int, ...], column: str) -> None:
        self.groups = groups
        self.starts = starts
        self.column = column
        self._loaded = threading.local()  # the row group that a thread has read last

    def __reduce__(self) -> tuple[Any, ...]:
        # without the loaded row group, which is megabytes and useless to another process
        return ParquetRows, (self.groups, self.starts, self.column)

    def read(self, index: int) -> Image.Image:
        """Decode the row at a position."""
        return decode(BytesIO(self.content(index)))

    def content(self, index: int) -> bytes:
        """The image bytes of the row at a position.

        Raises:
            ValueError: The row has no image bytes.
        """
        group = bisect_right(self.starts, index) - 1
        if getattr(self._loaded, "group", None) != group:
            self._loaded.group, self._loaded.rows = group, self._load(group)
        row = self._loaded.rows[index - self.starts[group]].as_py()
        if row is None or row["bytes"] is None:
            raise ValueError("the row has no image bytes")
        content: bytes = row["bytes"]
        return content

    def _load(self, group: int) -> pa.ChunkedArray:
        file, number = self.groups[group]
        # without arrow's threads, which do not exist in a forked worker
        with pq.ParquetFile(file, pre_buffer=False) as table:
            rows = table.read_row_group(number, columns=[f"{self.column}.bytes"], use_threads=False)
            return rows[self.column]


@dataclass(frozen=True)
class HubRows:
    """Rows of a HuggingFace dataset, whose images are not decoded.

    Attributes:
        dataset: A `datasets.Dataset`.
        column: The column with the images.
    """

    dataset: Any
    column: str

    def read(self, index: int) -> Image.Image:
        """Decode the row at a position."""
        return decode(BytesIO(self.content(index)))

    def content(self, index: int) -> bytes:
        """The image bytes of the row at a position.

        Raises:
            ValueError: The row has no image.
        """
        image = self.dataset[index][self.column] or {}
        if image.get("bytes"):
            content: bytes = image["bytes"]
            return content
        if not image.get("path"):
            raise ValueError("the row has no image bytes")
        return regular(Path(image["path"])).read_bytes()


@dataclass(frozen=True)
class Subset:
    """Some of the images of another reader."""

    reader: Reader
    indices: tuple[int, ...]

    def read(self, index: int) -> Image.Image:
        """Decode the image at a position of the subset."""
        return self.reader.read(self.indices[index])

    def content(self, index: int) -> bytes:
        """The bytes of the image at a position of the subset."""
        return self.reader.content(self.indices[index])
