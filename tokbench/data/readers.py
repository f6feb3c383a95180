"""How one image is read out of a folder, a tar archive, parquet files or a HuggingFace dataset.

Readers travel to the loader's worker processes, so they carry paths and positions and never an open file: two
processes that share a file's offset read each other's images.
"""

import warnings
from bisect import bisect_right
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image


class Reader(Protocol):
    """Reads image by image, in any order and from any process. Picklable."""

    def read(self, index: int) -> Image.Image:
        """Return one image as RGB; raises whatever its decoder raises when it cannot be read."""
        ...

    def content(self, index: int) -> bytes:
        """Return what `read` decodes: two images with the same content have the same pixels."""
        ...


def decode(file: Path | IO[bytes]) -> Image.Image:
    """Decode a whole image to RGB, as timm does.

    Raises:
        Image.DecompressionBombWarning: It has more pixels than `Image.MAX_IMAGE_PIXELS`, as no photograph of these
            sets has; Pillow itself only warns up to twice that many.
        Exception: Whatever Pillow raises for a file that is cut off or no image.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(file) as image:
            return image.convert("RGB")


@dataclass(frozen=True)
class Files:
    """Image files under one folder."""

    root: Path
    names: tuple[str, ...]

    def read(self, index: int) -> Image.Image:
        """Read the file of that position."""
        return decode(self.root / self.names[index])

    def content(self, index: int) -> bytes:
        """The file's bytes."""
        return (self.root / self.names[index]).read_bytes()


@dataclass(frozen=True)
class TarMembers:
    """Members of an uncompressed tar archive, each by its (offset, size) in bytes."""

    archive: Path
    spans: tuple[tuple[int, int], ...]

    def read(self, index: int) -> Image.Image:
        """Read the member of that position."""
        return decode(BytesIO(self.content(index)))

    def content(self, index: int) -> bytes:
        """The member's bytes."""
        offset, size = self.spans[index]
        with self.archive.open("rb") as file:
            file.seek(offset)
            return file.read(size)


class ParquetRows:
    """Rows of parquet files in HuggingFace's layout, read lazily and one row group at a time.

    Args:
        groups: The row groups in order, each a file and a number within it.
        starts: The position of each group's first row among all.
    """

    def __init__(self, groups: tuple[tuple[Path, int], ...], starts: tuple[int, ...]) -> None:
        self.groups = groups
        self.starts = starts
        self._held: tuple[int, pa.ChunkedArray] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # the row group held is megabytes, and of no use to another process
        return ParquetRows, (self.groups, self.starts)

    def read(self, index: int) -> Image.Image:
        """Read the row of that position."""
        return decode(BytesIO(self.content(index)))

    def content(self, index: int) -> bytes:
        """The row's bytes.

        Raises:
            ValueError: It holds none.
        """
        group = bisect_right(self.starts, index) - 1
        if self._held is None or self._held[0] != group:
            self._held = group, self._load(group)
        content: bytes | None = self._held[1][index - self.starts[group]]["bytes"].as_py()
        if content is None:
            raise ValueError("the row holds no image bytes")
        return content

    def _load(self, group: int) -> pa.ChunkedArray:
        file, number = self.groups[group]
        # without arrow's threads, which a forked worker does not inherit
        with pq.ParquetFile(file, pre_buffer=False) as table:
            return table.read_row_group(number, columns=["image.bytes"], use_threads=False)["image"]


@dataclass(frozen=True)
class HubRows:
    """Rows of a HuggingFace dataset, behind timm's reader."""

    reader: Any

    def read(self, index: int) -> Image.Image:
        """Read the row of that position."""
        with self.reader[index][0] as file:
            return decode(file)

    def content(self, index: int) -> bytes:
        """The row's bytes."""
        with self.reader[index][0] as file:
            content: bytes = file.read()
            return content


@dataclass(frozen=True)
class Picked:
    """Some images of another reader."""

    reader: Reader
    indices: tuple[int, ...]

    def read(self, index: int) -> Image.Image:
        """Read the image of that position among those picked."""
        return self.reader.read(self.indices[index])

    def content(self, index: int) -> bytes:
        """The content of that position among those picked."""
        return self.reader.content(self.indices[index])
