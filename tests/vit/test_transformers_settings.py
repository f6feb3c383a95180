"""What the weights of a transformers model do not show: heads, activations, rotations and preprocessing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import transformers as hf
from PIL import Image
from safetensors.torch import load_file, save_file
from small_checkpoints import answers
from test_transformers_checkpoints import IMAGES, SIZES, THREE, logits, saved, siglip2_of_any_size

from tokbench import load_model
from tokbench.data.preprocessing import preprocessing_of
from tokbench.errors import UserError
from tokbench.vit.transformers_models import preprocessing


def edited(folder: Path, **entries: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **entries}))


@pytest.mark.parametrize("activation", ["relu", "silu", "gelu_fast", "gelu_python", "gelu_new", "quick_gelu"])
def test_the_activation_is_that_of_the_configuration(activation: str, tmp_path: Path) -> None:
    model = saved(lambda: hf.ViTForImageClassification(hf.ViTConfig(**SIZES, **THREE, hidden_act=activation)), tmp_path)
    with torch.inference_mode():
        torch.testing.assert_close(answers(load_model(f"local-dir:{tmp_path}").vit), logits(model), rtol=0, atol=1e-5)


def test_an_unknown_activation_is_refused(tmp_path: Path) -> None:
    saved(lambda: hf.ViTForImageClassification(hf.ViTConfig(**SIZES, hidden_act="gelu_10")), tmp_path)
    with pytest.raises(UserError, match="activation 'gelu_10', which is not known here: use one of gelu"):
        load_model(f"local-dir:{tmp_path}")


def test_another_number_of_heads_is_refused(tmp_path: Path) -> None:
    """The weights have the same shapes for any number of heads."""
    sizes = {**SIZES, "hidden_size": 192, "num_hidden_layers": 12, "intermediate_size": 768, "image_size": 224}
    saved(lambda: hf.ViTForImageClassification(hf.ViTConfig(**{**sizes, "num_attention_heads": 6})), tmp_path)
    with pytest.raises(UserError, match="says 6 attention heads, and the model has 3: name a model with 6"):
        load_model("vit_tiny_patch16_224", tmp_path)


def test_heads_and_rotations_of_a_folder_are_a_part_of_its_identity(tmp_path: Path) -> None:
    saved(lambda: hf.ViTForImageClassification(hf.ViTConfig(**SIZES)), tmp_path)
    before = load_model(f"local-dir:{tmp_path}")
    assert load_model(f"local-dir:{tmp_path}").identity == before.identity
    edited(tmp_path, num_attention_heads=4)
    after = load_model(f"local-dir:{tmp_path}")
    assert not torch.equal(answers(after.vit), answers(before.vit))
    assert after.identity != before.identity


def test_dinov3_turns_by_the_angles_of_the_configuration(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {**SIZES, "num_register_tokens": 4}
    model = saved(lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**sizes, rope_theta=10.0)), tmp_path)
    read = load_model(f"local-dir:{tmp_path}")
    with torch.inference_mode():
        found, expected = read.vit.forward_features(IMAGES), model(IMAGES).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    edited(tmp_path, rope_theta=100.0)
    assert load_model(f"local-dir:{tmp_path}").identity != read.identity


def test_siglip2_of_any_size_has_the_grid_of_its_configuration(tmp_path: Path) -> None:
    expected = siglip2_of_any_size(tmp_path)
    torch.testing.assert_close(answers(load_model(f"local-dir:{tmp_path}").vit), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("missing", "named"), [("key.weight", "qkv.weight"), ("value.bias", "qkv.bias")])
def test_queries_keys_and_values_of_which_one_is_missing_are_refused(missing: str, named: str, tmp_path: Path) -> None:
    saved(lambda: hf.ViTForImageClassification(hf.ViTConfig(**SIZES)), tmp_path)
    file = tmp_path / "model.safetensors"
    state = load_file(file)
    (gone,) = [key for key in state if key.endswith(missing) and ".layer.1." in key]
    del state[gone]
    save_file(state, file)
    with pytest.raises(UserError, match=f"missing blocks.1.attn.{named}"):
        load_model(f"local-dir:{tmp_path}")


def test_a_configuration_without_a_vision_part_is_read(tmp_path: Path) -> None:
    saved(lambda: hf.ViTForImageClassification(hf.ViTConfig(**SIZES)), tmp_path)
    edited(tmp_path, vision_config=None)
    assert "the norms' epsilon is 1e-12, as config.json says" in load_model(f"local-dir:{tmp_path}").remarks


PROCESSORS: dict[str, Callable[[], Any]] = {
    "to a square": lambda: hf.ViTImageProcessorPil(),
    "to a larger square, then cropped": lambda: hf.DeiTImageProcessorPil(),
    "by the shorter side": lambda: hf.CLIPImageProcessorPil(),
    "by the shorter side, then cropped": lambda: hf.BitImageProcessorPil(size={"shortest_edge": 256}),
    "not cropped": lambda: hf.DeiTImageProcessorPil(size={"height": 224, "width": 224}, do_center_crop=False),
    "Lanczos": lambda: hf.ViTImageProcessorPil(resample=1),
}
EARLY: dict[str, tuple[str, dict[str, Any]]] = {
    "to a larger square, then cropped": ("DeiTFeatureExtractor", {"size": 256, "crop_size": 224}),
    "to a square": ("ViTFeatureExtractor", {"size": 224}),
    "by the shorter side": ("CLIPFeatureExtractor", {"size": 224, "crop_size": 224}),
}
"""As versions before sizes had names wrote the same."""


@pytest.mark.parametrize(
    ("case", "early"), [*((case, False) for case in PROCESSORS), *((case, True) for case in EARLY)]
)
def test_preprocessing_gives_the_pixels_of_transformers(case: str, early: bool, tmp_path: Path) -> None:
    processor = PROCESSORS[case]()
    processor.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "preprocessor_config.json").read_text())
    if early:
        kind, sizes = EARLY[case]
        rest = {key: value for key, value in config.items() if key not in ("size", "crop_size", "image_processor_type")}
        config = {**rest, **sizes, "feature_extractor_type": kind}
    vit: Any = timm.create_model("test_vit", img_size=224)
    vit.pretrained_cfg = {**vit.pretrained_cfg, "input_size": (3, 224, 224), **preprocessing(config)}
    noise = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize((500, 300), Image.Resampling.BICUBIC)
    ours = preprocessing_of(vit)
    pixels = ours.normalise(ours.pixels(image)[None], torch.zeros(1))
    expected = processor(image, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-5)
