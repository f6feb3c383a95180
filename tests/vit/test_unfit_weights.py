"""Weights that do not fit, and folders that are unclear, are refused in a line that says what would do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import nn

from tokbench import load_model
from tokbench.errors import UserError

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


@pytest.mark.parametrize("last", ["head", "backbone.head"])
def test_of_two_heads_none_is_chosen(last: str, tmp_path: Path) -> None:
    """The head of the pretraining is often left in the backbone; which one comes last in the file says nothing."""
    state = timm.create_model("test_vit", num_classes=5).state_dict()
    both = {f"backbone.{key}": value for key, value in state.items()}
    other = {f"classifier.{kind}": state[f"head.{kind}"] + 1 for kind in ("weight", "bias")}
    torch.save({**both, **other} if last == "head" else {**other, **both}, tmp_path / "x.pth")
    with pytest.raises(UserError, match="it has two heads, one of them classifier: leave the unused one out of it"):
        load_model("test_vit", tmp_path / "x.pth")
