"""Odd images, folders, archives and Parquet files, each written by a function."""

from __future__ import annotations

import io
import os
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, PngImagePlugin

sys.path.insert(0, str(Path(__file__).parents[1]))
from made_images import GOLDFISH, TABBY, TENCH, png, write_folder, write_parquet, write_tar

GOOD = 3  # images beside a bad one
NAMES = [f"{TENCH}/a.png", f"{GOLDFISH}/b.png", f"{TABBY}/c.png"]
BAD = f"{TABBY}/bad.png"


def _image(mode: str = "RGB", size: tuple[int, int] = (5, 7), form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size).save(buffer, form, **options)
    return buffer.getvalue()


def _png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG with a header of our own."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def _with_text(size: int) -> bytes:
    """A PNG with a compressed text of many bytes."""
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "x" * size, zip=True)
    return _image(pnginfo=info)


def _noise(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 48), 50).save(buffer, form)
    return buffer.getvalue()


JPEG = _image(form="JPEG", size=(64, 48))
PNG = png((1, 2, 3))

UNREADABLE: Mapping[str, bytes] = {
    "empty": b"",
    "text": b"hello\n",
    "HTML": b"<html><body>404</body></html>",
    "zeros": bytes(4096),
    "start of a PNG": PNG[:20],
    "cut PNG": _noise("PNG")[:1500],
    "cut JPEG": _noise("JPEG")[:1000],
    "start of a JPEG": JPEG[:2],
    "cut header of a JPEG": JPEG[:100],
    "PNG with a wrong checksum": PNG[:29] + b"\0\0\0\0" + PNG[33:],
    "PNG without data": _png(4, 4),
    "PNG of no width": _png(0, 4),
    "PNG of 2^31 pixels a side": _png(2**31 - 1, 2**31 - 1),
    "PNG of 20000 x 20000": _png(20_000, 20_000, bytes(60_000)),
    "PNG of 1 x 60000": _image(size=(1, 60_000)),
    "PNG of 60000 x 1": _image(size=(60_000, 1)),
    "PNG of 1 x 2000": _image(size=(1, 2000), mode="L"),
    "start of a GIF": _image(form="GIF")[:12],
    "start of a WebP": _image(form="WEBP")[:20],
    "start of a BMP": _image(form="BMP")[:20],
    "start of a TIFF": _image(form="TIFF")[:12],
    "LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 2288\n",
    "EPS that calls": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touch ran) (w) file\n",
}
"""None of these may be measured as an image; that of 1 x 2000 may."""

