"""Reading single images from a folder, a tar archive, parquet files or a HuggingFace dataset.

Readers are sent to the loader's worker processes, so they hold paths and positions but no open files: processes that
share a file offset would read each other's images.
"""

import stat
import warnings
from bisect import bisect_right
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

# Formats that Pillow opens and that hold no photographs: printed pages, films, measurements.
NO_PHOTOGRAPHS = frozenset({"BUFR", "EPS", "FITS", "FLI", "FTEX", "GBR", "GRIB", "HDF5", "IPTC", "MPEG", "PDF", "WMF"})

MOST_UNEQUAL = 100  # the longer side over the shorter: an image is resized by its shorter one, and would grow huge


@cache
def suffixes() -> frozenset[str]:
    """The suffixes of the image formats that Pillow reads, in lower case and with their dot."""
    Image.init()
    known = Image.registered_extensions().items()
    return frozenset(suffix for suffix, name in known if name in Image.OPEN and name not in NO_PHOTOGRAPHS)


class Reader(Protocol):
    """Reads single images, in any order and from any process. Picklable."""

    @property
    def concurrent(self) -> bool:
        """Whether several threads may read at once."""
        ...

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
        ValueError: One side is more than 100 times as long as the other.
        Exception: Whatever Pillow raises for a file that is truncated or not an image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(file) as image:
            width, height = image.size
            if max(width, height) > MOST_UNEQUAL * min(width, height):
                raise ValueError(f"its sides are {width} and {height} pixels, more than {MOST_UNEQUAL} to 1")
            return image.convert("RGB")


@dataclass(frozen=True)
class Files:
    """Image files under one folder."""

    root: Path
    names: tuple[str, ...]
    concurrent = True

    def read(self, index: int) -> Image.Image:
        """Decode the file at a position."""
        return decode(self._file(index))

    def content(self, index: int) -> bytes:
        """The bytes of the file at a position."""
        return self._file(index).read_bytes()

    def _file(self, index: int) -> Path:
        file = self.root / self.names[index]
        if not stat.S_ISREG(file.stat().st_mode):  # opening a pipe or a device may wait for ever
            raise ValueError("not a regular file")
        return file


@dataclass(frozen=True)
class TarMembers:
    """Members of an uncompressed tar archive, each by its (offset, size) in bytes."""

    archive: Path
    spans: tuple[tuple[int, int], ...]
    concurrent = True

    def read(self, index: int) -> Image.Image:
        """Decode the member at a position."""
        return decode(BytesIO(self.content(index)))

    def content(self, index: int) -> bytes:
        """The bytes of the member at a position."""
        offset, size = self.spans[index]
        with self.archive.open("rb") as file:
            file.seek(offset)
            return file.read(size)


class ParquetRows:
    """Rows of parquet files in HuggingFace's layout, read lazily, one row group at a time.

    Args:
        groups: The row groups in order, each a file and the number of the group in it.
        starts: The position of each group's first row in the whole set.
    """

    concurrent = False  # it holds the row group that it has read last

    def __init__(self, groups: tuple[tuple[Path, int], ...], starts: tuple[int, ...]) -> None:
        self.groups = groups
        self.starts = starts
        self._loaded: tuple[int, pa.ChunkedArray] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # without the loaded row group, which is megabytes and useless to another process
        return ParquetRows, (self.groups, self.starts)

    def read(self, index: int) -> Image.Image:
        """Decode the row at a position."""
        return decode(BytesIO(self.content(index)))

    def content(self, index: int) -> bytes:
        """The image bytes of the row at a position.

        Raises:
            ValueError: The row has no image bytes.
        """
        group = bisect_right(self.starts, index) - 1
        if self._loaded is None or self._loaded[0] != group:
            self._loaded = group, self._load(group)
        content: bytes | None = self._loaded[1][index - self.starts[group]]["bytes"].as_py()
        if content is None:
            raise ValueError("the row has no image bytes")
        return content

    def _load(self, group: int) -> pa.ChunkedArray:
        file, number = self.groups[group]
        # without arrow's threads, which do not exist in a forked worker
        with pq.ParquetFile(file, pre_buffer=False) as table:
            return table.read_row_group(number, columns=["image.bytes"], use_threads=False)["image"]


@dataclass(frozen=True)
class HubRows:
    """Rows of a HuggingFace dataset, through timm's reader."""

    reader: Any
    concurrent = False

    def read(self, index: int) -> Image.Image:
        """Decode the row at a position."""
        with self.reader[index][0] as file:
            return decode(file)

    def content(self, index: int) -> bytes:
        """The image bytes of the row at a position."""
        with self.reader[index][0] as file:
            content: bytes = file.read()
            return content


@dataclass(frozen=True)
class Subset:
    """Some of the images of another reader."""

    reader: Reader
    indices: tuple[int, ...]

    @property
    def concurrent(self) -> bool:
        """Whether several threads may read at once."""
        return self.reader.concurrent

    def read(self, index: int) -> Image.Image:
        """Decode the image at a position of the subset."""
        return self.reader.read(self.indices[index])

    def content(self, index: int) -> bytes:
        """The bytes of the image at a position of the subset."""
        return self.reader.content(self.indices[index])
