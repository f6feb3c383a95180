"""The identity of an image set: a hash of its names, labels and the content of its images."""

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any

import pyarrow as pa

from tokbench.data.readers import Reader

__all__ = ["content_digests", "digest"]

_THREADS = 8  # more than one core has: reading waits for the disk or the network


def content_digests(reader: Reader, count: int) -> list[str | None]:
    """The sha256 (hexadecimal) of each encoded image, in their order; None for one that cannot be read.

    Each thread reads one stretch of the images, because a reader may keep what a thread has read last.

    Args:
        reader: Of the images.
        count: How many there are.
    """
    bounds = [count * part // _THREADS for part in range(_THREADS + 1)]
    stretches = [range(start, stop) for start, stop in pairwise(bounds) if start < stop]
    with ThreadPoolExecutor(_THREADS) as threads:
        parts = threads.map(partial(_stretch, reader), stretches)
        return [found for part in parts for found in part]


def digest(*parts: Any) -> str:
    """The sha256 (hexadecimal) of values that JSON can hold."""
    # JSON separates the parts and accepts names that are not valid UTF-8
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _stretch(reader: Reader, positions: Sequence[int]) -> list[str | None]:
    return [_content_digest(reader, position) for position in positions]


def _content_digest(reader: Reader, position: int) -> str | None:
    try:
        return hashlib.sha256(reader.content(position)).hexdigest()
    except (
        OSError,
        ValueError,
        pa.ArrowException,
    ):  # reported when the image is decoded
        return None
