"""Blocks that models share are computed once, within a bound of memory, and change no answer."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tokbench import Context, DownsampledViT, Downsampler, Schedule, Tokens, create
from tokbench.data.loading import Batch, batches
from tokbench.data.preprocessing import preprocessing_of
from tokbench.embedded.images import image_set
from tokbench.measure.answers import evaluate
from tokbench.measure.image_streams import image_ids
from tokbench.measure.shared_blocks import SharedBlocks
from tokbench.registry import discover
from tokbench.vit.models import load_model

Run = Callable[..., tuple[int, str, str]]

BATCH = 8
ROOM = 2**30

# A method at every site and of every kind of need, and two schedules; the plain model last.
CELLS = (
    ("random_selection", "before_block", "stages(at=3-6-9)"),
    ("score_pruning", "before_block", "stages(at=3-6-9)"),
    ("tome", "after_attention", "stages(at=3-6-9)"),
    ("token_pooling", "after_block", "stages(at=3-6-9)"),
    ("ats", "after_attention", "stages(at=3-6-9)"),
    ("evit", "after_attention", "stages(at=6-9)"),
    ("grid_pooling", "after_attention", "stages(at=0-4)"),
    ("random_selection", "after_attention", "every_block"),
    (None, None, None),
)


@pytest.fixture(scope="module")
def digits() -> VisionTransformer:
    discover([])
    return load_model("digits_deit").vit


@pytest.fixture(scope="module")
def shard(digits: VisionTransformer) -> list[Batch]:
    decoded = batches(image_set(), preprocessing_of(digits).pixels, batch_size=BATCH, workers=0, stop=3 * BATCH)
    return [batch for batch, _ in decoded]


@pytest.fixture(scope="module")
def cells(digits: VisionTransformer) -> list[DownsampledViT]:
    return [built(digits, *cell) for cell in CELLS]


def built(vit: VisionTransformer, method: str | None, site: str | None, schedule: str | None) -> DownsampledViT:
    if method is None or schedule is None:
        return DownsampledViT(vit).eval()
    return DownsampledViT(vit, create(method), Schedule.parse(schedule, 0.6), site=site, seed=3).eval()


def sharing(vit: VisionTransformer | Eva, shard: list[Batch], room: int = ROOM) -> SharedBlocks:
    shared = SharedBlocks(DownsampledViT(vit).eval(), image_ids(image_set().names), preprocessing_of(vit), room)
    for batch in shard:
        shared.add(batch)
    return shared


def outcomes(model: DownsampledViT, shared: SharedBlocks) -> str:
    return evaluate(model, shared, range(3 * BATCH), None)


@pytest.fixture
def blocks_run(digits: VisionTransformer) -> Iterator[Counter[int]]:
    """How often each block of the model has run."""
    run: Counter[int] = Counter()
    hooks = [
        block.mlp.register_forward_hook(lambda *_, depth=depth: run.update([depth]))
        for depth, block in enumerate(digits.blocks)
    ]
    yield run
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("room", [ROOM, 2**19, 0], ids=["for all", "for some batches", "for none"])
def test_each_model_answers_as_it_does_alone(
    digits: VisionTransformer, cells: list[DownsampledViT], shard: list[Batch], room: int
) -> None:
    ids = image_ids(image_set().names)
    preprocessing = preprocessing_of(digits)
    shared = sharing(digits, shard, room)
    for cell in sorted(cells, key=lambda cell: cell.start):
        for number, batch in enumerate(shard):
            own_ids = ids[batch.index]
            with torch.inference_mode():
                images = preprocessing.normalise(batch.images, digits.patch_embed.proj.weight)
                alone = cell(images, own_ids)
                tokens = shared.tokens_at(cell.start, number)
                together = cell.classify(cell.through(tokens, range(cell.start, 12), own_ids))
            assert torch.equal(alone, together)


def test_models_start_where_they_differ_from_the_plain_model(cells: list[DownsampledViT]) -> None:
    # Scores before block 3 are those of block 2, which must run with the method's hooks.
    assert [cell.start for cell in cells] == [3, 2, 3, 3, 3, 6, 0, 0, 12]


def test_shared_blocks_run_once_per_batch(
    digits: VisionTransformer, shard: list[Batch], blocks_run: Counter[int]
) -> None:
    three = [built(digits, method, None, "stages(at=3-6-9)") for method in ("tome", "token_pooling", "evit")]
    shared = sharing(digits, shard)
    for cell in [*three, DownsampledViT(digits).eval()]:
        outcomes(cell, shared)
    assert [blocks_run[depth] for depth in range(12)] == [3] * 3 + [12] * 9


def test_what_a_method_writes_into_its_tokens_changes_no_other_s(shard: list[Batch]) -> None:
    shared = sharing(load_model("digits_rope").vit, shard)
    with torch.inference_mode():
        for _ in range(2):
            tokens = shared.tokens_at(0, 0)
            assert tokens.rotary is not None
            assert torch.equal(tokens.rotary, torch.arange(tokens.n_patches).expand(tokens.size.shape))
            assert torch.equal(tokens.owner, tokens.rotary)
            tokens.rotary.zero_()
            tokens.owner.zero_()


def test_without_room_every_model_runs_all_its_blocks(
    digits: VisionTransformer, shard: list[Batch], blocks_run: Counter[int]
) -> None:
    shared = sharing(digits, shard, room=0)
    for _ in range(2):
        outcomes(built(digits, "tome", None, "stages(at=3-6-9)"), shared)
    assert [blocks_run[depth] for depth in range(12)] == [6] * 12


def test_with_room_for_one_batch_the_others_are_computed_again(
    digits: VisionTransformer, shard: list[Batch], blocks_run: Counter[int]
) -> None:
    with torch.inference_mode():
        one = sharing(digits, shard).tokens_at(3, 0)
    shared = sharing(digits, shard, sum(part.nbytes for part in (one.x, one.size, one.owner)))
    blocks_run.clear()
    for _ in range(2):
        outcomes(built(digits, "tome", None, "stages(at=3-6-9)"), shared)
    assert [blocks_run[depth] for depth in (0, 2, 3)] == [3 + 2, 3 + 2, 6]


def test_what_was_computed_in_advance_is_not_computed_again(
    digits: VisionTransformer, shard: list[Batch], blocks_run: Counter[int]
) -> None:
    tome = built(digits, "tome", None, "stages(at=3-6-9)")
    alone = outcomes(tome, sharing(digits, shard))
    blocks_run.clear()
    shared = sharing(digits, shard)
    for number in range(3):
        shared.advance(tome.start, number)
    assert [blocks_run[depth] for depth in range(12)] == [3] * 3 + [0] * 9
    assert outcomes(tome, shared) == alone
    assert [blocks_run[depth] for depth in range(12)] == [3] * 12


def test_nothing_is_computed_in_advance_without_room(
    digits: VisionTransformer, shard: list[Batch], blocks_run: Counter[int]
) -> None:
    shared = sharing(digits, shard, room=0)
    for number in range(3):
        shared.advance(3, number)
    assert blocks_run[0] == 1


class Big(Downsampler):
    """Runs out of memory while the tokens of three batches are held."""

    name = "big"
    site = "after_attention"

    def __init__(self, shared: SharedBlocks) -> None:
        super().__init__()
        self.shared = shared

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        if len(self.shared._held) > 2:
            raise torch.OutOfMemoryError("no memory")
        return tokens.select(torch.arange(keep).expand(tokens.x.shape[0], keep))


def test_shared_tokens_are_released_when_the_device_runs_out_of_memory(
    digits: VisionTransformer, shard: list[Batch], blocks_run: Counter[int]
) -> None:
    shared = sharing(digits, shard)
    big = DownsampledViT(digits, Big(shared), Schedule.parse("stages(at=3)", 0.5)).eval()
    alone = outcomes(big, sharing(digits, shard))
    for number in range(3):
        shared.advance(3, number)
    blocks_run.clear()
    assert outcomes(big, shared) == alone
    assert blocks_run[0] == 3  # every batch again, once


def test_nothing_is_held_when_sharing_itself_runs_out_of_memory(
    digits: VisionTransformer, shard: list[Batch], blocks_run: Counter[int]
) -> None:
    shared = sharing(digits, shard)
    shared.advance(3, 0)

    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("no memory")

    hook = digits.blocks[1].mlp.register_forward_pre_hook(exhausted)
    shared.advance(3, 1)
    hook.remove()
    blocks_run.clear()
    shared.advance(3, 2)
    assert blocks_run[0] == 0
    assert not shared.stop_holding()


class Scribbler(Downsampler):
    """Writes into its input."""

    name = "scribbler"
    site = "before_block"

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        tokens.x.zero_()
        tokens.size.zero_()
        tokens.owner.zero_()
        return tokens.select(torch.arange(keep).expand(tokens.x.shape[0], keep))


def test_a_method_that_writes_into_its_input_spoils_only_its_own_answers(
    digits: VisionTransformer, shard: list[Batch]
) -> None:
    shared = sharing(digits, shard)
    tome = built(digits, "tome", None, "stages(at=3-6-9)")
    before = outcomes(tome, shared)
    spoilt = DownsampledViT(digits, Scribbler(), Schedule.parse("stages(at=3)", 0.5)).eval()
    assert outcomes(spoilt, shared) != before
    assert outcomes(tome, shared) == before


def test_pixels_are_normalised_as_timm_does_it(digits: VisionTransformer, tiny_vit: Callable[..., object]) -> None:
    vit = tiny_vit()
    vit.pretrained_cfg = {  # type: ignore[attr-defined]
        "input_size": (3, 32, 32), "crop_pct": 0.9, "interpolation": "bicubic",
        "mean": (0.48, 0.41, 0.3), "std": (0.2, 0.3, 0.21),
    }  # fmt: skip
    for model, size in ((digits, None), (vit, (57, 45))):
        image = image_set().reader.read(5)
        image = image if size is None else image.convert("RGB").resize(size)
        own = preprocessing_of(model)  # type: ignore[arg-type]
        pixels = own.pixels(image)
        assert pixels.dtype == torch.uint8
        assert tuple(pixels.shape) == own.shape
        expected: Tensor = create_transform(**resolve_data_config({}, model=model))(image)
        assert torch.equal(own.normalise(pixels[None], torch.empty(()))[0], expected)


COMMAND = ["compare", "--methods", "tome,evit", "--keep", "0.6", "--only", "accuracy", "--limit", "40"]


def answers(folder: Path) -> pd.DataFrame:
    return pd.read_parquet(folder / "correctness.parquet")


def test_memory_bounds_and_cached_images_change_no_answer(run: Run, tmp_path: Path) -> None:
    for out, *more in (
        ("whole",),
        ("small", "--memory", "1"),
        ("filled", "--cache", "kept"),
        ("found", "--cache", "kept"),
    ):
        code, _, err = run(*COMMAND, "--out", out, *more)
        assert (code, err) == (0, "")
    for out in ("small", "filled", "found"):
        pd.testing.assert_frame_equal(answers(tmp_path / out), answers(tmp_path / "whole"))
    assert sum(file.is_file() for file in (tmp_path / "kept").rglob("*")) == 40 + 1  # and the tag


def test_a_cache_folder_that_cannot_be_written_is_a_user_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code, out, err = run(*COMMAND, "--cache", "file")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "file" in err
    assert "--cache" in err
