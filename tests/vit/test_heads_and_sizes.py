"""A model takes the head, the pooling, the names of the classes and the method that come with its weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from small_checkpoints import answers, folder_for, moved, small_vit
from timm.models import save_for_hf

import tokbench
from tokbench import load_model


@pytest.mark.parametrize(
    "model", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "deit3_small_patch16_224"]
)
def test_the_file_says_how_many_classes_there_are(model: str, tmp_path: Path) -> None:
    vit = small_vit(model, classes=3)
    torch.save(vit.state_dict(), tmp_path / "x.pth")
    for classes in (5, 0):
        target = folder_for(small_vit(model, classes=classes), tmp_path / f"model{classes}")
        read = load_model(target, tmp_path / "x.pth")
        assert read.classes == 3
        torch.testing.assert_close(answers(read.vit), answers(vit), rtol=0, atol=1e-5)


def test_without_a_head_the_model_returns_features(source: Any, name: str, tmp_path: Path) -> None:
    body = {key: value for key, value in source.state_dict().items() if not key.startswith("head")}
    torch.save(body, tmp_path / "x.pth")
    read = load_model(name, tmp_path / "x.pth")
    assert read.classes == 0
    assert read.remarks == ("the file has no head: the model returns features",)
    expected = copy.deepcopy(source)
    expected.reset_classifier(0)
    torch.testing.assert_close(answers(read.vit), answers(expected), rtol=0, atol=1e-5)


def test_maes_fine_tuning_pools_by_the_mean(name: str, tmp_path: Path) -> None:
    vit = small_vit(global_pool="avg")
    assert "fc_norm.weight" in vit.state_dict()
    torch.save({"model": vit.state_dict()}, tmp_path / "x.pth")
    read = load_model(name, tmp_path / "x.pth")
    torch.testing.assert_close(answers(read.vit), answers(vit), rtol=0, atol=1e-5)
    assert torch.equal(answers(tokbench.DownsampledViT(read.vit)), answers(read.vit))
    assert "mean of the patch tokens" in read.remarks[0]


def test_positions_of_another_resolution_are_resampled_and_noted(source: Any, name: str, tmp_path: Path) -> None:
    torch.save(source.state_dict(), tmp_path / "x.pth")
    read = load_model(name, tmp_path / "x.pth", img_size=96)
    assert read.remarks == (
        "position embeddings resampled from 2x2 to 6x6; the weights are for images of 32 pixels (--img-size 32)",
    )
    assert read.vit.pretrained_cfg["input_size"] == (3, 96, 96)
    expected = copy.deepcopy(source)
    expected.set_input_size(img_size=(96, 96))
    torch.testing.assert_close(answers(read.vit, 96), answers(expected, 96), rtol=0, atol=1e-5)
    same = load_model(name, tmp_path / "x.pth", img_size=32)
    assert same.remarks == ()
    assert len({read.identity, same.identity}) == 2


def test_a_file_of_larger_images_is_read_at_the_models_size(source: Any, name: str, tmp_path: Path) -> None:
    larger = small_vit(img_size=64)
    torch.save(larger.state_dict(), tmp_path / "x.pth")
    read = load_model(name, tmp_path / "x.pth")
    larger.set_input_size(img_size=(32, 32))
    torch.testing.assert_close(answers(read.vit), answers(larger), rtol=0, atol=1e-5)
    assert read.remarks == (
        "position embeddings resampled from 4x4 to 2x2; the weights are for images of 64 pixels (--img-size 64)",
    )


def test_embedded_and_random_weights_take_another_size_too() -> None:
    read = load_model("digits_deit", img_size=64)
    assert read.vit.pretrained_cfg["input_size"] == (1, 64, 64)
    assert read.remarks == ("position embeddings resampled from 8x8 to 16x16",)
    assert read.vit(torch.ones(1, 1, 64, 64)).shape == (1, 10)
    assert read.identity != load_model("digits_deit").identity
    assert load_model("test_vit", "random", img_size=64).vit(torch.ones(1, 3, 64, 64)).shape == (1, 1000)


def test_timms_names_take_files_of_any_classes(tmp_path: Path) -> None:
    """With the names of timm, as on the command line."""
    vit = moved(timm.create_model("test_vit", num_classes=3))
    torch.save({"state_dict": vit.state_dict(), "class_to_idx": {"cats": 1, "birds": 0, "dogs": 2}}, tmp_path / "x.pth")
    read = load_model("test_vit", tmp_path / "x.pth")
    assert read.class_names == ("birds", "cats", "dogs")
    torch.testing.assert_close(answers(read.vit, 160), answers(vit, 160), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ({"class_to_idx": {"a": 4, "b": 3, "c": 2, "d": 1, "e": 0}}, ("e", "d", "c", "b", "a")),
        ({"label_names": ["a", "b", "c", "d", "e"]}, ("a", "b", "c", "d", "e")),
        ({"meta": {"CLASSES": ("a", "b", "c", "d", "e")}}, ("a", "b", "c", "d", "e")),
        ({"classes": ["a", "b"]}, ()),  # not the head's
        ({"classes": 5}, ()),
        ({"class_to_idx": {"a": 0, "b": 7}}, ()),
    ],
)
def test_names_of_classes_are_read(
    entry: Any, expected: tuple[str, ...], source: Any, name: str, tmp_path: Path
) -> None:
    torch.save({"model": source.state_dict(), **entry}, tmp_path / "x.pth")
    assert load_model(name, tmp_path / "x.pth").class_names == expected


def test_a_reduced_models_file_keeps_its_method(source: Any, name: str, tmp_path: Path) -> None:
    model = tokbench.reduce(source, "dtem", 0.5, schedule="stages(at=1)")
    torch.save(model.state_dict(), tmp_path / "x.pth")
    read = load_model(name, tmp_path / "x.pth")
    assert model.downsampler is not None
    assert read.downsampler.keys() == model.downsampler.state_dict().keys()
    torch.testing.assert_close(answers(read.vit), answers(source), rtol=0, atol=1e-5)


def test_preprocessing_is_that_of_timms_configuration_beside_the_weights(tmp_path: Path) -> None:
    vit = timm.create_model("test_vit", num_classes=3)
    saved = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "interpolation": "bilinear", "crop_pct": 0.8}
    vit.pretrained_cfg = {**vit.pretrained_cfg, **saved}
    save_for_hf(vit, str(tmp_path), safe_serialization=True)
    read = load_model("test_vit", tmp_path)
    assert {key: read.vit.pretrained_cfg[key] for key in saved} == saved
    assert read.remarks == ("preprocessing as config.json says",)
    assert load_model(f"local-dir:{tmp_path}").remarks == ()
    alone = tmp_path / "alone"
    alone.mkdir()
    (tmp_path / "model.safetensors").rename(alone / "x.safetensors")
    without = load_model("test_vit", alone / "x.safetensors")
    assert without.remarks == ()
    assert without.identity != read.identity
