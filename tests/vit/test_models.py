"""Loading models: weights are read without running code, and errors say what to do."""

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from tokbench.errors import UserError
from tokbench.names import EMBEDDED_MODELS
from tokbench.vit.models import load_model

NAME = "deit_tiny_patch16_224"


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return timm.create_model(NAME, pretrained=False).state_dict()


def loaded_logits(path: Path) -> Tensor:
    with torch.inference_mode():
        return load_model(NAME, path).vit(torch.ones(1, 3, 224, 224))


def test_every_kind_of_file_gives_the_same_model(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, tmp_path / "plain.safetensors")
    torch.save(state, tmp_path / "plain.pth")
    torch.save({"model": state, "epoch": 300}, tmp_path / "checkpoint.pth")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "parallel.pth")
    expected = timm.create_model(NAME, pretrained=False).eval()
    expected.load_state_dict(state)
    with torch.inference_mode():
        logits = expected(torch.ones(1, 3, 224, 224))
    for file in sorted(tmp_path.iterdir()):
        assert torch.equal(loaded_logits(file), logits), file.name


def test_half_precision_is_read_as_float32(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file({key: value.half() for key, value in state.items()}, tmp_path / "half.safetensors")
    model = load_model(NAME, tmp_path / "half.safetensors")
    assert {parameter.dtype for parameter in model.vit.parameters()} == {torch.float32}
    rounded = state["cls_token"].half().float()
    assert torch.equal(model.vit.cls_token, rounded)


def test_identity_follows_the_weights_not_the_file(tmp_path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth")
    torch.save({**state, "cls_token": state["cls_token"] + 1}, tmp_path / "c.pth")
    a, b, c = (load_model(NAME, tmp_path / name).identity for name in ("a.safetensors", "b.pth", "c.pth"))
    assert a == b != c


def test_a_file_that_does_not_fit_names_the_keys(tmp_path: Path, state: dict[str, Tensor]) -> None:
    changed = {key: value for key, value in state.items() if key != "norm.bias"}
    torch.save({**changed, "surprise": torch.zeros(1), "head.weight": torch.zeros(3, 192)}, tmp_path / "x.pth")
    with pytest.raises(UserError) as caught:
        load_model(NAME, tmp_path / "x.pth")
    message = str(caught.value)
    assert "missing norm.bias" in message
    assert "unexpected surprise" in message
    assert "head.weight (3, 192), expected (1000, 192)" in message


class Attack:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save({"model": state, "attack": Attack(tmp_path / "touched")}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match="cannot be read as weights"):
        load_model(NAME, tmp_path / "bad.pth")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\x80\x04garbage"])
@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
def test_a_file_without_weights_is_a_user_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as weights"):
        load_model(NAME, tmp_path / name)


def test_an_unsupported_model_is_rejected_before_any_download() -> None:
    with pytest.raises(UserError, match="not a timm VisionTransformer"):
        load_model("resnet18")


def test_a_misspelt_model_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match="deit_tiny_patch16_224"):
        load_model("deit_tiny_patch16_244")


@pytest.mark.parametrize("name", EMBEDDED_MODELS)
def test_embedded_models_come_with_their_weights(name: str) -> None:
    assert load_model(name).vit.pretrained_cfg["input_size"] == (1, 32, 32)
    with pytest.raises(UserError, match=f"^{name} comes with trained weights"):
        load_model(name, "random")


def test_random_weights_are_reproducible_and_need_no_download() -> None:
    torch.manual_seed(7)
    state = torch.get_rng_state()
    one, other = load_model(NAME, "random"), load_model(NAME, "random")
    assert one.identity == other.identity
    assert one.vit.head.weight.std() > 0
    assert torch.equal(torch.get_rng_state(), state)
