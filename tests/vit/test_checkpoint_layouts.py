"""Checkpoints as timm, trainers and the original releases write them: each gives its source model's answers."""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from small_checkpoints import answers, as_openai_clip, folder_for, moved, small_vit
from torch import Tensor, nn

import tokbench
from tokbench import load_model
from tokbench.errors import UserError

State = dict[str, Tensor]


def prefixed(state: State, prefix: str) -> State:
    return {f"{prefix}{key}": value for key, value in state.items()}


def without_head(state: State) -> State:
    return {key: value for key, value in state.items() if not key.startswith("head")}


def head_as(state: State, prefix: str) -> State:
    return {f"{prefix}{kind}": state[f"head.{kind}"] for kind in ("weight", "bias")}


def in_parts(state: State, folder: Path) -> Path:
    """A model saved in two files and an index, as transformers and accelerate write large ones."""
    folder.mkdir()
    keys = list(state)
    parts = {"model-00001-of-00002.safetensors": keys[:9], "model-00002-of-00002.safetensors": keys[9:]}
    for name, part in parts.items():
        save_file({key: state[key] for key in part}, folder / name)
    places = {key: name for name, part in parts.items() for key in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return folder


def averaged(state: State) -> State:
    """As `torch.optim.swa_utils.AveragedModel` keeps them."""
    return {"n_averaged": torch.tensor(100), **prefixed(state, "module.")}


ARGUMENTS = argparse.Namespace(model="vit_tiny_patch16_224", lr=5e-4, data=argparse.Namespace(path="/data"))
OTHER = {key: value + 1 for key, value in small_vit().state_dict().items()}  # the weights that are not meant

# Everything that may be done to the state dict of the same model.
SAVED: dict[str, Callable[[State], Any]] = {
    "plain": lambda state: state,
    "model beside a Namespace": lambda state: {"model": state, "args": ARGUMENTS, "optimizer": {"state": {}}},
    "state_dict, DataParallel": lambda state: {"state_dict": prefixed(state, "module.")},
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "compiled in DataParallel": lambda state: {"model": prefixed(state, "module._orig_mod.")},
    "Lightning": lambda state: {"state_dict": {**prefixed(state, "model."), "criterion.weight": torch.ones(5)}},
    "wrapped twice": lambda state: {"state_dict": {"model": state}},
    "DeepSpeed": lambda state: {"module": state, "global_steps": 7},
    "backbone and head": lambda state: {**prefixed(without_head(state), "backbone."), **head_as(state, "head.")},
    "encoder and fc": lambda state: {**prefixed(without_head(state), "model.encoder."), **head_as(state, "fc.")},
    "timm's averages": lambda state: {"state_dict": OTHER, "state_dict_ema": state},
    "DeiT's averages": lambda state: {"model": OTHER, "model_ema": prefixed(state, "module."), "args": ARGUMENTS},
    "torchvision's averages": lambda state: {"model": OTHER, "model_ema": averaged(state)},
    "averages alone": lambda state: {"model_ema": state},
    "averages among the weights": lambda state: {
        "state_dict": {**prefixed(OTHER, "model."), **prefixed(state, "model_ema.module.")}
    },
    "bfloat16": lambda state: {key: value.bfloat16() for key, value in state.items()},
    "float16": lambda state: {key: value.half() for key, value in state.items()},
    "parameters": lambda state: {key: nn.Parameter(value) for key, value in state.items()},
    "DownsampledViT": lambda state: prefixed(state, "vit."),
}  # fmt: skip
ROUNDED = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.fixture(scope="module")
def source() -> Any:
    return small_vit()


@pytest.fixture(scope="module")
def name(source: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    return folder_for(source, tmp_path_factory.mktemp("model") / "small")


@pytest.mark.parametrize("layout", SAVED)
def test_a_saved_model_answers_as_before(layout: str, source: Any, name: str, tmp_path: Path) -> None:
    torch.save(SAVED[layout](source.state_dict()), tmp_path / "x.pth")
    expected = copy.deepcopy(source)
    if layout in ROUNDED:
        expected.to(ROUNDED[layout]).float()
    read = load_model(name, tmp_path / "x.pth")
    torch.testing.assert_close(answers(read.vit), answers(expected), rtol=0, atol=1e-5)
    assert {parameter.dtype for parameter in read.vit.parameters()} == {torch.float32}
    assert ("EMA" in "".join(read.remarks)) == ("averages" in layout)
    assert ("criterion.weight" in "".join(read.remarks)) == (layout == "Lightning")


FILES: dict[str, Callable[[State, Path], Path]] = {
    "safetensors": lambda state, folder: _written(folder / "x.safetensors", save_file, state),
    "bin": lambda state, folder: _written(folder / "pytorch_model.bin", torch.save, state),
    "pt": lambda state, folder: _written(folder / "x.pt", torch.save, state),
    "pth.tar": lambda state, folder: _written(folder / "x.pth.tar", torch.save, {"state_dict": state}),
    "in parts, the folder": lambda state, folder: in_parts(state, folder / "parts"),
    "in parts, the index": lambda state, folder: in_parts(state, folder / "parts") / "model.safetensors.index.json",
    "a folder with one file": lambda state, folder: _written(folder / "last.pth", torch.save, state).parent,
    "a trainer's folder": lambda state, folder: _trainers_folder(state, folder),
}


def _written(path: Path, save: Callable[..., Any], state: Any) -> Path:
    save(state, path)
    return path


def _trainers_folder(state: State, folder: Path) -> Path:
    """With files beside the weights that hold objects of any class."""
    save_file(state, folder / "model.safetensors")
    for name in ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"):
        (folder / name).write_bytes(b"\x80\x04cos\nsystem\n.")
    return folder


@pytest.mark.parametrize("kind", FILES)
def test_every_kind_of_file_is_read(kind: str, source: Any, name: str, tmp_path: Path) -> None:
    read = load_model(name, FILES[kind](source.state_dict(), tmp_path))
    torch.testing.assert_close(answers(read.vit), answers(source), rtol=0, atol=1e-5)


@pytest.mark.parametrize("layout", ["timm's averages", "DeiT's averages", "averages among the weights"])
def test_the_weights_beside_an_average_can_be_taken(layout: str, source: Any, name: str, tmp_path: Path) -> None:
    torch.save(SAVED[layout](source.state_dict()), tmp_path / "x.pth")
    read = load_model(name, tmp_path / "x.pth", ema=False)
    torch.testing.assert_close(read.vit.head.bias, OTHER["head.bias"], rtol=0, atol=0)
    assert read.remarks == ()


@pytest.mark.parametrize("layout", ["plain", "averages alone"])
def test_without_a_choice_no_ema_changes_nothing(layout: str, source: Any, name: str, tmp_path: Path) -> None:
    torch.save(SAVED[layout](source.state_dict()), tmp_path / "x.pth")
    assert load_model(name, tmp_path / "x.pth", ema=False).identity == load_model(name, tmp_path / "x.pth").identity


def dinov2(vit: Any) -> State:
    """The names of the original release."""
    state = vit.state_dict()
    if "reg_token" in state:
        positions = torch.full((1, 1, 48), 0.25)
        state["register_tokens"] = state.pop("reg_token")
        state["cls_token"] = state["cls_token"] - positions
        state["pos_embed"] = torch.cat([positions, state["pos_embed"]], dim=1)
    return {**state, "mask_token": torch.ones(1, 48)}


def mae(vit: Any) -> State:
    """MAE's pretraining, of which the decoder is no part of the ViT."""
    decoder = {
        "decoder_pos_embed": torch.ones(1, 5, 16),
        "decoder_embed.weight": torch.ones(16, 48),
        "decoder_blocks.0.norm1.weight": torch.ones(16),
        "decoder_pred.bias": torch.ones(768),
    }
    return {**without_head(vit.state_dict()), "mask_token": torch.ones(1, 1, 16), **decoder}


def open_clip(vit: Any) -> State:
    """OpenCLIP around timm's model, whose head is outside, with the text model beside it."""
    state = vit.state_dict()
    beside = {
        "visual.head.proj.weight": state["head.weight"],
        "text.transformer.weight": torch.ones(2),
        "logit_scale": torch.ones(()),
    }
    return {**prefixed(without_head(state), "visual.trunk."), **beside}


def deit3(vit: Any) -> State:
    """DeiT III's own names of the layer scale."""
    return {
        key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2"): v for key, v in vit.state_dict().items()
    }


def dino(vit: Any) -> State:
    """A checkpoint of self-supervised training with a teacher."""
    teacher = {**prefixed(vit.state_dict(), "backbone."), "dino_head.last_layer.weight": torch.ones(3, 3)}
    return {"student": prefixed(OTHER, "backbone."), "teacher": teacher}  # type: ignore[dict-item]


def zero_head_bias(vit: Any) -> Any:
    """CLIP's projection has no bias."""
    with torch.no_grad():
        vit.head.bias.zero_()
    return vit


RELEASES: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "DINOv2": (lambda: small_vit("vit_small_patch14_dinov2", 0, img_size=28), dinov2),
    "DINOv2 with registers": (lambda: small_vit("vit_small_patch14_reg4_dinov2", 0, img_size=28), dinov2),
    "MAE": (lambda: small_vit(classes=0), mae),
    "OpenAI's CLIP": (
        lambda: zero_head_bias(small_vit("vit_base_patch32_clip_quickgelu_224", img_size=64)),
        lambda vit: {**as_openai_clip(vit.state_dict()), "text_projection": torch.ones(2, 2)},
    ),
    "CLIP's image tower alone": (
        lambda: zero_head_bias(small_vit("vit_base_patch32_clip_224", img_size=64)),
        lambda vit: as_openai_clip(vit.state_dict(), ""),
    ),
    "OpenCLIP": (lambda: zero_head_bias(small_vit("vit_base_patch16_clip_224")), open_clip),
    "DeiT III": (lambda: small_vit("deit3_small_patch16_224"), deit3),
    "DINO's teacher": (lambda: small_vit(classes=0), dino),
    "distilled DeiT": (lambda: small_vit("deit_tiny_distilled_patch16_224"), lambda vit: {"model": vit.state_dict()}),
}  # fmt: skip


@pytest.mark.parametrize("release", RELEASES)
def test_a_release_answers_as_timms_model(release: str, tmp_path: Path) -> None:
    make, layout = RELEASES[release]
    vit = make()
    torch.save(layout(vit), tmp_path / "x.pth")
    read = load_model(folder_for(vit, tmp_path / "model"), tmp_path / "x.pth")
    size = vit.patch_embed.img_size[0]
    torch.testing.assert_close(answers(read.vit, size), answers(vit, size), rtol=0, atol=1e-5)


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
    torch.save(without_head(source.state_dict()), tmp_path / "x.pth")
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
    assert "mean of the patch tokens" in read.remarks[0]


def test_positions_of_another_resolution_are_resampled_and_noted(source: Any, name: str, tmp_path: Path) -> None:
    torch.save(source.state_dict(), tmp_path / "x.pth")
    read = load_model(name, tmp_path / "x.pth", img_size=96)
    assert read.remarks == ("position embeddings resampled from 2x2 to 6x6",)
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
    assert read.remarks == ("position embeddings resampled from 4x4 to 2x2",)


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


UNFIT: dict[str, tuple[Callable[[], Any], str]] = {
    "another patch size": (
        lambda: timm.create_model("test_vit", patch_size=8, img_size=80).state_dict(),
        r"with wrong shape patch_embed.proj.weight \(64, 3, 8, 8\), expected \(64, 3, 16, 16\); .* patches of 8 pixels",
    ),
    "another width": (
        lambda: timm.create_model("vit_tiny_patch16_224", depth=2).state_dict(),
        "a ViT of width 192, depth 2 and patches of 16 pixels, such as deit_tiny_patch16_224 or vit_tiny_patch16_224",
    ),
    "another depth": (
        lambda: timm.create_model("test_vit", depth=7).state_dict(), "unexpected blocks.6.attn.proj.bias"
    ),
    "distilled": (
        lambda: timm.create_model("deit_tiny_distilled_patch16_224", depth=1).state_dict(),
        "such as deit_tiny_distilled_patch16_224",
    ),
    "registers": (
        lambda: timm.create_model("vit_small_patch14_reg4_dinov2", depth=1, img_size=28).state_dict(),
        "such as vit_small_patch14_reg4_dinov2",
    ),
    "CLIP": (
        lambda: timm.create_model("vit_base_patch32_clip_224", depth=1).state_dict(),
        "such as vit_base_patch32_clip_224",
    ),
    "no ViT": (lambda: nn.Linear(2, 2).state_dict(), "unexpected bias, weight"),
}  # fmt: skip


@pytest.mark.parametrize("case", UNFIT)
def test_what_does_not_fit_is_told_what_would(case: str, tmp_path: Path) -> None:
    make, message = UNFIT[case]
    torch.save(make(), tmp_path / "x.pth")
    with pytest.raises(UserError, match=message) as caught:
        load_model("test_vit", tmp_path / "x.pth")
    assert str(caught.value).isprintable()


def test_files_of_other_libraries_and_unclear_folders_are_refused(tmp_path: Path) -> None:
    def refusal(path: Path) -> str:
        with pytest.raises(UserError) as caught:
            load_model("test_vit", path)
        assert str(caught.value).isprintable()
        return str(caught.value)

    (tmp_path / "x.npz").write_bytes(b"PK\x03\x04")
    assert "a file of NumPy" in refusal(tmp_path / "x.npz")
    assert "is a directory without weights" in refusal(tmp_path)
    for name in ("a.pth", "b.pth"):
        torch.save({}, tmp_path / name)
    assert "several files that may be the weights: name one of a.pth, b.pth" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"cls_token": "../secret.pth"}}, "which is not beside it"),
        ({"weight_map": {"cls_token": "absent.safetensors"}}, "no weights at .*absent.safetensors"),
        ({"weight_map": {}}, "names no files"),
        ({"weight_map": {"cls_token": 3}}, "names no files"),
        ([], "holds no JSON object"),
    ],
)
def test_an_odd_index_is_refused(index: object, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=message):
        load_model("test_vit", tmp_path)


@pytest.mark.parametrize("size", [33, 7])
def test_a_size_that_the_patches_do_not_divide_is_refused(size: int) -> None:
    with pytest.raises(UserError, match=r"patches of 16 pixels: give a multiple of 16, such as (16|32)$"):
        load_model("test_vit", "random", img_size=size)
