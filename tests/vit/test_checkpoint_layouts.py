"""Checkpoints as timm, trainers and the original releases write them: each gives its source model's answers."""

from __future__ import annotations

import argparse
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_checkpoints import answers, as_openai_clip, folder_for, small_vit
from torch import Tensor, nn

from tokbench import load_model

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
    "averages in a wrapper": lambda state: {"model": OTHER, "ema": {"decay": 0.9, "module": state}},
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
