"""Weights that were saved from a reduced model are read again."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_models import weights_of
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import tokbench
from tokbench import (
    DownsampledViT,
    load_model,
)
from tokbench.errors import UserError
from tokbench.vit.models import load_method_weights


@pytest.fixture(scope="module")
def digits() -> VisionTransformer:
    return load_model("digits_deit").vit


def trained(vit: VisionTransformer, method: str, keep: float = 0.5) -> DownsampledViT:
    """A model whose every parameter has moved."""
    torch.manual_seed(1)
    model = tokbench.reduce(copy.deepcopy(vit), method, keep)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    return model


def canvas_logits(model: nn.Module) -> Tensor:
    with torch.inference_mode():
        return model(torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("how", ["pth", "safetensors", "parallel", "checkpoint"])
def test_its_weights_are_read_from_a_file(how: str, digits: VisionTransformer, tmp_path: Path) -> None:
    model = trained(digits, "dtem")
    file = tmp_path / f"model.{'safetensors' if how == 'safetensors' else 'pth'}"
    state = model.state_dict()
    if how == "safetensors":
        save_file(state, file)
    elif how == "parallel":
        torch.save({f"module.{key}": value for key, value in state.items()}, file)
    else:
        torch.save({"model": state} if how == "checkpoint" else state, file)
    pretrained = load_model("digits_deit", str(file))
    assert torch.equal(canvas_logits(pretrained.vit), canvas_logits(model.vit))
    assert pretrained.downsampler.keys() == model.downsampler.state_dict().keys()
    again = tokbench.reduce(pretrained.vit, "dtem", 0.5)
    load_method_weights(again, pretrained.downsampler)
    assert torch.equal(canvas_logits(again), canvas_logits(model))


def test_a_timm_model_reads_them_too(tmp_path: Path) -> None:
    model = trained(load_model("deit_tiny_patch16_224", "random").vit, "tome")
    torch.save(model.state_dict(), tmp_path / "model.pth")
    pretrained = load_model("deit_tiny_patch16_224", tmp_path / "model.pth")
    assert pretrained.downsampler == {}
    state = pretrained.vit.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.vit.state_dict().items())


def test_the_method_is_part_of_the_weights_identity(digits: VisionTransformer, tmp_path: Path) -> None:
    model = trained(digits, "dtem")
    torch.save(model.state_dict(), tmp_path / "a.pth")
    torch.save({**model.state_dict(), "downsampler.embeddings.0.bias": torch.ones(64)}, tmp_path / "b.pth")
    torch.save(model.vit.state_dict(), tmp_path / "c.pth")
    identities = {load_model("digits_deit", tmp_path / name).identity for name in ("a.pth", "b.pth", "c.pth")}
    assert len(identities) == 3


def test_methods_without_weights_take_none(digits: VisionTransformer) -> None:
    weights = trained(digits, "dtem").downsampler.state_dict()
    load_method_weights(tokbench.reduce(digits, "tome"), weights)
    load_method_weights(DownsampledViT(digits), weights)
    model = tokbench.reduce(digits, "dtem")
    before = weights_of(model)
    load_method_weights(model, {})
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("dynamic_vit", {}, r"do not fit method 'dynamic_vit' with stages\(at=3-6-9\): missing predictors"),
        ("dtem", {"schedule": "stages(at=3-6)"}, r"with stages\(at=3-6\): unexpected embeddings.2.bias"),
        ("dtem(channels=8)", {}, r"with wrong shape embeddings.0.weight \(64, 48\), expected \(8, 48\)"),
    ],
)
def test_another_methods_weights_are_refused(
    method: str, options: dict[str, Any], message: str, digits: VisionTransformer
) -> None:
    weights = trained(digits, "dtem").downsampler.state_dict()
    with pytest.raises(UserError, match=message) as caught:
        load_method_weights(tokbench.reduce(digits, method, **options), weights)
    assert "\n" not in str(caught.value)


def test_method_weights_of_another_type_are_refused(digits: VisionTransformer) -> None:
    weights = {key: value.int() for key, value in trained(digits, "dtem").downsampler.state_dict().items()}
    with pytest.raises(UserError, match=r"with wrong type embeddings\.0\.\w+ int32, expected float32"):
        load_method_weights(tokbench.reduce(digits, "dtem"), weights)


def test_method_keys_beside_those_of_a_plain_model_are_named(digits: VisionTransformer, tmp_path: Path) -> None:
    torch.save({**digits.state_dict(), "downsampler.scale": torch.ones(1)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"unexpected downsampler\.scale"):
        load_model("digits_deit", tmp_path / "x.pth")


def test_the_embedded_model_is_not_drawn_at_random() -> None:
    with pytest.raises(UserError, match="comes with trained weights"):
        load_model("digits_deit", "random")


def test_compare_measures_a_model_that_was_saved(
    digits: VisionTransformer, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    torch.save(trained(digits, "dtem").state_dict(), tmp_path / "model.pth")
    given = ("--weights", str(tmp_path / "model.pth"), "--limit", "10", "--only", "macs,accuracy", "--json")
    code, _, error = run("compare", "--methods", "random_selection", "--keep", "0.5", *given)
    assert code == 0, error
