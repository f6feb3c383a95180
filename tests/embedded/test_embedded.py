"""The embedded suite's canvases, models and recipe."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from timm.models.eva import Eva
from typer.testing import CliRunner

from tokbench.embedded import canvases, train
from tokbench.embedded.canvases import DIGITS, SIDE, compose, digits, held_out, to_input
from tokbench.embedded.model import ROTARY, build, load, weights_file
from tokbench.names import EMBEDDED_MODELS

CHECKSUM = "50e7846064960901bb674dc8becc646d6e9be9d10c8d06bb547c99000afb6166"
WEIGHTS_CHECKSUM = "bb0c64167697b83cd4c511423981bfb1a3c0ca2ca58de45c85c085100ad0cf55"


def pixels(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_the_split_is_by_sample_disjoint_and_complete():
    training, held = digits("train"), digits("held_out")
    assert (len(training.labels), len(held.labels)) == (797, 1000)
    assert not pixels(training.images) & pixels(held.images)


def test_the_digits_are_those_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    bunch = datasets.load_digits()
    with np.load(DIGITS) as file:
        np.testing.assert_array_equal(file["images"], bunch.images)
        np.testing.assert_array_equal(file["labels"], bunch.target)
    assert pixels(digits("train").images) | pixels(digits("held_out").images) == pixels(bunch.images.astype(np.uint8))


def test_both_parts_contain_every_class():
    for part in ("train", "held_out"):
        assert np.bincount(digits(part).labels, minlength=10).min() >= 50


def test_held_out_canvases_are_bytes_with_one_label_each():
    shown = held_out()
    assert shown.images.shape == (1000, SIDE, SIDE)
    assert shown.images.dtype == np.uint8
    assert shown.labels.shape == (1000,)
    assert shown.labels.dtype == np.int64
    np.testing.assert_array_equal(shown.labels, digits("held_out").labels)


def test_canvases_are_the_same_everywhere():
    """Accuracies are comparable only on exactly these bytes."""
    assert hashlib.sha256(held_out().images.tobytes()).hexdigest() == CHECKSUM


def test_canvases_are_reproducible_and_differ_between_seeds():
    np.testing.assert_array_equal(held_out(seed=3).images, held_out(seed=3).images)
    assert (held_out(seed=3).images != held_out(seed=4).images).any(axis=(1, 2)).all()


@pytest.mark.parametrize("count", [1, 7, 999])
def test_a_canvas_does_not_depend_on_how_many_are_made(count):
    np.testing.assert_array_equal(held_out(count=count).images, held_out().images[:count])


def test_a_canvas_does_not_depend_on_where_its_batch_starts():
    shown, clutter = digits("held_out").images[:20], digits("train").images
    whole = compose(shown, clutter, seed=5)
    np.testing.assert_array_equal(compose(shown[8:], clutter, seed=5, start=8), whole[8:])


@pytest.mark.parametrize("count", [0, 1001])
def test_held_out_rejects_an_impossible_count(count):
    with pytest.raises(ValueError, match="between 1 and 1000"):
        held_out(count=count)


def test_each_digit_is_complete_and_starts_on_a_patch_border():
    """Its ink has full strength, and only noise is added."""
    shown, clutter = digits("held_out").images[:50], digits("train").images
    for digit, canvas in zip(shown, compose(shown, clutter, seed=0), strict=True):
        ink = np.kron(digit, np.ones((2, 2), int)) * 12
        windows = np.lib.stride_tricks.sliding_window_view(canvas.astype(int), (16, 16))[::4, ::4]
        noise = windows - ink
        assert ((noise >= 0) & (noise < 48)).all(axis=(2, 3)).any()


def test_input_is_normalised():
    x = to_input(held_out().images)
    assert x.shape == (1000, 1, SIDE, SIDE)
    assert x.dtype == torch.float32
    assert abs(x.mean()) < 0.05
    assert abs(x.std() - 1) < 0.05


def test_augmented_digits_resemble_the_originals():
    real = digits("train").images
    varied = canvases.augment(real, np.random.default_rng(0))
    assert varied.shape == real.shape
    assert varied.dtype == np.uint8
    assert varied.max() <= 16
    assert np.corrcoef(varied.ravel(), real.ravel())[0, 1] > 0.7
    assert (varied != real).any(axis=(1, 2)).all()


DEITS = tuple(model for model in EMBEDDED_MODELS if model != ROTARY)


@pytest.mark.parametrize("model", EMBEDDED_MODELS)
def test_the_models_are_small_vits(model):
    vit = load(model)
    assert len(vit.blocks) == 12
    assert vit.patch_embed.num_patches <= 64
    assert vit.num_prefix_tokens == 1
    assert vit.global_pool == "token"
    assert vit.embed_dim // vit.blocks[0].attn.num_heads >= 16
    assert not vit.training
    assert {weight.dtype for weight in vit.state_dict().values()} == {torch.float32}


def test_the_deits_differ_in_width_only():
    models = [load(model) for model in DEITS]
    assert [vit.embed_dim for vit in models] == [48, 32, 16]
    assert {vit.embed_dim // vit.blocks[0].attn.num_heads for vit in models} == {16}
    assert {(len(vit.blocks), vit.patch_embed.num_patches) for vit in models} == {(12, 64)}


def test_the_rotary_model_differs_from_the_default_one_in_positions_only():
    """It has no embeddings of 65 positions, and timm's `Eva` has no bias of the keys."""
    deit, rotary = build(), build(ROTARY)
    weights = [sum(weight.numel() for weight in vit.parameters()) for vit in (deit, rotary)]
    assert weights[0] - weights[1] == 65 * 48 + 12 * 48
    assert isinstance(rotary, Eva)
    assert rotary.pos_embed is None
    assert [vit.blocks[0].attn.num_heads for vit in (deit, rotary)] == [3, 3]
    assert [vit.blocks[0].mlp.fc1.out_features for vit in (deit, rotary)] == [192, 192]


