"""Damaged and absurd image sets: one line that says what is wrong, or images that cannot be read; never a traceback."""

import io
import os
import random
import re
import socket
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_images import TABBY, TENCH, png, write_folder, write_parquet, write_tar
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from tokbench.data.loading import batches
from tokbench.data.sets import DataError, open_images

OFFICIAL = "ILSVRC2012_val_00000001"


def examine(source: Path) -> str:
    """What opening and reading every image of a source comes to: the message of an error, or nothing."""
    message = ""
    try:
        images = open_images(source)
        assert len(images.identity) == 64
        assert len(images.head(2).identity) == 64
        assert len(list(batches(images, pil_to_tensor, batch_size=1, workers=0))) == len(images)
    except DataError as error:
        message = str(error)
    assert message.isprintable()
    return message


def damage(content: bytes, rng: random.Random) -> bytes:
    """A file with one of the faults that disks and downloads make."""
    changed = bytearray(content)
    place = rng.randrange(len(content))
    match rng.randrange(5):
        case 0:
            return content[:place]
        case 1:
            for _ in range(rng.choice((1, 3, 30))):
                changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        case 2:
            changed[place : place + 64] = bytes(len(changed[place : place + 64]))
        case 3:
            changed[place : place + 16] = rng.randbytes(len(changed[place : place + 16]))
        case _:
            changed[place:place] = rng.randbytes(rng.randrange(1, 600))
    return bytes(changed)


