"""Token maps: the recorded tokens, and the drawing compared with plain loops over pixels."""

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageColor
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from timm.models.vision_transformer import VisionTransformer

from tokbench import Context, DownsampledViT, Downsampler, Schedule, Tokens, calibrate, create
from tokbench.embedded.images import image_set
from tokbench.errors import UserError
from tokbench.measure.ledger import count_tokens
from tokbench.registry import discover
from tokbench.show import sheet as token_sheet
from tokbench.show.sheet import RED, draw, evenly_spaced
from tokbench.show.token_map import (
    DARKENED,
    LUMA,
    Guess,
    Sheet,
    Snapshot,
    TokenMap,
    class_names,
    follow_tokens,
    paint,
    preprocess,
)
from tokbench.vit.models import load_model

MakeViT = Callable[..., VisionTransformer]

IMAGE = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TEN = [str(index) for index in range(10)]

PATCH = (6, 8)
ROWS, COLUMNS = 4, 5


def per_pixel(owner: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.kron(owner, np.ones(PATCH, dtype=np.int64))


def around(owners: NDArray[np.int64], y: int, x: int) -> set[int]:
    """The owners of a pixel and of its eight neighbours."""
    return set(owners[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2].ravel().tolist())


def random_case(seed: int, low: float = 0.0, high: float = 1.0) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    picture = rng.uniform(low, high, (ROWS * PATCH[0], COLUMNS * PATCH[1], 3))
    return picture, rng.integers(-1, 9, (ROWS, COLUMNS))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, 0.02), (0.98, 1.0)])
def test_every_pixel_has_the_colour_of_its_token(seed: int, low: float, high: float) -> None:
    picture, owner = random_case(seed, low, high)
    original = picture.copy()
    painted, owners = paint(picture, owner), per_pixel(owner)
    assert np.array_equal(picture, original)
    sizes = Counter(owner.ravel().tolist())
    assert {1, 2} <= {min(size, 2) for token, size in sizes.items() if token >= 0}  # both sizes must occur
    means = {token: picture[owners == token].mean(axis=0) for token in sizes}
    outlined = 0
    for y, x in itertools.product(*map(range, owners.shape)):
        token = int(owners[y, x])
        if token == -1:
            assert np.array_equal(painted[y, x], DARKENED * picture[y, x])
        elif sizes[token] == 1:
            assert np.array_equal(painted[y, x], picture[y, x])
        elif around(owners, y, x) == {token}:
            assert painted[y, x] == pytest.approx(means[token])
        else:
            outlined += 1
            assert abs(painted[y, x] @ LUMA - means[token] @ LUMA) > 0.25
    assert outlined
    assert painted.min() >= 0
    assert painted.max() <= 1


def test_image_in_a_single_token_has_no_outline() -> None:
    picture, _ = random_case(0)
    painted = paint(picture, np.zeros((ROWS, COLUMNS), dtype=np.int64))
    assert painted == pytest.approx(np.broadcast_to(picture.mean(axis=(0, 1)), picture.shape))


def test_image_without_reduction_is_unchanged() -> None:
    picture, _ = random_case(0)
    assert np.array_equal(paint(picture, np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)), picture)


def build(vit: VisionTransformer, name: str, keep: float = 0.6, site: str | None = None) -> DownsampledViT:
    torch.manual_seed(0)
    model = DownsampledViT(vit, create(name), Schedule.stages(keep, at=(1, 2)), site=site).eval()
    calibrate(model, IMAGE)
    return model


@pytest.mark.parametrize("name", list(discover()[0]))
def test_counts_match_the_tokens_that_the_modules_read(name: str, tiny_vit: MakeViT) -> None:
    model = build(tiny_vit(), name)
    blocks, guesses = follow_tokens(model, IMAGE, TEN)
    ledger = count_tokens(model, IMAGE)
    counts = [block.count for block in blocks]
    assert [block.depth for block in blocks] == [0, 1, 2, 3]
    assert tuple(counts) == ledger.images[0]
    if model.site == "before_block":
        assert [1 + count for count in counts] == list(ledger.attention)
    else:
        assert [1 + count for count in counts[:-1]] == list(ledger.attention[1:])
    for block in blocks:
        assert block.owner.shape == (4, 4)
        assert block.owner.min() >= -1
        assert block.owner.max() < block.count
    changed = TokenMap((), blocks, guesses).changed_depths
    assert set(changed) <= {1, 2}
    assert changed == (1, 2) or create(name).adaptive  # an adaptive method may keep all tokens


