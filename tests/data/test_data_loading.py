"""The content of batches, with and without workers, and with damaged files."""

import multiprocessing
import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from made_images import (
    TABBY,
    TENCH,
    Pixel,
    colour_of,
    colours,
    in_memory,
    png,
    write_folder,
    write_parquet,
    write_tar,
)
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from tokbench.data.loading import Batch, Unreadable, batches, check_unreadable
from tokbench.data.sets import DataError, ImageSet, open_images


def pixels(image: Image.Image) -> torch.Tensor:
    return pil_to_tensor(image).float()


@dataclass(frozen=True)
class FailsOnce:
    """A transform that fails for the second image."""

    error: Exception

    def __call__(self, image: Image.Image) -> torch.Tensor:
        if image.getpixel((0, 0)) == colour_of(1):
            raise self.error
        return pixels(image)


def streamed(images: ImageSet, **options: int) -> list[tuple[Batch, tuple[Unreadable, ...]]]:
    return list(batches(images, pixels, **{"batch_size": 4, "workers": 0, **options}))


@settings(deadline=None)  # must not fail on a busy machine
@given(count=st.integers(1, 60), size=st.integers(1, 20), bounds=st.tuples(st.integers(0, 60), st.integers(0, 70)))
def test_batches_cover_the_range_once_and_in_order(count: int, size: int, bounds: tuple[int, int]) -> None:
    start, stop = bounds
    expected = list(range(start, min(stop, count)))
    found = [batch.index.tolist() for batch, _ in streamed(in_memory(count), batch_size=size, start=start, stop=stop)]
    assert found == [expected[i : i + size] for i in range(0, len(expected), size)]


@pytest.fixture(params=["folder", "tar", "parquet"])
def ten(request: pytest.FixtureRequest, tmp_path: Path) -> ImageSet:
    """Ten images of ten colours, in the order of their names."""
    names = [f"{TENCH}/{i}.png" for i in range(5)] + [f"{TABBY}/{i}.png" for i in range(5)]
    if request.param == "folder":
        return open_images(write_folder(tmp_path / "set", names))
    if request.param == "tar":
        return open_images(write_tar(tmp_path / "set.tar", names))
    return open_images(write_parquet(tmp_path / "a.parquet", [0] * 5 + [281] * 5))


def test_batches_do_not_depend_on_the_workers(ten: ImageSet) -> None:
    here, there = streamed(ten, workers=0), streamed(ten, workers=2)
    assert [len(batch.index) for batch, _ in here] == [4, 4, 2]
    for (a, lost_a), (b, lost_b) in zip(here, there, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.index, b.index)
        assert torch.equal(a.labels, b.labels)
        assert lost_a == lost_b == ()
    images = torch.cat([batch.images for batch, _ in there])
    assert images.dtype == torch.float32  # the dtype that the transform returns
    assert images[:, :, 0, 0].tolist() == [list(map(float, colour_of(i))) for i in range(10)]
    assert torch.cat([batch.labels for batch, _ in there]).tolist() == [0] * 5 + [281] * 5


def niceness(_: Image.Image) -> torch.Tensor:
    return torch.full((3, 1, 1), os.nice(0), dtype=torch.uint8)


def test_niceness_applies_only_to_the_workers(ten: ImageSet) -> None:
    own = os.nice(0)
    found = [batch.images for batch, _ in batches(ten, niceness, batch_size=5, workers=1, niceness=3)]
    assert torch.cat(found).unique().tolist() == [own + 3]
    assert os.nice(0) == own


def test_set_is_small_when_pickled_after_reading(ten: ImageSet) -> None:
    ten.reader.read(0)
    sent = pickle.dumps(ten)
    assert len(sent) < 4000
    assert colours(pickle.loads(sent)) == [colour_of(i) for i in range(10)]


