"""Images of every colour mode are decoded as timm decodes them: `Image.open(file).convert("RGB")`, and nothing else."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from own_models import tiny
from PIL import Image, features
from timm.data import ImageDataset
from timm.data.readers.reader_image_folder import ReaderImageFolder
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from tokbench.data.loading import batches
from tokbench.data.preprocessing import preprocessing_of
from tokbench.data.sets import Labelling, open_images

SIZE = (48, 40)  # width, height


def noise(*channels: int, dtype: type = np.uint8, seed: int = 0) -> np.ndarray:
    highest = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, highest, (SIZE[1], SIZE[0], *channels), dtype=dtype, endpoint=True)


def of_mode(mode: str, channels: int) -> Image.Image:
    """Noise in a mode of several channels."""
    return Image.frombytes(mode, SIZE, noise(channels).tobytes())


def palette(**transparency: object) -> bytes:
    image = Image.fromarray(noise(3)).quantize(16)
    image.info |= transparency
    return encoded(image, "PNG", **transparency)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(orientation: int) -> bytes:
    """A photograph with the orientation that a camera held sideways writes."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(Image.fromarray(noise(3)), "JPEG", exif=exif)


RGB = of_mode("RGB", 3)
FILES: dict[str, Callable[[], bytes]] = {
    "cmyk.jpg": lambda: encoded(of_mode("CMYK", 4), "JPEG"),
    "cmyk.tiff": lambda: encoded(of_mode("CMYK", 4), "TIFF"),
    "ycbcr.jpg": lambda: encoded(RGB, "JPEG"),
    "palette.png": palette,
    "palette_with_a_transparent_colour.png": lambda: palette(transparency=3),
    "palette_with_transparent_colours.png": lambda: palette(transparency=bytes(range(0, 256, 16))),
    "palette.gif": lambda: encoded(RGB.quantize(16), "GIF", transparency=2),
    "palette.bmp": lambda: encoded(RGB.quantize(16), "BMP"),
    "grey.png": lambda: encoded(Image.fromarray(noise()), "PNG"),
    "grey.JPG": lambda: encoded(Image.fromarray(noise()), "JPEG"),
    "grey_of_16_bits.png": lambda: encoded(Image.fromarray(noise(dtype=np.uint16)), "PNG"),
    "grey_of_16_bits.tif": lambda: encoded(Image.fromarray(noise(dtype=np.uint16)), "TIFF"),
    "grey_of_32_bits.tif": lambda: encoded(Image.fromarray(noise(dtype=np.int32)), "TIFF"),
    "fractions.tif": lambda: encoded(Image.fromarray(noise().astype(np.float32)), "TIFF"),
    "grey_with_alpha.png": lambda: encoded(of_mode("LA", 2), "PNG"),
    "colours_with_alpha.PNG": lambda: encoded(of_mode("RGBA", 4), "PNG"),
    "colours_with_alpha.webp": lambda: encoded(of_mode("RGBA", 4), "WEBP", lossless=True),
    "one_bit.png": lambda: encoded(Image.fromarray(noise()).convert("1"), "PNG"),
    "lab.tif": lambda: encoded(of_mode("LAB", 3), "TIFF"),
    "colours.webp": lambda: encoded(RGB, "WEBP"),
    "colours.avif": lambda: encoded(RGB, "AVIF"),
    "colours.bmp": lambda: encoded(RGB, "BMP"),
    "colours.TIFF": lambda: encoded(RGB, "TIFF"),
    **{f"turned_{orientation}.jpg": lambda orientation=orientation: turned(orientation) for orientation in range(1, 9)},
}


def timm_pixels(root: Path, name: str, transform: Callable[[Image.Image], Tensor]) -> Tensor:
    """What timm's data set gives for a file of the folder `class`."""
    reader = ReaderImageFolder(str(root), input_key=f".{name.rpartition('.')[2].lower()}")
    (place,) = (i for i in range(len(reader)) if reader.filename(i, basename=True) == name)
    image, _ = ImageDataset(str(root), reader=reader, transform=transform)[place]
    return torch.as_tensor(image)


@pytest.mark.parametrize("name", FILES)
def test_pixels_are_timm_s(name: str, tmp_path: Path) -> None:
    if name.endswith(".avif") and not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / name).write_bytes(FILES[name]())
    images = open_images(tmp_path, Labelling(outputs=(1,)))
    resize = preprocessing_of(tiny(3)).pixels
    for transform in (pil_to_tensor, resize):
        ((batch, lost),) = batches(images, transform, batch_size=1, workers=0)
        assert lost == ()
        assert torch.equal(batch.images[0], timm_pixels(tmp_path, name, transform))


def read(content: bytes, tmp_path: Path, suffix: str) -> np.ndarray:
    (tmp_path / "class").mkdir()
    (tmp_path / "class" / f"a{suffix}").write_bytes(content)
    return np.asarray(open_images(tmp_path, Labelling(outputs=(1,))).reader.read(0))


def test_a_photograph_is_not_turned(tmp_path: Path) -> None:
    """The page on data says so."""
    assert read(turned(6), tmp_path, ".jpg").shape == (SIZE[1], SIZE[0], 3)


def test_alpha_is_dropped(tmp_path: Path) -> None:
    image = of_mode("RGBA", 4)
    assert np.array_equal(read(encoded(image, "PNG"), tmp_path, ".png"), np.asarray(image)[..., :3])


def test_cmyk_is_inverted_and_multiplied(tmp_path: Path) -> None:
    image = of_mode("CMYK", 4)
    ink = np.asarray(image).astype(float) / 255
    expected = 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])
    assert np.abs(read(encoded(image, "TIFF"), tmp_path, ".tif") - expected).max() <= 1


def test_sixteen_bits_are_clipped(tmp_path: Path) -> None:
    grey = noise(dtype=np.uint16)
    grey[0, :4] = (0, 7, 255, 256)
    found = read(encoded(Image.fromarray(grey), "PNG"), tmp_path, ".png")
    assert np.array_equal(found, np.repeat(np.minimum(grey, 255)[..., None], 3, axis=2))


def test_a_transparent_colour_of_a_palette_keeps_its_colour(tmp_path: Path) -> None:
    opaque = np.asarray(Image.open(io.BytesIO(palette())).convert("RGB"))
    assert np.array_equal(read(palette(transparency=3), tmp_path, ".png"), opaque)
