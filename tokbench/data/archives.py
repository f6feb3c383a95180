"""Tar archives: where their members are, and the labels of webdataset's samples in them.

A sample of webdataset is several members with one name up to the first dot: `000017.jpg`, and `000017.cls` with the
class, or `000017.json` with an object that has it under `label`.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tokbench.data.errors import DataError
from tokbench.data.formats import is_image
from tokbench.data.labelling import few
from tokbench.data.readers import TarMembers

__all__ = ["Archive", "expand_shards", "open_archive"]

_CLASS, _OBJECT = ".cls", ".json"
_LABEL = "label"
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST_SHARDS = 100_000
_MAX_LABEL = 2**20  # bytes


@dataclass(frozen=True)
class Archive:
    """The images of a tar archive.

    Attributes:
        names: Of the images, sorted.
        reader: Decodes the image at a position.
        files: The names of all files, those with labels excepted.
        links: How many images are links or others that are no files, by suffix.
        labels: The label of each image, as webdataset's samples have it; None where they have none.
    """

    names: tuple[str, ...]
    reader: TarMembers
    files: tuple[str, ...]
    links: Mapping[str, int]
    labels: tuple[str, ...] | None


def open_archive(archive: Path, label_key: str | None = None) -> Archive:
    """Find the images in an archive, and their labels.

    Args:
        archive: An uncompressed tar.
        label_key: What the label is called in the samples' JSON objects; None takes `label`.

    Raises:
        DataError: It cannot be read, or some samples have labels and others none.
    """
    try:
        # "r:" rejects compressed archives: there, reading one image means decompressing everything before it
        with tarfile.open(archive, "r:") as tar:
            spans, links = _spans(tar)
            _check_end_of_archive(archive, tar.offset)
    except Exception as error:  # a damaged header makes tarfile raise almost anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(
            f"{archive} cannot be read as a tar archive ({reason}): decompress it if it ends in .gz, "
            "unpack it if it is another type of archive, or download it again if it is truncated"
        ) from error
    names = tuple(sorted(name for name in spans if is_image(name)))
    labels, used = _labels(archive, names, spans, label_key)
    reader = TarMembers(archive, tuple(spans[name] for name in names))
    return Archive(names, reader, tuple(name for name in spans if name not in used), links, labels)


def expand_shards(path: str) -> list[Path]:
    """The files that a name such as `val-{000000..000003}.tar` stands for; empty if it has no such range."""
    found = _RANGE.search(path)
    if found is None:
        return []
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < _MOST_SHARDS:
        raise DataError(f"{found[0]} in {path} is no range of shards: write it as in val-{{000000..000003}}.tar")
    width = len(found[1])
    return [
        Path(f"{path[: found.start()]}{number:0{width}d}{path[found.end() :]}") for number in range(first, last + 1)
    ]


def _spans(tar: tarfile.TarFile) -> tuple[dict[str, tuple[int, int]], dict[str, int]]:
    """Each file's (offset, size), and how many images are links or others that are no files, by suffix."""
    spans: dict[str, tuple[int, int]] = {}
    others: Counter[str] = Counter()
    for member in tar:
        name = str(PurePosixPath(member.name))
        if member.isfile():
            spans[name] = member.offset_data, member.size  # the last member of a name counts, as when unpacking
        elif member.islnk() and (target := str(PurePosixPath(member.linkname))) in spans:
            spans[name] = spans[target]  # tar stores a file with two names once
        elif not member.isdir() and is_image(name):
            others[f"{PurePosixPath(name).suffix.lower()} (link)"] += 1
    return spans, others


def _check_end_of_archive(archive: Path, end: int) -> None:
    """Raise if the archive does not end with an end marker: tarfile mistakes a broken header for the end."""
    with archive.open("rb") as file:
        file.seek(end)
        if any(file.read(tarfile.BLOCKSIZE)):
            raise tarfile.ReadError(f"broken at byte {end}")


def _labels(
    archive: Path, names: Sequence[str], spans: Mapping[str, tuple[int, int]], label_key: str | None
) -> tuple[tuple[str, ...] | None, set[str]]:
    """The labels of the samples, None where they have none, and the members that they are in."""
    for suffix in (_CLASS, _OBJECT) if label_key is None else (_OBJECT,):
        members = {name: f"{_sample(name)}{suffix}" for name in names}
        there = {member for member in members.values() if member in spans}
        if not there:
            continue
        _check_one_image(archive, {name: member for name, member in members.items() if member in there})
        read = _read_labels(archive, {member: spans[member] for member in there}, label_key)
        labels = [read.get(members[name]) for name in names]
        missing = [name for name, label in zip(names, labels, strict=True) if label is None]
        if not missing:
            return tuple(label for label in labels if label is not None), there
        if len(missing) < len(names):
            raise DataError(
                f"{archive} has no label for {len(missing):,} of {len(names):,} images ({few(missing)}): give each "
                f"sample a {suffix} member"
            )
        if label_key is not None:
            raise DataError(f"{archive}: no sample has '{label_key}' in its {suffix}: correct --label-column")
    return None, set()


def _check_one_image(archive: Path, members: Mapping[str, str]) -> None:
    """Refuse samples with several images, such as a mask beside the photograph, which are not all of the class."""
    counts = Counter(members.values())
    several = [name for name, member in members.items() if counts[member] > 1]
    if several:
        raise DataError(
            f"{archive} has samples of several images ({few(several)}): write shards with one image in each sample"
        )


def _sample(name: str) -> str:
    """The name up to the first dot of its last part."""
    path = PurePosixPath(name)
    return str(path.with_name(path.name.partition(".")[0]))


def _read_labels(archive: Path, spans: Mapping[str, tuple[int, int]], label_key: str | None) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    try:
        with archive.open("rb") as file:
            for member, (offset, size) in sorted(spans.items(), key=lambda item: item[1]):
                if size > _MAX_LABEL:
                    raise ValueError(f"{member} has {size:,} bytes, too many for a label")
                file.seek(offset)
                text = file.read(size).decode("utf-8")
                found[member] = text.strip() if member.endswith(_CLASS) else _in_object(member, text, label_key)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"the labels in {archive} cannot be read ({error}): write the shard again") from error
    return found


def _in_object(member: str, text: str, label_key: str | None) -> str | None:
    try:
        content: Any = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{member}: {error}") from None
    label = content.get(label_key or _LABEL) if isinstance(content, dict) else None
    return str(label) if type(label) in (int, str) else None
