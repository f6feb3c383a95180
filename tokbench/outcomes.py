"""How each image came out, as one character per image, and the shards in which an image set is measured.

A character is `0` to `4`, the number of classes ranked before the right one; `-` where five or more were; `?` where the
image could not be read.
"""

import numpy as np
from numpy.typing import NDArray

TOP = 5
RIGHT = "0"
WRONG = "-"  # the right class is not among the first five
UNREADABLE = "?"

SHARD = 8  # batches that are decoded, classified by every model and released together: what an interruption can cost


def shards(images: int, batch: int) -> list[range]:
    """The positions of each shard of an image set: whole batches, so that every run cuts the same batches.

    Args:
        images: Size of the set.
        batch: Images per batch.
    """
    step = SHARD * batch
    return [range(start, min(start + step, images)) for start in range(0, images, step)]


def shard_key(key: str, shard: range) -> str:
    """The key of the record of one shard, from the key of the whole measurement."""
    return f"{key}/{shard.start}"


def marks_of(outcomes: str) -> NDArray[np.str_]:
    """(images,) the characters of the outcomes."""
    return np.array([outcomes]).view("U1") if outcomes else np.array([], dtype="U1")