def test_rotary_positions_have_a_quarter_of_the_channels_per_axis_and_sign():
    """Row by row over the grid: sines, then cosines, of the row's and the column's angle at four frequencies."""
    row, column = 5, 3
    frequencies = 100.0 ** -(np.arange(4) / 4)
    angles = np.concatenate([row * frequencies, column * frequencies]).repeat(2)
    found = load(ROTARY).rope.get_embed()[8 * row + column].numpy()
    np.testing.assert_allclose(found, np.concatenate([np.sin(angles), np.cos(angles)]), atol=1e-6)


def test_on_smaller_images_patches_have_the_same_distances():
    vit = load(ROTARY)
    whole = vit.rope.get_embed().unflatten(0, (8, 8))
    vit.set_input_size((24, 24))
    torch.testing.assert_close(vit.rope.get_embed().unflatten(0, (6, 6)), whole[:6, :6])


def test_the_rotary_model_reads_positions():
    """Otherwise the answer would be the same for the same patches elsewhere."""
    x = to_input(held_out(count=100).images)
    patches = x.unfold(2, 4, 4).unfold(3, 4, 4).flatten(2, 3)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    moved = patches[:, :, order].unflatten(2, (8, 8)).transpose(3, 4).flatten(4, 5).flatten(2, 3)
    vit = load(ROTARY)
    with torch.inference_mode():
        assert (vit(x).argmax(1) != vit(moved).argmax(1)).float().mean() > 0.5


def test_the_shipped_files_are_small_together():
    assert sum(weights_file(model).stat().st_size for model in EMBEDDED_MODELS) <= 4 * 1024**2


@pytest.mark.parametrize(("model", "least"), list(zip(EMBEDDED_MODELS, (950, 950, 850, 950), strict=True)))
def test_the_shipped_models_classify_the_held_out_canvases(model, least):
    correct, images = train.evaluate(load(model))
    assert images == 1000
    assert correct >= least


def test_the_default_model_is_the_published_one():
    """All results so far were measured with these weights."""
    assert hashlib.sha256(weights_file("digits_deit").read_bytes()).hexdigest() == WEIGHTS_CHECKSUM
    assert load().embed_dim == load("digits_deit").embed_dim


@pytest.mark.parametrize("model", ["digits_deit", ROTARY])
def test_a_full_window_equals_the_plain_model(model):
    vit, x = load(model), to_input(held_out(count=3).images)
    with torch.no_grad():
        torch.testing.assert_close(train.window_logits(vit, x, (0, 0)), vit(x))


@pytest.mark.parametrize("model", ["digits_deit", ROTARY])
def test_a_window_uses_its_own_positions(model):
    """With rotary positions patches see each other alike in every window, but the class token is at the origin."""
    vit, x = load(model), to_input(held_out(count=3).images)[:, :, :16, :16]
    with torch.no_grad():
        assert not torch.allclose(train.window_logits(vit, x, (0, 0)), train.window_logits(vit, x, (4, 4)))


@pytest.mark.parametrize("model", EMBEDDED_MODELS)
def test_training_changes_the_weights_reproducibly(model):
    state = train.train(model, steps=6, seed=1).state_dict()
    again = train.train(model, steps=6, seed=1).state_dict()
    assert all(torch.equal(state[name], again[name]) for name in state)
    assert any(not torch.equal(state[name], other) for name, other in build(model).state_dict().items())


def test_training_goes_through_every_stage():
    sides = [images.shape[-1] for images, _, _ in train._stages(100, seed=0)]
    assert len(sides) == 100
    assert sides == sorted(sides)
    assert sides[-1] == SIDE


def test_the_command_writes_the_weights_and_prints_their_accuracy(tmp_path):
    out = tmp_path / "weights.safetensors"
    result = CliRunner().invoke(train.app, ["--model", "digits_deit_16", "--out", str(out), "--steps", "2"])
    assert result.exit_code == 0, result.output
    assert "minute" in result.output.splitlines()[0]
    assert "Held-out top-1" in result.output
    assert list(tmp_path.iterdir()) == [out]
    assert load_file(out).keys() == load_file(weights_file("digits_deit_16")).keys()


def test_the_command_names_the_file_after_the_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(train.app, ["--model", "digits_deit_32", "--steps", "1"]).exit_code == 0
    assert [file.name for file in tmp_path.iterdir()] == ["digits_deit_32.safetensors"]


def test_an_unknown_model_is_an_error():
    result = CliRunner().invoke(train.app, ["--model", "digits_deit_64", "--steps", "1"])
    assert result.exit_code == 2


def test_a_missing_folder_is_an_error_before_training(tmp_path):
    result = CliRunner().invoke(train.app, ["--out", str(tmp_path / "absent" / "weights.safetensors")])
    assert result.exit_code == 2
    assert len(result.output.splitlines()) == 1


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    out = tmp_path / "weights.safetensors"
    out.write_bytes(b"before")

    def fail(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        train.write_weights(build(), out)
    assert out.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [out]
