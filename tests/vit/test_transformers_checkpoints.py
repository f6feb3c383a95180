"""Checkpoints of Hugging Face transformers: saved by its own classes, answered by timm's models as by the source."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from small_checkpoints import answers, moved
from torch import Tensor

from tokbench import load_model
from tokbench.errors import UserError
from tokbench.vit.checkpoints import read_checkpoint
from tokbench.vit.fitting import fit
from tokbench.vit.transformers_models import create

SIZES: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 96,
    "image_size": 32,
    "patch_size": 16,
}
RATIO: dict[str, Any] = {**{key: value for key, value in SIZES.items() if key != "intermediate_size"}, "mlp_ratio": 2}
THREE: dict[str, Any] = {"id2label": {0: "bird", 1: "cat", 2: "dog"}, "label2id": {"bird": 0, "cat": 1, "dog": 2}}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))  # as `answers` draws them

Source = Callable[[], Any]


def tower(config: Any) -> dict[str, Any]:
    """The arguments of a configuration with a text model beside the image model."""
    text = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 16,
        "vocab_size": 99,
    }
    return {"vision_config": config, "text_config": {**text, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}}


def first_token(model: Any) -> Tensor:
    return model(IMAGES).last_hidden_state[:, 0]  # type: ignore[no-any-return]


def pooled(model: Any) -> Tensor:
    return model(IMAGES).pooler_output  # type: ignore[no-any-return]


def logits(model: Any) -> Tensor:
    return model(IMAGES).logits  # type: ignore[no-any-return]


# The model, and which of its outputs is the answer of timm's.
SOURCES: dict[str, tuple[Source, Callable[[Any], Tensor]]] = {
    "ViT": (lambda: hf.ViTForImageClassification(hf.ViTConfig(**SIZES, **THREE)), logits),
    "ViT without a head": (lambda: hf.ViTModel(hf.ViTConfig(**SIZES)), first_token),
    "ViT without biases": (lambda: hf.ViTForImageClassification(hf.ViTConfig(**SIZES, qkv_bias=False)), logits),
    "DeiT": (lambda: hf.DeiTForImageClassificationWithTeacher(hf.DeiTConfig(**SIZES, **THREE)), logits),
    "DeiT with one head": (lambda: hf.DeiTForImageClassification(hf.DeiTConfig(**SIZES, **THREE)), logits),
    "DINOv2": (lambda: hf.Dinov2Model(hf.Dinov2Config(**RATIO)), first_token),
    "DINOv2 with SwiGLU": (lambda: hf.Dinov2Model(hf.Dinov2Config(**RATIO, use_swiglu_ffn=True)), first_token),
    "DINOv2 with registers": (
        lambda: hf.Dinov2WithRegistersModel(hf.Dinov2WithRegistersConfig(**RATIO, num_register_tokens=3)), first_token
    ),
    "SigLIP classifier": (
        lambda: hf.SiglipForImageClassification(hf.SiglipConfig(**tower(SIZES), **THREE)), logits
    ),
    "CLIP tower": (lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**SIZES)), pooled),
    "CLIP tower with projection": (
        lambda: hf.CLIPVisionModelWithProjection(hf.CLIPVisionConfig(**SIZES, projection_dim=7)),
        lambda model: model(IMAGES).image_embeds,
    ),
    "CLIP": (
        lambda: hf.CLIPModel(hf.CLIPConfig(**tower(SIZES), projection_dim=7)),
        lambda model: model.visual_projection(model.vision_model(IMAGES).pooler_output),
    ),
    "CLIP with gelu": (lambda: hf.CLIPVisionModel(hf.CLIPVisionConfig(**SIZES, hidden_act="gelu")), pooled),
}  # fmt: skip


def siglip2_of_any_size(folder: Path) -> Tensor:
    """Save a SigLIP 2 of any image size; its features of `IMAGES`, whose patches it takes as rows of pixels."""
    sizes = {key: value for key, value in SIZES.items() if key != "image_size"}
    model = saved(lambda: hf.Siglip2VisionModel(hf.Siglip2VisionConfig(**sizes, num_patches=4)), folder)
    rows = IMAGES.reshape(2, 3, 2, 16, 2, 16).permute(0, 2, 4, 3, 5, 1).reshape(2, 4, 768)
    shapes, mask = torch.tensor([[2, 2]] * 2), torch.ones(2, 4, dtype=torch.int32)
    with torch.inference_mode():
        return model(pixel_values=rows, pixel_attention_mask=mask, spatial_shapes=shapes).pooler_output


def saved(make: Source, folder: Path) -> Any:
    torch.manual_seed(0)
    model = moved(make())
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("case", SOURCES)
@pytest.mark.parametrize("names", ["as saved", "as in memory"])
def test_a_folder_of_transformers_is_a_model(case: str, names: str, tmp_path: Path) -> None:
    make, output = SOURCES[case]
    model = saved(make, tmp_path)
    if names == "as in memory":  # they differ from those on the hub
        (tmp_path / "model.safetensors").unlink()
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    read = load_model(f"local-dir:{tmp_path}")
    with torch.inference_mode():
        expected = output(model)
    torch.testing.assert_close(answers(read.vit), expected, rtol=0, atol=1e-5)
    assert read.class_names == (("bird", "cat", "dog") if expected.shape[1] == 3 else ())


@pytest.mark.parametrize("prefix", ["model.vision_model.", "vision_tower.vision_model.", "module.vit.", ""])
def test_a_tower_is_found_behind_any_prefix(prefix: str, tmp_path: Path) -> None:
    model = saved(SOURCES["CLIP tower"][0], tmp_path / "model")
    state = load_file(tmp_path / "model" / "model.safetensors")
    plain = {key.removeprefix("vision_model."): value for key, value in state.items()}
    beside = {"language_model.layers.0.weight": torch.ones(3)} if prefix else {}
    save_file({**{f"{prefix}{key}": value for key, value in plain.items()}, **beside}, tmp_path / "x.safetensors")
    (tmp_path / "config.json").write_bytes((tmp_path / "model" / "config.json").read_bytes())
    read = load_model(f"local-dir:{tmp_path / 'model'}", tmp_path / "x.safetensors")
    with torch.inference_mode():
        torch.testing.assert_close(answers(read.vit), pooled(model), rtol=0, atol=1e-5)
    assert ("language_model.layers.0.weight" in "".join(read.remarks)) == bool(prefix)


def fitted(name: str, folder: Path, **options: Any) -> tuple[Any, tuple[str, ...]]:
    """A small model of timm's with the weights of a folder."""
    torch.manual_seed(0)
    vit = timm.create_model(name, embed_dim=48, depth=2, num_heads=3, mlp_ratio=2, img_size=32, **options)
    checkpoint = read_checkpoint(folder)
    return vit.eval(), fit(vit, checkpoint.state, checkpoint, str(folder))


