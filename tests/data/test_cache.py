"""The cache of preprocessed images: lookup by content, damaged entries, errors."""

import multiprocessing
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_images import TABBY, TENCH, in_memory, write_folder, write_parquet, write_tar
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from tokbench.data.cache import PixelCache, open_cache
from tokbench.data.loading import batches
from tokbench.data.preprocessing import Preprocessing
from tokbench.data.sets import DataError, ImageSet, open_images

NAMES = [f"{TENCH}/{i}.png" for i in range(3)] + [f"{TABBY}/{i}.png" for i in range(3)]


def preprocessing(identity: str = "a") -> Preprocessing:
    return Preprocessing(pil_to_tensor, (3, 4, 4), (0.5,) * 3, (0.5,) * 3, identity)


def must_not_decode(image: Image.Image) -> Tensor:
    raise AssertionError("an image was decoded")


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    return open_images(write_folder(tmp_path / "set", NAMES))


@pytest.fixture
def cache(tmp_path: Path) -> PixelCache:
    return open_cache(tmp_path / "cache", preprocessing())


def load(images: ImageSet, cache: PixelCache | None, transform=pil_to_tensor, workers: int = 0) -> Tensor:
    stream = batches(images, transform, batch_size=4, workers=workers, cache=cache)
    return torch.cat([batch.images for batch, _ in stream])


def entries(cache: PixelCache) -> list[Path]:
    return sorted(path for path in cache.folder.rglob("*") if path.parent != cache.folder and path.is_file())


@pytest.mark.parametrize("workers", [0, 2])
def test_cached_images_are_identical_and_not_decoded_again(images: ImageSet, cache: PixelCache, workers: int) -> None:
    plain = load(images, None)
    assert torch.equal(load(images, cache, workers=workers), plain)
    assert len(entries(cache)) == 6
    assert torch.equal(load(images, cache, must_not_decode, workers), plain)


def test_entries_are_found_from_any_path_and_kind_of_set(images: ImageSet, cache: PixelCache, tmp_path: Path) -> None:
    plain = load(images, cache)
    shutil.copytree(tmp_path / "set", tmp_path / "elsewhere")
    archive = write_tar(tmp_path / "set.tar", NAMES)
    table = write_parquet(tmp_path / "set.parquet", [0] * 3 + [281] * 3)
    for source in (tmp_path / "elsewhere", archive, table):
        other = open_images(source)
        assert sorted(load(other, cache, must_not_decode).flatten(1).tolist()) == sorted(plain.flatten(1).tolist())
    assert torch.equal(load(images.head(2), cache, must_not_decode), plain[[0, 3]])


def test_changed_image_with_the_same_name_is_a_new_entry(images: ImageSet, cache: PixelCache, tmp_path: Path) -> None:
    load(images, cache)
    file = tmp_path / "set" / NAMES[0]
    Image.new("RGB", (4, 4), (9, 9, 9)).save(file)
    assert load(open_images(tmp_path / "set"), cache)[:, :, 0, 0].tolist().count([9, 9, 9]) == 1


def test_other_preprocessing_has_its_own_entries(images: ImageSet, cache: PixelCache) -> None:
    load(images, cache)
    other = open_cache(cache.folder, preprocessing("b"))
    stream = batches(images, must_not_decode, batch_size=6, workers=0, cache=other)
    assert [item.reason for _, lost in stream for item in lost] == ["an image was decoded"] * 6


@pytest.mark.parametrize("damage", [b"", b"x" * 20, b"\0" * 80], ids=["empty", "truncated", "other pixels"])
def test_damaged_entry_is_decoded_again_and_replaced(images: ImageSet, cache: PixelCache, damage: bytes) -> None:
    plain = load(images, cache)
    entries(cache)[2].write_bytes(damage)
    assert torch.equal(load(images, cache), plain)
    assert torch.equal(load(images, cache, must_not_decode), plain)


def test_entry_that_cannot_be_read_does_not_cost_its_image(images: ImageSet, cache: PixelCache) -> None:
    load(images, cache)
    entry = entries(cache)[0]
    entry.unlink()
    entry.mkdir()
    with pytest.raises(DataError, match=r"^cannot write to the cache .* \(Is a directory\)"):
        load(images, cache)


def test_flipped_bit_is_detected(images: ImageSet, cache: PixelCache) -> None:
    plain = load(images, cache)
    entry = entries(cache)[0]
    content = bytearray(entry.read_bytes())
    content[-1] ^= 1
    entry.write_bytes(content)
    assert torch.equal(load(images, cache), plain)


def test_unreadable_image_stays_unreadable(images: ImageSet, cache: PixelCache, tmp_path: Path) -> None:
    (tmp_path / "set" / NAMES[1]).write_bytes(b"not an image")
    (tmp_path / "set" / NAMES[2]).unlink()
    for _ in range(2):
        stream = list(batches(images, pil_to_tensor, batch_size=6, workers=0, cache=cache))
        ((batch, lost),) = stream
        assert len(batch.index) == 4
        assert [one.reason for one in lost] == ["not an image", "No such file or directory"]
    assert len(entries(cache)) == 4


@pytest.mark.parametrize("workers", [0, 1])
def test_unwritable_cache_is_an_error_of_one_line(images: ImageSet, cache: PixelCache, workers: int) -> None:
    shutil.rmtree(cache.folder)
    with pytest.raises(DataError, match=r"^cannot write to the cache .* \(No such file or directory\): .*--cache"):
        load(images, replace(cache, folder=cache.folder / "gone"), workers=workers)


@pytest.mark.parametrize(("waiting", "processes"), [(0, 0), (1, 1), (2, 2), (9, 3), (None, 3)])
def test_number_of_waiting_batches_limits_the_workers(waiting: int | None, processes: int) -> None:
    before = set(multiprocessing.active_children())
    stream = batches(in_memory(200), pil_to_tensor, batch_size=1, workers=3, waiting=waiting)
    batch, _ = next(stream)
    assert batch.index.tolist() == [0]
    assert len(set(multiprocessing.active_children()) - before) == processes
    stream.close()  # type: ignore[attr-defined]


def test_what_a_killed_process_left_long_ago_is_removed(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    (tmp_path / "ab").mkdir()
    old, young = tmp_path / "ab" / f".old.{ended.pid}", tmp_path / "ab" / f".young.{ended.pid}"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    open_cache(tmp_path, preprocessing())
    assert [path.name for path in (tmp_path / "ab").iterdir()] == [young.name]
