"""Which files are images, and what is said of the others."""

from pathlib import Path

import pytest
from made_images import TENCH, write_folder, write_tar
from PIL import Image, features
from torchvision.transforms.functional import pil_to_tensor

from tokbench.data.formats import describe_left_out, is_image
from tokbench.data.loading import batches
from tokbench.data.sets import DataError, open_images

FORMATS = {"webp": "WEBP", "bmp": "BMP", "tif": "TIFF", "tiff": "TIFF", "gif": "GIF", "ppm": "PPM", "tga": "TGA"}
FORMATS |= {"jfif": "JPEG", "JPEG": "JPEG", "JPG": "JPEG", "Png": "PNG", "WEBP": "WEBP"}


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_is_read(suffix: str, tmp_path: Path) -> None:
    (tmp_path / TENCH).mkdir()
    Image.new("RGB", (8, 8), (0, 0, 0)).save(tmp_path / TENCH / f"a.{suffix}", FORMATS[suffix])
    images = open_images(tmp_path)
    assert images.ignored == {}
    ((batch, lost),) = batches(images, pil_to_tensor, batch_size=1, workers=0)
    assert lost == ()
    assert batch.images.shape == (1, 3, 8, 8)
    assert batch.images.max() <= 2  # JPEG is not exact


@pytest.mark.parametrize(("suffix", "codec"), [("avif", "avif"), ("jp2", "jpg_2000")])
def test_formats_that_pillow_may_lack(suffix: str, codec: str, tmp_path: Path) -> None:
    if not features.check(codec):
        pytest.skip(f"Pillow was built without {codec}")
    (tmp_path / TENCH).mkdir()
    Image.new("RGB", (8, 8), (0, 0, 0)).save(tmp_path / TENCH / f"a.{suffix}")
    assert open_images(tmp_path).reader.read(0).size == (8, 8)


@pytest.mark.parametrize("suffix", "pdf mpg mpeg eps ps fits h5 hdf grib bufr wmf ico txt npy zip csv json mp4".split())
def test_what_is_no_photograph_is_left_out(suffix: str) -> None:
    assert not is_image(f"{TENCH}/a.{suffix}")
    assert not is_image(f"{TENCH}/a.{suffix.upper()}")


def test_hidden_files_are_no_images() -> None:
    assert not any(map(is_image, (f"{TENCH}/._a.jpg", ".a.jpg", f".cache/{TENCH}/a.jpg", f"__MACOSX/{TENCH}/._a.jpg")))


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_files_left_out_are_counted(kind: str, tmp_path: Path) -> None:
    names = [f"{TENCH}/a.jpg", f"{TENCH}/b.heicx", "c.HEICX", "README", "n.txt", ".hidden", f"{TENCH}/._a.jpg"]
    names.append("LOC_val_solution.csv")
    source = write_folder(tmp_path / "set", names) if kind == "folder" else write_tar(tmp_path / "a.tar", names)
    images = open_images(source)
    assert images.names == (f"{TENCH}/a.jpg",)
    assert images.ignored == {".heicx": 2, "": 1, ".txt": 1}
    assert next(iter(images.ignored)) == ".heicx"
    line = describe_left_out(images.ignored)
    assert line == "4 files that are no images were left out of the data (2 .heicx, 1 without a suffix, 1 .txt)"


def test_files_left_out_survive_head_and_are_no_part_of_the_identity(tmp_path: Path) -> None:
    root = write_folder(tmp_path, [f"{TENCH}/{number}.png" for number in range(4)])
    before = open_images(root)
    (root / "notes.txt").write_text("notes")
    after = open_images(root)
    assert after.identity == before.identity
    assert after.head(2).identity == before.head(2).identity
    assert after.head(2).ignored == {".txt": 1}


def test_nothing_is_said_where_nothing_is_left_out() -> None:
    assert describe_left_out({}) is None
    assert describe_left_out({".md": 1}) == "1 file that is no image was left out of the data (1 .md)"
    many = {f".{letter}": 1000 for letter in "abcdefg"}
    assert describe_left_out(many) == (
        "7,000 files that are no images were left out of the data (1,000 .a, 1,000 .b, 1,000 .c, 1,000 .d, 1,000 .e, "
        "others)"
    )


def test_a_folder_with_no_images_says_what_images_are(tmp_path: Path) -> None:
    write_folder(tmp_path, [f"{TENCH}/a.npy"])
    with pytest.raises(DataError, match=r"has no images \(\.jpg, \.png, \.webp or others that Pillow reads\)"):
        open_images(tmp_path)
