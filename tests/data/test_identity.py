"""The identity of an image set: its names, labels and content, not where and when it was stored."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest
from made_images import TABBY, TENCH, TISSUE, png, write_folder, write_parquet, write_tar
from PIL import Image

from tokbench.data.errors import DataError
from tokbench.data.identity import content_digests
from tokbench.data.sets import ImageSet, open_images

NAMES = [f"{synset}/{number:02d}.png" for synset in (TENCH, TABBY) for number in range(20)]


def written(kind: str, root: Path) -> Path:
    root.mkdir(exist_ok=True)
    if kind == "folder":
        return write_folder(root / "set", NAMES)
    if kind == "tar":
        return write_tar(root / "a.tar", NAMES)
    return write_parquet(root / "a.parquet", [0] * 20 + [281] * 20)


def read_all(images: ImageSet) -> list[str]:
    return [hashlib.sha256(images.reader.content(position)).hexdigest() for position in range(len(images))]


@pytest.mark.parametrize("kind", ["folder", "tar", "parquet"])
def test_content_is_hashed_in_order(kind: str, tmp_path: Path) -> None:
    images = open_images(written(kind, tmp_path))
    assert content_digests(images.reader, len(images)) == read_all(images)
    few = images.head(3)
    assert content_digests(few.reader, 3) == read_all(few)
    assert len({images.identity, few.identity, images.head(4).identity}) == 3


@pytest.mark.parametrize("kind", ["folder", "tar", "parquet"])
def test_same_content_elsewhere_and_at_another_time_is_the_same_set(kind: str, tmp_path: Path) -> None:
    first, second = (written(kind, tmp_path / folder) for folder in ("first", "second"))
    for path in (second, *second.rglob("*")):
        os.utime(path, ns=(1, 1))
    one, other = open_images(first), open_images(second)
    assert one.identity == other.identity
    assert one.head(7).identity == other.head(7).identity
    assert len(bytes.fromhex(one.identity)) == 32


@pytest.mark.parametrize("position", [0, 13, 39])
def test_changed_content_of_the_same_size_and_time_is_another_set(position: int, tmp_path: Path) -> None:
    root = written("folder", tmp_path)
    before = open_images(root)
    identity, head = before.identity, before.head(1).identity
    file = root / sorted(NAMES)[position]
    content, times = bytearray(file.read_bytes()), file.stat()
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    after = open_images(root)
    assert after.identity != identity
    assert (after.head(1).identity != head) == (position == 0)


def test_names_and_labels_belong_to_the_identity(tmp_path: Path) -> None:
    root = write_folder(tmp_path, [f"{TENCH}/a.png", f"{TABBY}/b.png"])
    identities = {open_images(root).identity}
    (root / TABBY / "b.png").rename(root / TABBY / "c.png")
    identities.add(open_images(root).identity)
    (root / TABBY).rename(root / TISSUE)
    identities.add(open_images(root).identity)
    assert len(identities) == 3

    # the same names and contents, other classes
    for labels in ([0, 1], [0, 2]):
        identities.add(open_images(write_parquet(tmp_path / "tables" / "a.parquet", labels)).identity)
    assert len(identities) == 5


def test_a_part_reads_its_own_images_only(tmp_path: Path) -> None:
    root = written("folder", tmp_path)
    part = open_images(root).head(2)
    for name in set(NAMES) - set(part.names):
        (root / name).unlink()
    identity = part.identity
    shutil.rmtree(root)
    assert part.identity == identity  # kept
    assert open_images(written("folder", tmp_path)).head(2).identity == identity


def test_an_image_that_cannot_be_read_is_another_set_until_it_can(tmp_path: Path) -> None:
    root = written("folder", tmp_path)
    whole = open_images(root).identity
    file = root / NAMES[3]
    content = file.read_bytes()
    file.unlink()
    file.symlink_to("nowhere")
    broken = open_images(root).identity
    assert open_images(root).identity == broken
    file.unlink()
    file.write_bytes(content)
    assert open_images(root).identity == whole != broken


def test_decoded_images_may_be_the_same_and_their_files_not(tmp_path: Path) -> None:
    root = write_folder(tmp_path, [f"{TENCH}/a.png"])
    identity = open_images(root).identity
    assert (root / TENCH / "a.png").read_bytes() == png((0, 255, 7))
    Image.new("RGB", (4, 4), (0, 255, 7)).save(root / TENCH / "a.png", "BMP")
    assert open_images(root).identity != identity


def coloured(root: Path, colours: dict[str, int]) -> ImageSet:
    for name, red in colours.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png((red, 10, 20)))
    return open_images(root)


def test_a_part_is_set_apart_by_what_is_in_the_images(tmp_path: Path) -> None:
    colours = {f"{synset}/{red:03d}.png": red for red in range(200) for synset in (TENCH, TABBY)}
    images = coloured(tmp_path / "all", colours)
    apart, rest = images.set_apart(0.3)
    assert sorted(apart.names + rest.names) == sorted(images.names)
    assert {name[-7:] for name in apart.names}.isdisjoint(name[-7:] for name in rest.names)  # copies stay together
    assert apart.labels == tuple(images.labels[images.names.index(name)] for name in apart.names)
    assert read_all(apart) == [hashlib.sha256(png((int(name[-7:-4]), 10, 20))).hexdigest() for name in apart.names]
    assert 0.2 < len(apart) / len(images) < 0.4
    # The threshold is on the hash alone, so a larger fraction contains a smaller one, and a subset is divided alike.
    assert set(apart.names) < set(images.set_apart(0.5)[0].names)
    few = coloured(tmp_path / "few", dict(list(colours.items())[100:160]))
    assert set(few.set_apart(0.3)[0].names) == set(apart.names) & set(few.names)


def test_an_unreadable_image_is_not_set_apart(tmp_path: Path) -> None:
    images = coloured(tmp_path, {f"{TENCH}/{red}.png": red for red in range(40)})
    (tmp_path / TENCH / "7.png").unlink()
    apart, rest = images.set_apart(0.9)
    assert f"{TENCH}/7.png" in rest.names
    assert len(apart) > 20


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-12])
def test_neither_side_may_be_empty(fraction: float, tmp_path: Path) -> None:
    images = coloured(tmp_path, {f"{TENCH}/{red}.png": red for red in range(5)})
    with pytest.raises(DataError, match="choose another fraction"):
        images.set_apart(fraction)