@pytest.mark.parametrize("seed", range(40))
def test_damaged_tar(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    archive = tmp_path / "a.tar"
    formats = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    with tarfile.open(archive, "w", format=rng.choice(formats)) as tar:
        for number in range(3):
            member = tarfile.TarInfo(f"{'long' * rng.choice((1, 30))}/{TENCH}/é{number}.png")
            member.size = len(png((1, 2, 3)))
            tar.addfile(member, io.BytesIO(png((1, 2, 3))))
    archive.write_bytes(damage(archive.read_bytes(), rng))
    examine(archive)


@pytest.mark.parametrize("seed", range(60))
def test_damaged_parquet(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    file = write_parquet(tmp_path / "a.parquet", [0, 1, 1, 0], rng.choice((None, [TENCH, TABBY])))
    content = file.read_bytes()
    at = rng.choice((0, len(content) // 2, len(content) - 1500))  # the footer, where the structure is, more often
    file.write_bytes(content[:at] + damage(content[at:], rng))
    examine(file)


@pytest.mark.parametrize("seed", range(40))
def test_odd_folder(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    folders = [TENCH, TABBY, "0", "1000", "0007", "train", "val", "n99999999", "a\nb", "\udcff", ".hidden", "x.jpg"]
    files = [
        "a.png",
        "A.JPEG",
        f"{OFFICIAL}.JPEG",
        "b.webp",
        "._a.jpg",
        "LOC_val_solution.csv",
        "t.parquet",
        "\udce9.bmp",
    ]
    for number in range(rng.randrange(1, 7)):
        path = tmp_path.joinpath(*rng.choices(folders, k=rng.randrange(1, 3)), rng.choice(files))
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = rng.randrange(7)
        if path.exists() or path.is_symlink():
            continue
        if kind == 0:
            path.symlink_to(rng.choice((path, "/nowhere", tmp_path / "up", path.parent)))
        elif kind == 1:
            os.mkfifo(path)
        elif kind == 2:
            path.write_bytes(rng.randbytes(number))
        else:
            path.write_bytes(png((number, 0, 0)))
    examine(tmp_path)


def odd_table(image: pa.DataType, label: pa.DataType, metadata: bytes | None = None) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        schema = pa.schema({"image": image, "label": label})
        table = pa.Table.from_arrays([pa.nulls(2, image), pa.nulls(2, label)], schema=schema)
        pq.write_table(
            table.replace_schema_metadata({"huggingface": metadata} if metadata else None), root / "a.parquet"
        )
        return root / "a.parquet"

    return write


def metadata(text: bytes) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        rows = [{"image": {"bytes": png((1, 2, 3))}, "label": 0}]
        table = pa.Table.from_pylist(rows).replace_schema_metadata({"huggingface": text})
        pq.write_table(table, root / "a.parquet")
        return root

    return write


def solution(content: bytes) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        write_folder(root, [f"{OFFICIAL}.JPEG"])
        (root / "LOC_val_solution.csv").write_bytes(content)
        return root

    return write


def huge_solution(root: Path) -> Path:
    write_folder(root, [f"{OFFICIAL}.JPEG"])
    with (root / "LOC_val_solution.csv").open("wb") as file:
        file.truncate(2**40)
    return root


def fifo(root: Path) -> Path:
    os.mkfifo(root / "a.parquet")
    return root


def link_to_itself(root: Path) -> Path:
    (root / "set").symlink_to(root / "set")
    return root / "set"


IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
HEADER = b"ImageId,PredictionString\n"
MISTAKES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "labels are texts": (odd_table(IMAGE, pa.string()), "has rows whose label is not in"),
    "labels are fractions": (odd_table(IMAGE, pa.float64()), "a 'label' of type double: expected"),
    "labels are booleans": (odd_table(IMAGE, pa.bool_()), "a 'label' of type bool: expected"),
    "labels are lists": (odd_table(IMAGE, pa.list_(pa.int64())), "a 'label' of type list"),
    "images are bytes": (odd_table(pa.binary(), pa.int64()), "an 'image' of type binary: expected"),
    "images are texts": (odd_table(pa.struct({"bytes": pa.string()}), pa.int64()), "an 'image' of type struct"),
    "metadata are no JSON": (metadata(b"{"), "cannot be read as parquet .*: download it again"),
    "metadata are no UTF-8": (metadata(b"\xff\xfe{}"), "cannot be read as parquet"),
    "metadata are nested": (metadata(b"[" * 100_000), "cannot be read as parquet"),
    "metadata are a list": (metadata(b"[]"), "no object with 'info'"),
    "metadata have odd features": (metadata(b'{"info": {"features": [1]}}'), "no object with 'label'"),
    "metadata have odd names": (metadata(b'{"info": {"features": {"label": {"names": [1]}}}}'), "not a list of texts"),
    "table is a FIFO": (fifo, "not a file"),
    "solution is no UTF-8": (solution(HEADER + b"\xff\xfe"), "cannot be read .*: download the list from Kaggle again"),
    "solution is UTF-16": (solution(HEADER.decode().encode("utf-16")), "cannot be read"),
    "solution has a huge field": (solution(HEADER + b"a" * 200_000), "cannot be read .*field larger"),
    "solution is huge": (huge_solution, "more than 64 MiB"),
    "solution is empty": (solution(b""), "has no line for"),
    "solution has other columns": (solution(b"a,b\n1,2\n"), "has no line for"),
    "solution has an unknown class": (solution(HEADER + OFFICIAL.encode() + b",cat 1 2 3 4\n"), "not among the 1,000"),
    "link to itself": (link_to_itself, "does not exist: expected|Symlink loop"),
    "too long a path": (lambda root: root / ("x" * 300), "File name too long"),
    "a device": (lambda _: Path("/dev/null"), "neither a folder nor a file"),
    "home of nobody": (lambda _: Path("~nobody-has-this-name/set"), "cannot be opened"),
    "folder with a newline": (lambda root: write_folder(root, ["a\nb/a.jpg", f"{TENCH}/b.jpg"]), r"from 'a\\nb': name"),
    "folder that is no UTF-8": (
        lambda root: write_folder(root, ["\udcff/a.jpg", f"{TENCH}/b.jpg"]),
        r"from '\\udcff': name",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_user_errors_are_one_line(mistake: str, tmp_path: Path) -> None:
    make, message = MISTAKES[mistake]
    with pytest.raises(DataError, match=message) as caught:
        open_images(make(tmp_path))
    assert str(caught.value).isprintable()


def test_solution_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    source = solution(b"\xef\xbb\xbf" + HEADER + OFFICIAL.encode() + f",{TABBY} 1 2 3 4\n".encode())(tmp_path)
    assert open_images(source).labels == (281,)


def narrow(width: int, height: int) -> Callable[[Path], None]:
    return lambda path: Image.new("RGB", (width, height)).save(path, "PNG")


def bind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))  # a socket's path is short


def too_large(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "narrow": (narrow(1, 60000), "1 x 60000 pixels are too narrow"),
    "flat": (narrow(60000, 1), "60000 x 1 pixels are too narrow"),
    "without pixels": (lambda path: path.write_bytes(b"P6 0 0 255 "), "not an image"),
    "FIFO": (os.mkfifo, "not a file but a FIFO"),
    "socket": (bind, "not a file but a socket"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "not a file but a device"),
    "broken link": (lambda path: path.symlink_to("nowhere"), "No such file or directory"),
    "link to itself": (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    "terabyte": (too_large, "1,099,511,627,776 bytes are too many"),
    "PostScript": (lambda path: path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "not an image"),
}


@pytest.mark.parametrize("fault", UNREADABLE)
def test_one_absurd_file_is_one_unreadable_image(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make, reason = UNREADABLE[fault]
    root = write_folder(tmp_path / "set", [f"{TENCH}/a.png", f"{TENCH}/c.png"])
    make(root / TENCH / "b.jpg")
    images = open_images(root)
    identity = images.identity
    ((batch, lost),) = batches(images, pil_to_tensor, batch_size=3, workers=0)
    assert batch.index.tolist() == [0, 2]
    assert [item.name for item in lost] == [f"{TENCH}/b.jpg"]
    assert re.search(reason, lost[0].reason)

    (root / TENCH / "b.jpg").unlink()
    (root / TENCH / "b.jpg").write_bytes(png((1, 2, 3)))
    assert open_images(root).identity != identity


def test_wide_photograph_is_read(tmp_path: Path) -> None:
    (tmp_path / TENCH).mkdir()
    narrow(3000, 100)(tmp_path / TENCH / "a.png")
    assert open_images(tmp_path).reader.read(0).size == (3000, 100)


def test_link_in_a_tar(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar", [f"{TENCH}/a.png"])
    with tarfile.open(archive, "a") as tar:
        for name, kind in ((f"{TABBY}/hard.png", tarfile.LNKTYPE), (f"{TABBY}/soft.png", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, f"{TENCH}/a.png"
            tar.addfile(member)
    images = open_images(archive)
    assert images.labels == (0, 281)
    assert images.reader.content(0) == images.reader.content(1)
    assert images.ignored == {".png (link)": 1}