@pytest.mark.parametrize("case", ["SigLIP", "SigLIP 2", "SigLIP 2, any size"])
def test_siglip_towers_pool_by_attention(case: str, tmp_path: Path) -> None:
    if case == "SigLIP 2, any size":
        expected = siglip2_of_any_size(tmp_path)
    else:
        model = saved(lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**SIZES)), tmp_path)
        with torch.inference_mode():
            expected = pooled(model)
    vit, remarks = fitted("vit_base_patch16_siglip_224", tmp_path)
    torch.testing.assert_close(answers(vit), expected, rtol=0, atol=1e-5)
    assert "the activation is gelu_pytorch_tanh, as config.json says" in remarks


def assert_equal_to_source(vit: Any, folder: Path, model: Any) -> None:
    checkpoint = read_checkpoint(folder)
    fit(vit.eval(), checkpoint.state, checkpoint, str(folder))
    with torch.inference_mode():
        torch.testing.assert_close(vit.forward_features(IMAGES), model(IMAGES).last_hidden_state, rtol=0, atol=1e-5)


@pytest.mark.parametrize("gated", [False, True])
def test_dinov3_becomes_timms_eva(gated: bool, tmp_path: Path) -> None:
    act: dict[str, Any] = {"use_gated_mlp": True, "hidden_act": "silu"} if gated else {}
    model = saved(lambda: hf.DINOv3ViTModel(hf.DINOv3ViTConfig(**SIZES, num_register_tokens=4, **act)), tmp_path)
    assert_equal_to_source(create(json.loads((tmp_path / "config.json").read_text())), tmp_path, model)
    name = "vit_small_plus_patch16_dinov3_qkvb" if gated else "vit_small_patch16_dinov3_qkvb"
    vit, _ = fitted(name, tmp_path)
    with torch.inference_mode():
        torch.testing.assert_close(vit.forward_features(IMAGES), model(IMAGES).last_hidden_state, rtol=0, atol=1e-5)
    with pytest.raises(UserError, match=r"unexpected blocks.0.attn.qkv.bias"):
        fitted(name.replace("_qkvb", ""), tmp_path)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith(("q_proj.bias", "v_proj.bias")):
                parameter.zero_()
        model.save_pretrained(tmp_path)
        vit, _ = fitted(name.replace("_qkvb", ""), tmp_path)
        torch.testing.assert_close(vit.forward_features(IMAGES), model(IMAGES).last_hidden_state, rtol=0, atol=1e-5)


