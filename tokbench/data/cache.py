"""A cache of preprocessed images on disk, so that a second run over a set does not decode them again.

Each image is one file, named by a hash of the encoded image and of the preprocessing. Entries are therefore found by
content: an image may be moved or renamed, a changed image is a different entry, and several sets, models and processes
can share a folder. A file starts with the hash of its pixels, so that damage is detected.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tokbench.data.errors import DataError
from tokbench.data.preprocessing import Preprocessing
from tokbench.files import remove_scratch, write_atomically

__all__ = ["PixelCache", "open_cache"]

_HOUR = 3600  # seconds

_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class PixelCache:
    """A folder of preprocessed images.

    Attributes:
        folder: The folder of the cache.
        shape: (C, H, W) of every image.
        preprocessing: `Preprocessing.identity`.
    """

    folder: Path
    shape: tuple[int, int, int]
    preprocessing: str

    def get(self, content: bytes) -> Tensor | None:
        """The pixels (C, H, W) uint8 of an encoded image, or None if it is not cached or the entry is damaged."""
        try:
            entry = self._path(content).read_bytes()
        except OSError:  # it is decoded again; `put` says what is wrong with the folder
            return None
        digest, pixels = entry[:_DIGEST], bytearray(entry[_DIGEST:])
        if hashlib.sha256(pixels).digest() != digest:
            return None
        return torch.frombuffer(pixels, dtype=torch.uint8).view(self.shape)

    def put(self, content: bytes, pixels: Tensor) -> None:
        """Store the pixels (C, H, W) uint8 of an encoded image.

        Raises:
            DataError: The entry cannot be written.
        """
        raw = pixels.contiguous().numpy().tobytes()
        path = self._path(content)
        try:
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, lambda scratch: scratch.write_bytes(hashlib.sha256(raw).digest() + raw))
        except OSError as error:
            raise _not_writable(self.folder, error) from error

    def _path(self, content: bytes) -> Path:
        name = hashlib.sha256(self.preprocessing.encode() + content).hexdigest()
        return self.folder / name[:2] / name


def open_cache(folder: Path, preprocessing: Preprocessing) -> PixelCache:
    """Open a cache folder; create it if it does not exist.

    Raises:
        DataError: The folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "CACHEDIR.TAG", lambda scratch: scratch.write_text(_TAG, encoding="ascii"))
        for below in folder.iterdir():
            if below.is_dir():
                remove_scratch(below, age=_HOUR)
    except OSError as error:
        raise _not_writable(folder, error) from error
    return PixelCache(folder, preprocessing.shape, preprocessing.identity)


# Backup programs skip a folder with this file (Cache Directory Tagging Specification).
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# Preprocessed images; may be deleted.\n"


def _not_writable(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"cannot write to the cache {folder} ({error.strerror}): use another folder with --cache, or drop --cache"
    )
