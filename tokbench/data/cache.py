"""Preprocessed images kept on the disk, so that a second sweep over a set decodes none of them.

One file holds one image, named by a hash of the encoded image and of the preprocessing: an image that changed, moved
or has another name is found by what is in it, and several sets, models and processes may share a folder. A file begins
with the hash of its own pixels, so that a damaged one is not believed.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from tokbench.data.errors import DataError
from tokbench.data.preprocessing import Preprocessing
from tokbench.files import write_atomically

__all__ = ["PixelCache", "open_cache"]

_DIGEST = hashlib.sha256().digest_size


@dataclass(frozen=True)
class PixelCache:
    """A folder of preprocessed images.

    Attributes:
        folder: Where they lie.
        shape: (C, H, W) of every image.
        preprocessing: The identity of the preprocessing.
    """

    folder: Path
    shape: tuple[int, int, int]
    preprocessing: str

    def get(self, content: bytes) -> Tensor | None:
        """The pixels (C, H, W) uint8 of an encoded image, or None where there are none or they are damaged."""
        try:
            kept = self._path(content).read_bytes()
        except FileNotFoundError:
            return None
        digest, pixels = kept[:_DIGEST], bytearray(kept[_DIGEST:])
        if hashlib.sha256(pixels).digest() != digest:
            return None
        return torch.frombuffer(pixels, dtype=torch.uint8).view(self.shape)

    def put(self, content: bytes, pixels: Tensor) -> None:
        """Keep the pixels (C, H, W) uint8 of an encoded image.

        Raises:
            DataError: They cannot be written.
        """
        raw = pixels.contiguous().numpy().tobytes()
        path = self._path(content)
        try:
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, lambda scratch: scratch.write_bytes(hashlib.sha256(raw).digest() + raw))
        except OSError as error:
            raise _unwritable(self.folder, error) from error

    def _path(self, content: bytes) -> Path:
        name = hashlib.sha256(self.preprocessing.encode() + content).hexdigest()
        return self.folder / name[:2] / name


def open_cache(folder: Path, preprocessing: Preprocessing) -> PixelCache:
    """Open a folder, and make it where it is missing.

    Raises:
        DataError: It cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "CACHEDIR.TAG", lambda scratch: scratch.write_text(_TAG, encoding="ascii"))
    except OSError as error:
        raise _unwritable(folder, error) from error
    return PixelCache(folder, preprocessing.shape, preprocessing.identity)


# Backup programs leave a folder out that says so (Cache Directory Tagging Specification).
_TAG = "Signature: 8a477f597d28d172789f06886806bc55\n# Preprocessed images; may be deleted.\n"


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(f"cannot keep images in {folder} ({error.strerror}): name another folder with --cache, or none")