def test_dinov3s_own_release_becomes_timms_eva(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 32}
    source = moved(timm.create_model("vit_small_patch16_dinov3_qkvb", **sizes))
    state: dict[str, Tensor] = {"mask_token": torch.ones(1, 48), "rope_embed.periods": torch.ones(4)}
    for key, value in source.state_dict().items():
        name = (
            key.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma").replace("reg_token", "storage_tokens")
        )
        if key.endswith("q_bias"):
            values = source.state_dict()[key.replace("q_bias", "v_bias")]
            state[name.replace("q_bias", "qkv.bias")] = torch.cat([value, torch.zeros(48), values])
            state[name.replace("q_bias", "qkv.bias_mask")] = torch.ones(144)
        elif not key.endswith("v_bias"):
            state[name] = value
    torch.save(state, tmp_path / "x.pth")
    checkpoint = read_checkpoint(tmp_path / "x.pth")
    vit = timm.create_model("vit_small_patch16_dinov3_qkvb", **sizes).eval()
    fit(vit, checkpoint.state, checkpoint, "x.pth")
    torch.testing.assert_close(answers(vit), answers(source), rtol=0, atol=1e-5)
    with pytest.raises(UserError, match="name timm's model that ends in _qkvb"):
        fit(timm.create_model("vit_small_patch16_dinov3", **sizes), checkpoint.state, checkpoint, "x.pth")


REFUSED: dict[str, tuple[Source, str]] = {
    "DINOv2's classifier": (
        lambda: hf.Dinov2ForImageClassification(hf.Dinov2Config(**RATIO)), "class token beside the mean of the patch"
    ),
    "CLIP's classifier": (
        lambda: hf.CLIPForImageClassification(hf.CLIPConfig(**tower(SIZES))), "mean of CLIP's patch tokens before the"
    ),
    "BEiT": (lambda: hf.BeitModel(hf.BeitConfig(**SIZES)), "no model for the model_type 'beit'.*give --models NAME"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_timm_does_not_have_is_refused(case: str, tmp_path: Path) -> None:
    make, message = REFUSED[case]
    saved(make, tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        load_model(f"local-dir:{tmp_path}")
    assert str(caught.value).isprintable()


def test_siglips_classifier_needs_the_model_that_pools_by_the_mean(tmp_path: Path) -> None:
    saved(SOURCES["SigLIP classifier"][0], tmp_path)
    with pytest.raises(UserError, match="vit_base_patch16_siglip_gap_224"):
        fitted("vit_base_patch16_siglip_224", tmp_path)


def test_a_fine_tuned_vit_goes_into_timms_name(tmp_path: Path) -> None:
    """`--models NAME --weights FOLDER`, with the sizes of the real model."""
    sizes = {**SIZES, "hidden_size": 192, "num_hidden_layers": 12, "intermediate_size": 768, "image_size": 224}
    model = saved(lambda: hf.ViTForImageClassification(hf.ViTConfig(**sizes, **THREE)), tmp_path)
    hf.ViTImageProcessor(image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7], resample=2).save_pretrained(tmp_path)
    read = load_model("vit_tiny_patch16_224", tmp_path)
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(read.vit(images), model(images).logits, rtol=0, atol=1e-5)
    assert read.class_names == ("bird", "cat", "dog")
    assert "the norms' epsilon is 1e-12, as config.json says" in read.remarks
    config = read.vit.pretrained_cfg
    assert (config["mean"], config["std"]) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    assert (config["interpolation"], config["crop_mode"], config["crop_pct"]) == ("bilinear", "squash", 1.0)
    plain = load_model("vit_tiny_patch16_224", tmp_path / "model.safetensors")
    (tmp_path / "config.json").unlink()
    assert load_model("vit_tiny_patch16_224", tmp_path).identity != plain.identity


def test_what_transformers_names_by_number_has_no_names(tmp_path: Path) -> None:
    saved(lambda: hf.ViTForImageClassification(hf.ViTConfig(**SIZES)), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()).get("id2label") in (
        None,
        {"0": "LABEL_0", "1": "LABEL_1"},
    )
    assert load_model(f"local-dir:{tmp_path}").class_names == ()