def test_owners_after_selection_merging_and_fusion(tiny_vit: MakeViT) -> None:
    def last(name: str) -> tuple[int, Counter[int]]:
        blocks, _ = follow_tokens(build(tiny_vit(), name), IMAGE, TEN)
        return blocks[-1].count, Counter(blocks[-1].owner.ravel().tolist())

    # 10 and then 6 of 16 patches are kept; EViT has one more token: 11, and then 7 + 1.
    count, patches = last("random_selection")
    assert count == 6
    assert patches == {-1: 10, **dict.fromkeys(range(6), 1)}
    count, patches = last("evit")
    assert count == 8
    assert patches.total() == 16
    assert set(patches) == set(range(8))
    count, patches = last("tome")
    assert count == 6
    assert set(patches) == set(range(6))


class Soft(Downsampler):
    """Mixes the tokens with a fixed matrix."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        return tokens.mix(mixing(keep, tokens.n_patches)[None])


def mixing(rows: int, columns: int) -> torch.Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(3)).softmax(dim=1)


def test_soft_pooling_assigns_a_patch_to_its_largest_weight(tiny_vit: MakeViT) -> None:
    model = DownsampledViT(tiny_vit(), Soft(), Schedule.explicit((5,), at=(1,))).eval()
    blocks, _ = follow_tokens(model, IMAGE, TEN)
    assert blocks[1].count == 5
    assert blocks[1].owner.ravel().tolist() == mixing(5, 16).argmax(dim=0).tolist()


def test_guesses_are_the_most_likely_classes(tiny_vit: MakeViT) -> None:
    model = build(tiny_vit(), "tome")
    _, guesses = follow_tokens(model, IMAGE, TEN)
    with torch.inference_mode():
        probabilities = model(IMAGE).softmax(dim=1)[0].tolist()
    best = sorted(range(10), key=lambda index: -probabilities[index])[:3]
    assert [(guess.index, guess.name) for guess in guesses] == [(index, str(index)) for index in best]
    assert [guess.probability for guess in guesses] == pytest.approx([probabilities[index] for index in best])


def test_model_without_a_classifier_has_no_classes(tiny_vit: MakeViT) -> None:
    vit = tiny_vit(num_classes=0)
    assert class_names(vit) == []
    _, guesses = follow_tokens(DownsampledViT(vit).eval(), IMAGE, class_names(vit))
    assert guesses == ()


def test_imagenet_classes_have_names(tiny_vit: MakeViT) -> None:
    names = class_names(tiny_vit(num_classes=1000))
    assert len(names) == 1000
    assert (names[0], names[281], names[999]) == ("tench", "tabby", "toilet tissue")
    assert names[134] == names[517] == "crane"  # so the index distinguishes them
    assert class_names(tiny_vit()) == TEN


def test_preprocessing_is_that_of_a_comparison() -> None:
    vit = load_model("digits_deit").vit
    canvas = image_set().reader.read(3)
    pixels, picture = preprocess(canvas.convert("RGB"), vit)
    assert torch.equal(pixels[0], create_transform(**resolve_data_config({}, model=vit))(canvas))
    grey = np.asarray(canvas) / 255
    assert picture == pytest.approx(np.repeat(grey[..., None], 3, axis=2), abs=1e-6)


def test_area_not_covered_by_patches_is_not_shown(tiny_vit: MakeViT) -> None:
    vit = tiny_vit(img_size=36)
    vit.pretrained_cfg = {"input_size": (3, 36, 36), "crop_pct": 1.0, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4)}
    colours = np.random.default_rng(0).integers(0, 256, (36, 36, 3), dtype=np.uint8)
    pixels, picture = preprocess(Image.fromarray(colours), vit)
    assert pixels.shape == (1, 3, 36, 36)
    assert picture == pytest.approx(colours[:32, :32] / 255, abs=1e-6)


def test_depths_are_evenly_spaced_up_to_the_last() -> None:
    assert evenly_spaced((3, 6, 9)) == (3, 6, 9)
    assert evenly_spaced(()) == ()
    assert evenly_spaced(range(12)) == (2, 5, 8, 11)
    for count, most in itertools.product(range(1, 30), range(1, 6)):
        depths = evenly_spaced(range(100, 100 + count), most)
        assert len(depths) == len(set(depths)) == min(count, most)
        assert list(depths) == sorted(depths)
        assert depths[-1] == 99 + count
        gaps = np.diff([99, *depths])
        assert gaps.max() - gaps.min() <= 1


def snapshots(*owners: NDArray[np.int64]) -> tuple[Snapshot, ...]:
    return tuple(Snapshot(depth, len(set(owner.ravel()) - {-1}), owner) for depth, owner in enumerate(owners))


START = np.arange(16).reshape(4, 4)
HALVED = START // 2
GREY = np.linspace(0.2, 0.8, 32 * 32).reshape(32, 32, 1).repeat(3, axis=2)


def sheet(caption: tuple[str, ...] = ("merged", "keep 0.5"), best: int = 1, **changes: Any) -> Sheet:
    plain = TokenMap(("plain model",), snapshots(START, START), (Guess(1, "crane", 0.9), Guess(2, "cat", 0.1)))
    merged = TokenMap(caption, snapshots(START, HALVED), (Guess(best, "crane", 0.6), Guess(3, "dog", 0.4)))
    settings = {"image": "a.png", "model": "tiny", "picture": GREY, "plain": plain, "maps": (merged,)}
    return Sheet(**{**settings, **changes})


def positions(panel: NDArray[np.uint8], image: NDArray[np.uint8]) -> Iterator[tuple[int, int]]:
    """The positions (y, x) at which an image contains a panel, pixel by pixel."""
    for y in range(image.shape[0] - panel.shape[0] + 1):
        x, rest = divmod(image[y].tobytes().find(panel[0].tobytes()), 3)
        if x >= 0 and rest == 0 and np.array_equal(image[y : y + len(panel), x : x + panel.shape[1]], panel):
            yield y, x


def test_image_contains_the_panels_pixel_by_pixel() -> None:
    image = np.asarray(draw([sheet()]))
    enlarged = GREY.repeat(14, axis=0).repeat(14, axis=1)  # 448 pixels wide
    (photograph,) = positions((255 * enlarged).round().astype(np.uint8), image)
    (merged,) = positions((255 * paint(enlarged, HALVED)).round().astype(np.uint8), image)
    assert photograph[0] == merged[0]
    assert photograph[1] < merged[1]


def test_each_depth_changed_by_any_method_has_a_row() -> None:
    late = TokenMap(("late",), snapshots(START, START, HALVED), sheet().plain.guesses)
    early = TokenMap(("early",), snapshots(START, HALVED, HALVED), sheet().plain.guesses)
    plain = TokenMap(("plain model",), snapshots(START, START, START), sheet().plain.guesses)
    assert (early.changed_depths, late.changed_depths, plain.changed_depths) == ((1,), (2,), ())
    image = np.asarray(draw([sheet(plain=plain, maps=(early, late))]))
    enlarged = GREY.repeat(14, axis=0).repeat(14, axis=1)
    untouched = list(positions((255 * enlarged).round().astype(np.uint8), image))
    merged = list(positions((255 * paint(enlarged, HALVED)).round().astype(np.uint8), image))
    assert len(untouched) == 1  # only the first in its row: the plain model's; `late` in block 1 is further right
    assert len(merged) == 2
    assert merged[0][0] == untouched[0][0]


def test_different_class_is_marked_even_with_the_same_name() -> None:
    red = ImageColor.getrgb(RED)

    def marked(one: Sheet) -> bool:
        return bool((np.asarray(draw([one])) == red).all(axis=2).any())

    assert not marked(sheet(best=1))
    assert marked(sheet(best=7))


def test_layout_does_not_depend_on_the_names() -> None:
    image = draw([sheet()])
    for text in ("<script>$x_1$\x00\x1b[31m\n\ud800" * 1000, "猫" * 10_000, ""):
        wild = draw([sheet(caption=(text, text), image=text, model=text)])
        assert wild.size == image.size


def test_methods_are_wrapped_into_rows_of_six() -> None:
    one, many = draw([sheet()]), draw([sheet(maps=sheet().maps * 11)])
    assert many.width < 7 * 500
    assert many.height > 1.5 * one.height


def test_too_large_image_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_sheet, "MAX_PIXELS", 2 * draw([sheet()]).width * draw([sheet()]).height)
    draw([sheet()] * 2)
    with pytest.raises(UserError, match="fewer images or methods"):
        draw([sheet()] * 4)
