"""The cache of preprocessed images: found by content, checked, and never in the way."""

import multiprocessing
import shutil
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


def refuse(image: Image.Image) -> Tensor:
    raise AssertionError("an image was decoded")


@pytest.fixture
def images(tmp_path: Path) -> ImageSet:
    return open_images(write_folder(tmp_path / "set", NAMES))


@pytest.fixture
def cache(tmp_path: Path) -> PixelCache:
    return open_cache(tmp_path / "cache", preprocessing())


def seen(images: ImageSet, cache: PixelCache | None, transform=pil_to_tensor, workers: int = 0) -> Tensor:
    stream = batches(images, transform, batch_size=4, workers=workers, cache=cache)
    return torch.cat([batch.images for batch, _ in stream])


def entries(cache: PixelCache) -> list[Path]:
    return sorted(path for path in cache.folder.rglob("*") if path.parent != cache.folder and path.is_file())


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_kept_is_what_was_decoded_and_is_not_decoded_again(
    images: ImageSet, cache: PixelCache, workers: int
) -> None:
    plain = seen(images, None)
    assert torch.equal(seen(images, cache, workers=workers), plain)
    assert len(entries(cache)) == 6
    assert torch.equal(seen(images, cache, refuse, workers), plain)


def test_it_is_found_from_any_place_and_kind_of_set(images: ImageSet, cache: PixelCache, tmp_path: Path) -> None:
    plain = seen(images, cache)
    shutil.copytree(tmp_path / "set", tmp_path / "elsewhere")
    archive = write_tar(tmp_path / "set.tar", NAMES)
    table = write_parquet(tmp_path / "set.parquet", [0] * 3 + [281] * 3)
    for source in (tmp_path / "elsewhere", archive, table):
        other = open_images(source)
        assert sorted(seen(other, cache, refuse).flatten(1).tolist()) == sorted(plain.flatten(1).tolist())
    assert torch.equal(seen(images.head(2), cache, refuse), plain[[0, 3]])


def test_another_image_under_the_same_name_is_another_image(
    images: ImageSet, cache: PixelCache, tmp_path: Path
) -> None:
    seen(images, cache)
    file = tmp_path / "set" / NAMES[0]
    Image.new("RGB", (4, 4), (9, 9, 9)).save(file)
    assert seen(open_images(tmp_path / "set"), cache)[:, :, 0, 0].tolist().count([9, 9, 9]) == 1


def test_another_preprocessing_has_entries_of_its_own(images: ImageSet, cache: PixelCache) -> None:
    seen(images, cache)
    other = open_cache(cache.folder, preprocessing("b"))
    with pytest.raises(AssertionError, match="an image was decoded"):
        seen(images, other, refuse)


@pytest.mark.parametrize("damage", [b"", b"x" * 20, b"\0" * 80], ids=["empty", "cut off", "other pixels"])
def test_a_damaged_entry_is_decoded_again_and_mended(images: ImageSet, cache: PixelCache, damage: bytes) -> None:
    plain = seen(images, cache)
    entries(cache)[2].write_bytes(damage)
    assert torch.equal(seen(images, cache), plain)
    assert torch.equal(seen(images, cache, refuse), plain)


def test_a_flipped_bit_is_noticed(images: ImageSet, cache: PixelCache) -> None:
    plain = seen(images, cache)
    entry = entries(cache)[0]
    content = bytearray(entry.read_bytes())
    content[-1] ^= 1
    entry.write_bytes(content)
    assert torch.equal(seen(images, cache), plain)


def test_an_unreadable_image_stays_so(images: ImageSet, cache: PixelCache, tmp_path: Path) -> None:
    (tmp_path / "set" / NAMES[1]).write_bytes(b"no picture")
    (tmp_path / "set" / NAMES[2]).unlink()
    for _ in range(2):
        stream = list(batches(images, pil_to_tensor, batch_size=6, workers=0, cache=cache))
        ((batch, lost),) = stream
        assert len(batch.index) == 4
        assert [one.reason for one in lost] == ["not an image", "No such file or directory"]
    assert len(entries(cache)) == 4


@pytest.mark.parametrize("workers", [0, 1])
def test_a_cache_that_cannot_be_written_is_told_in_one_line(images: ImageSet, cache: PixelCache, workers: int) -> None:
    shutil.rmtree(cache.folder)
    with pytest.raises(DataError, match=r"^cannot keep images in .* \(No such file or directory\): .*--cache"):
        seen(images, replace(cache, folder=cache.folder / "gone"), workers=workers)


@pytest.mark.parametrize(("waiting", "processes"), [(0, 0), (1, 1), (2, 2), (9, 3), (None, 3)])
def test_no_more_batches_wait_than_there_is_room_for(waiting: int | None, processes: int) -> None:
    before = set(multiprocessing.active_children())
    stream = batches(in_memory(200), pil_to_tensor, batch_size=1, workers=3, waiting=waiting)
    batch, _ = next(stream)
    assert batch.index.tolist() == [0]
    assert len(set(multiprocessing.active_children()) - before) == processes
    stream.close()  # type: ignore[attr-defined]
