"""Which files of a set are images, and what is left out."""

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from posixpath import basename, splitext

from PIL import Image

__all__ = ["count_left_out", "describe_left_out", "hidden", "image_formats", "is_image"]

# Formats that Pillow knows and that hold no photographs: documents, scientific data, films, icons and brushes.
_NO_PHOTOGRAPHS = frozenset(
    "BUFR CUR EPS FITS FLI FTEX GBR GRIB HDF5 ICNS ICO IPTC MCIDAS MIC MPEG PDF SPIDER WMF XVTHUMB".split()
)


@cache
def image_formats() -> tuple[str, ...]:
    """Pillow's names of the formats that are read, sorted."""
    Image.init()
    return tuple(sorted(Image.OPEN.keys() - _NO_PHOTOGRAPHS))


@cache
def _suffixes() -> frozenset[str]:
    formats = image_formats()
    return frozenset(suffix for suffix, name in Image.registered_extensions().items() if name in formats)


def is_image(name: str) -> bool:
    """Whether a path, by its suffix, is an image that Pillow can read; hidden files are not."""
    return splitext(name)[1].lower() in _suffixes() and not hidden(name)


def hidden(name: str) -> bool:
    """Whether a file or one of its folders is hidden, as macOS's `._a.jpg` is."""
    return "/." in f"/{name}"


def count_left_out(names: Iterable[str], solution: str) -> dict[str, int]:
    """How many files of each suffix are neither images nor hidden nor the list of solutions, most of them first."""
    others = (name for name in names if not is_image(name) and not hidden(name) and basename(name) != solution)
    return dict(Counter(splitext(name)[1].lower() for name in others).most_common())


def describe_left_out(ignored: Mapping[str, int]) -> str | None:
    """One line that says what of a set was left out, `ImageSet.ignored`; None if nothing was."""
    if not ignored:
        return None
    total = sum(ignored.values())
    kinds = [f"{count:,} {suffix or 'without a suffix'}" for suffix, count in list(ignored.items())[:5]]
    more = ["others"] if len(ignored) > len(kinds) else []
    files = "file that is no image was" if total == 1 else "files that are no images were"
    return f"{total:,} {files} left out of the data ({', '.join([*kinds, *more])})"