READABLE: Mapping[str, bytes] = {
    "JPEG named .png": JPEG,
    "GIF named .png": _image(form="GIF"),
    "BMP named .png": _image(form="BMP"),
    "WebP named .png": _image(form="WEBP"),
    "TIFF named .png": _image(form="TIFF"),
    "1 x 1": _image(size=(1, 1)),
    "black and white": _image("1"),
    "grey": _image("L"),
    "grey with alpha": _image("LA"),
    "palette": _image("P"),
    "palette, transparent": _image("P", transparency=0),
    "RGBA": _image("RGBA"),
    "16 bits": _image("I;16"),
    "CMYK": _image("CMYK", form="JPEG"),
    "animation": _image("P", form="GIF", save_all=True, append_images=[Image.new("P", (5, 7), 3)]),
    "float": _image("F", form="TIFF"),
    "progressive": _image(form="JPEG", progressive=True),
    "rotated by EXIF": _image(
        form="JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    ),
    "broken EXIF": _image(form="JPEG", exif=b"Exif\0\0" + bytes(range(200))),
    "broken profile": _image(icc_profile=b"no profile"),
    "text of a megabyte": _with_text(1_000_000),
    "bytes after the end": PNG + bytes(1000),
}
UNDECIDED = ("PNG of 1 x 2000", "text of a megabyte", "float")  # both measuring and refusing are right


def _folder(root: Path, content: bytes) -> Path:
    write_folder(root / "data", NAMES)
    (root / "data" / BAD).write_bytes(content)
    return root / "data"


def _tar(root: Path, content: bytes) -> Path:
    archive = write_tar(root / "data.tar", NAMES)
    with tarfile.open(archive, "a") as tar:
        _add(tar, BAD, content)
    return archive


def _add(tar: tarfile.TarFile, name: str, content: bytes = PNG, **fields: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(content))


def _parquet(root: Path, content: bytes) -> Path:
    pictures = [*(png((n, 0, 0)) for n in range(GOOD)), content]
    rows = [{"image": {"bytes": picture, "path": f"{n}.png"}, "label": n} for n, picture in enumerate(pictures)]
    pq.write_table(pa.Table.from_pylist(rows), root / "data.parquet")
    return root / "data.parquet"


CONTAINERS: Mapping[str, Callable[[Path, bytes], Path]] = {"folder": _folder, "tar": _tar, "Parquet": _parquet}


Write = Callable[[Path], Path]


def _tree(make: Callable[[Path], object]) -> Write:
    """A folder of good images, and something more."""

    def write(root: Path) -> Path:
        data = write_folder(root / "data", NAMES)
        make(data)
        return data

    return write


def _archive(*members: tuple[str, bytes, dict[str, Any]]) -> Write:
    """A tar of good images, and more members."""

    def write(root: Path) -> Path:
        archive = write_tar(root / "data.tar", NAMES)
        with tarfile.open(archive, "a") as tar:
            for name, content, fields in members:
                _add(tar, name, content, **fields)
        return archive

    return write


def _bytes(name: str, content: bytes) -> Write:
    def write(root: Path) -> Path:
        (root / name).write_bytes(content)
        return root / name

    return write


def _cut(write: Write, part: float) -> Write:
    def cut(root: Path) -> Path:
        file = write(root)
        os.truncate(file, int(file.stat().st_size * part))
        return file

    return cut


def _table(rows: list[dict[str, Any]]) -> Write:
    def write(root: Path) -> Path:
        pq.write_table(pa.Table.from_pylist(rows), root / "data.parquet")
        return root / "data.parquet"

    return write


def _zip(root: Path) -> Path:
    with zipfile.ZipFile(root / "data.zip", "w") as archive:
        archive.writestr(NAMES[0], PNG)
    return root / "data.zip"


_LINK = {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"}
_HARD = {"type": tarfile.LNKTYPE, "linkname": "../../etc/passwd"}
_ROW = {"image": {"bytes": PNG, "path": "0.png"}, "label": 0}

REFUSED = (0,)
THREE, FOUR = (GOOD,), (GOOD + 1,)
THREE_OR_REFUSED = (0, GOOD)
FOUR_OR_LESS = (0, GOOD, GOOD + 1)

DATA: Mapping[str, tuple[Write, tuple[int, ...]]] = {
    # folders
    "empty folder": (lambda root: root, REFUSED),
    "missing": (lambda root: root / "absent", REFUSED),
    "folder of classes without images": (lambda root: _made(root / "data" / TENCH).parent, REFUSED),
    "folder of unknown classes": (lambda root: write_folder(root / "data", ["cat/a.png", "dog/b.png"]), REFUSED),
    "folder of unknown synset": (lambda root: write_folder(root / "data", ["n99999999/a.png"]), REFUSED),
    "folder of numbers beyond 1000": (lambda root: write_folder(root / "data", ["1001/a.png", "2/b.png"]), REFUSED),
    "folders 0 and 1000": (lambda root: write_folder(root / "data", ["1000/a.png", "0/b.png"]), REFUSED),
    "FIFO as an image": (_tree(lambda data: os.mkfifo(data / BAD)), FOUR_OR_LESS),
    "socket as data": (lambda root: _linked(root / "data", "/dev/null"), REFUSED),
    "endless device as data": (lambda root: _linked(root / "data.tar", "/dev/zero"), REFUSED),
    "FIFO as data": (lambda root: _fifo(root / "data.tar"), REFUSED),
    "endless device as an image": (_tree(lambda data: (data / BAD).symlink_to("/dev/zero")), FOUR_OR_LESS),
    "broken link as an image": (_tree(lambda data: (data / BAD).symlink_to("absent")), FOUR_OR_LESS),
    "link to itself as an image": (_tree(lambda data: (data / BAD).symlink_to("bad.png")), FOUR_OR_LESS),
    "link to the folder above": (_tree(lambda data: (data / "again").symlink_to(data)), THREE_OR_REFUSED),
    "folder named like an image": (_tree(lambda data: (data / BAD).mkdir()), THREE),
    "text beside images": (_tree(lambda data: (data / "README.txt").write_text("hello")), THREE),
    "hidden file of macOS": (_tree(lambda data: (data / TABBY / "._c.png").write_bytes(bytes(80))), THREE_OR_REFUSED),
    "Thumbs.db": (_tree(lambda data: (data / TABBY / "Thumbs.db").write_bytes(bytes(80))), THREE),
    "name that is no UTF-8": (
        _tree(lambda data: Path(os.fsdecode(os.fsencode(data / TABBY) + b"/caf\xe9.png")).write_bytes(PNG)),
        FOUR_OR_LESS,
    ),
    "line break in a name": (_tree(lambda data: (data / TABBY / "a\nb.png").write_bytes(PNG)), FOUR_OR_LESS),
    "escape in a name": (_tree(lambda data: (data / TABBY / "\x1b[31m.png").write_bytes(PNG)), FOUR_OR_LESS),
    "name of 250 characters": (_tree(lambda data: (data / TABBY / f"{'x' * 246}.png").write_bytes(PNG)), FOUR),
    "name in other scripts": (_tree(lambda data: (data / TABBY / "größe 数据.png").write_bytes(PNG)), FOUR),
    "formula as a name": (_tree(lambda data: (data / TABBY / "=1+1.png").write_bytes(PNG)), FOUR),
    "suffix in capitals": (_tree(lambda data: (data / TABBY / "D.PNG").write_bytes(PNG)), FOUR),
    "train beside val": (
        lambda root: write_folder(root / "data", [f"train/{NAMES[0]}", f"val/{NAMES[1]}"]),
        REFUSED,
    ),
    # archives
    "path traversal": (_archive((f"../../{TABBY}/bad.png", PNG, {})), FOUR_OR_LESS),
    "absolute path": (_archive((f"/{TABBY}/bad.png", PNG, {})), FOUR_OR_LESS),
    "link out of the archive": (_archive((BAD, b"", _LINK)), THREE_OR_REFUSED),
    "hard link out of the archive": (_archive((BAD, b"", _HARD)), THREE_OR_REFUSED),
    "device in the archive": (_archive((BAD, b"", {"type": tarfile.CHRTYPE})), THREE_OR_REFUSED),
    "FIFO in the archive": (_archive((BAD, b"", {"type": tarfile.FIFOTYPE})), THREE_OR_REFUSED),
    "same name twice": (_archive((NAMES[0], PNG, {})), FOUR_OR_LESS),
    "archive in the archive": (_archive((f"{TABBY}/inner.tar", bytes(10240), {})), THREE_OR_REFUSED),
    "empty archive": (_bytes("data.tar", bytes(10240)), REFUSED),
    "archive of no bytes": (_bytes("data.tar", b""), REFUSED),
    "text named .tar": (_bytes("data.tar", b"hello\n" * 200), REFUSED),
    "cut archive": (_cut(_archive((BAD, PNG * 50, {})), 0.4), FOUR_OR_LESS),
    "archive cut in its first header": (_cut(_archive(), 0.01), REFUSED),
    "gzip of nothing named .tar": (_bytes("data.tar", b"\x1f\x8b\x08\0"), REFUSED),
    "zip": (_zip, REFUSED),
    # Parquet
    "text named .parquet": (_bytes("data.parquet", b"hello\n" * 200), REFUSED),
    "empty .parquet": (_bytes("data.parquet", b""), REFUSED),
    "magic alone": (_bytes("data.parquet", b"PAR1PAR1"), REFUSED),
    "footer of 2^31": (_bytes("data.parquet", b"PAR1" + b"\xff\xff\xff\x7f" + b"PAR1"), REFUSED),
    "cut .parquet": (_cut(_table([_ROW] * 4), 0.6), REFUSED),
    "no rows": (lambda root: write_parquet(root / "data.parquet", []), REFUSED),
    "no label": (_table([{"image": _ROW["image"]}]), REFUSED),
    "no image": (_table([{"label": 0}]), REFUSED),
    "label is missing": (_table([_ROW, {**_ROW, "label": None}]), REFUSED),
    "label is negative": (_table([{**_ROW, "label": -1}]), REFUSED),
    "label is 1000": (_table([{**_ROW, "label": 1000}]), REFUSED),
    "label is 2^62": (_table([{**_ROW, "label": 1 << 62}]), REFUSED),
    "label is a text": (_table([{**_ROW, "label": "cat"}]), REFUSED),
    "label is a float": (_table([{**_ROW, "label": 0.5}]), REFUSED),
    "label is a list": (_table([{**_ROW, "label": [0]}]), REFUSED),
    "image is a text": (_table([{**_ROW, "image": "0.png"}]), REFUSED),
    "image is a number": (_table([{**_ROW, "image": 3}]), REFUSED),
    "image is missing": (_table([_ROW, {**_ROW, "image": None}]), REFUSED),
    "image without bytes": (_table([{**_ROW, "image": {"bytes": None, "path": "/etc/passwd"}}]), REFUSED),
    "unknown class names": (lambda root: write_parquet(root / "d.parquet", [0, 1], ["cat", "dog"]), REFUSED),
}


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _linked(path: Path, target: str) -> Path:
    path.symlink_to(target)
    return path


def _fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path
