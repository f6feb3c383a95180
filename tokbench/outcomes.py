"""How each image came out, as one character per image, and the shards in which an image set is measured.

In accuracy a character is `0` to `4`, the number of classes ranked before the right one, or `-` for five or more. In
agreement it is `1` where the top-1 is the plain model's, `0` where it is another, or `-` where the models have no
classes. In both it is `?` where the image could not be read.
"""

import numpy as np
from numpy.typing import NDArray

TOP = 5
RIGHT = "0"
WRONG = "-"  # the right class is not among the first five
UNREADABLE = "?"

SAME, ANOTHER, NO_CLASSES = "1", "0", "-"

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
