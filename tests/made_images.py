"""Tiny image sets of known colours and classes, made on the spot."""

import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tokbench.data.sets import ImageSet

# classes 0, 1, 281 and 999
TENCH, GOLDFISH, TABBY, TISSUE = "n01440764", "n01443537", "n02123045", "n15075141"

Pixel = tuple[int, int, int]


def png(colour: Pixel) -> bytes:
    """A 4×4 image of one colour, which survives a lossless format exactly."""
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(buffer, "PNG")
    return buffer.getvalue()


def colour_of(position: int) -> Pixel:
    return position, 255 - position, 7


def write_folder(root: Path, names: list[str]) -> Path:
    for position, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(png(colour_of(position)))
    return root


def write_tar(archive: Path, names: list[str]) -> Path:
    with tarfile.open(archive, "w") as tar:
        for position, name in enumerate(names):
            member = tarfile.TarInfo(name)
            member.size = len(png(colour_of(position)))
            tar.addfile(member, io.BytesIO(png(colour_of(position))))
    return archive


def write_parquet(file: Path, labels: list[int | None], class_names: list[str] | None = None) -> Path:
    """HuggingFace's layout, two rows a row group."""
    rows = [
        {"image": {"bytes": png(colour_of(position)), "path": f"{position}.png"}, "label": label}
        for position, label in enumerate(labels)
    ]
    label = {"_type": "ClassLabel", "names": class_names} if class_names else {"_type": "Value", "dtype": "int64"}
    features = {"info": {"features": {"image": {"_type": "Image"}, "label": label}}}
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, file, row_group_size=2)
    return file


def colours(images: ImageSet) -> list[object]:
    return [images.reader.read(i).getpixel((0, 0)) for i in range(len(images))]


def in_memory(count: int) -> ImageSet:
    return ImageSet("made", tuple(map(str, range(count))), tuple(range(count)), None, Picture())


class Picture:
    """A reader whose picture says its position."""

    def content(self, index: int) -> bytes:
        return png(colour_of(index))

    def read(self, index: int) -> Image.Image:
        return Image.new("RGB", (4, 4), colour_of(index))