@pytest.fixture
def damaged(tmp_path: Path) -> ImageSet:
    """Ten positions, of which 1 (truncated), 4 (empty), 5 (text), 6 and 7 (broken links) cannot be read."""
    root = write_folder(tmp_path, [f"{TENCH}/{i}.png" for i in range(10)])
    noise = Image.effect_noise((64, 64), 90)
    noise.save(root / TENCH / "1.png", "JPEG")
    (root / TENCH / "1.png").write_bytes((root / TENCH / "1.png").read_bytes()[:-600])
    (root / TENCH / "4.png").write_bytes(b"")
    (root / TENCH / "5.png").write_text("not an image")
    for position in (6, 7):
        (root / TENCH / f"{position}.png").unlink()
        (root / TENCH / f"{position}.png").symlink_to(root / "nowhere")
    return open_images(root)


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_images_are_named_and_do_not_move_others(damaged: ImageSet, workers: int) -> None:
    found = streamed(damaged, workers=workers)
    assert [batch.index.tolist() for batch, _ in found] == [[0, 2, 3], [], [8, 9]]
    assert [batch.labels.tolist() for batch, _ in found] == [[0, 0, 0], [], [0, 0]]
    assert [len(batch.images) for batch, _ in found] == [3, 0, 2]
    lost = [item for _, items in found for item in items]
    assert [item.name for item in lost] == [f"{TENCH}/{i}.png" for i in (1, 4, 5, 6, 7)]
    assert "truncated" in lost[0].reason
    assert [item.reason for item in lost[1:]] == ["not an image"] * 2 + ["No such file or directory"] * 2


def test_decompression_bomb_is_unreadable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_folder(tmp_path, [f"{TENCH}/a.png", f"{TENCH}/b.png"])
    Image.new("RGB", (5, 5)).save(tmp_path / TENCH / "b.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16)
    ((batch, lost),) = streamed(open_images(tmp_path))
    assert batch.index.tolist() == [0]
    assert "decompression bomb" in lost[0].reason


def test_parquet_row_without_bytes_is_unreadable(tmp_path: Path) -> None:
    rows = [{"image": {"bytes": None, "path": "a.png"}, "label": 0}, {"image": {"bytes": png((1, 2, 3))}, "label": 1}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    ((batch, lost),) = streamed(open_images(tmp_path))
    assert batch.labels.tolist() == [1]
    assert lost == (Unreadable("a.parquet#0000000", "the row has no image bytes"),)


@pytest.mark.parametrize(
    ("mode", "colour", "suffix", "expected"),
    [
        ("L", 90, "PNG", (90, 90, 90)),
        ("P", 0, "PNG", (0, 0, 0)),
        ("CMYK", (0, 0, 0, 255), "JPEG", (0, 0, 0)),
        ("RGBA", (10, 20, 30, 40), "PNG", (10, 20, 30)),
        ("I;16", 200, "PNG", (200, 200, 200)),
    ],
)
def test_every_mode_is_converted_to_rgb(mode: str, colour: int, suffix: str, expected: Pixel, tmp_path: Path) -> None:
    (tmp_path / TENCH).mkdir()
    Image.new(mode, (8, 8), colour).save(tmp_path / TENCH / f"a.{suffix}")
    image = open_images(tmp_path).reader.read(0)
    assert image.mode == "RGB"
    assert image.getpixel((3, 3)) == expected


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("error", "reason"),
    [(RuntimeError("the transform is broken"), "the transform is broken"), (MemoryError(), "MemoryError")],
)
def test_failure_of_the_transform_costs_its_image_only(workers: int, error: Exception, reason: str) -> None:
    ((batch, lost),) = batches(in_memory(3), FailsOnce(error), batch_size=3, workers=workers)
    assert batch.index.tolist() == [0, 2]
    assert lost == (Unreadable("1", reason),)


def test_stopping_early_ends_the_workers() -> None:
    before = set(multiprocessing.active_children())
    stream: Iterator[object] = batches(in_memory(200), pixels, batch_size=1, workers=2)
    next(stream)
    assert len(set(multiprocessing.active_children()) - before) == 2
    del stream
    assert set(multiprocessing.active_children()) <= before


@pytest.mark.parametrize("workers", [0, 1])
def test_random_state_of_the_caller_is_unchanged(workers: int) -> None:
    before = torch.get_rng_state()
    streamed(in_memory(3), workers=workers)
    assert torch.equal(torch.get_rng_state(), before)


def test_more_than_one_percent_unreadable_is_an_error() -> None:
    lost = [Unreadable(f"{i}.png", "not an image") for i in range(5)]
    check_unreadable(lost, 500)
    check_unreadable([], 0)
    with pytest.raises(DataError, match=r"5 of 499 images .* more than 1 %: 0\.png \(not an image\); 1\.png"):
        check_unreadable(lost, 499)
