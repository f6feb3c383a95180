"""The ViT that weights are of, from their shapes."""

from pathlib import Path

import pytest
import torch
from made_checkpoints import TOP_K, images, random_vit, saved
from recognised_models import HEADS, recognised

from tokbench.errors import UserError
from tokbench.trained.architecture import blank_vit, model_name


def test_the_model_has_the_shapes_of_the_weights(tmp_path: Path):
    vit = random_vit(mlp_ratio=3.0, in_chans=1, qkv_bias=False)
    trained = recognised(saved(tmp_path, vit.state_dict(), **TOP_K))
    blank = blank_vit(trained, HEADS)
    blank.load_state_dict(dict(trained.vit))
    with torch.no_grad():
        assert torch.equal(blank.eval()(images()[:, :1]), vit(images()[:, :1]))


@pytest.mark.parametrize(("width", "size"), [(192, "tiny"), (384, "small"), (768, "base")])
def test_a_deit_is_named_by_its_shapes(width: int, size: str):
    with torch.device("meta"):
        usual, shallow, fine = (
            random_vit(**{"img_size": 224, "patch_size": 16, "embed_dim": width, "depth": 12, **changed}).state_dict()
            for changed in ({}, {"depth": 4}, {"img_size": 256})
        )
    assert model_name(usual) == f"deit_{size}_patch16_224"
    assert model_name(shallow) == model_name(fine) == model_name({}) == ""


def test_a_deits_heads_are_64_channels_wide(tmp_path: Path):
    vit = random_vit(embed_dim=192)
    trained = recognised(saved(tmp_path, vit.state_dict(), **TOP_K))
    assert blank_vit(trained).blocks[0].attn.num_heads == 3


def test_any_other_width_needs_a_model_with_as_many_heads(tmp_path: Path):
    trained = recognised(saved(tmp_path, random_vit().state_dict(), **TOP_K))
    with pytest.raises(UserError, match="24 wide: name a model with as many, as in --checkpoint deit_tiny"):
        blank_vit(trained)
    assert blank_vit(trained, "deit_small_patch16_224").blocks[0].attn.num_heads == 6
    odd = recognised(saved(tmp_path, random_vit(embed_dim=27).state_dict(), **TOP_K))
    with pytest.raises(UserError, match="27 wide, which 6 heads"):
        blank_vit(odd, "deit_small_patch16_224")


@pytest.mark.parametrize("options", [{"init_values": 0.1}, {"qk_norm": True}])
def test_what_a_plain_vit_does_not_have_is_refused(tmp_path: Path, options: dict[str, object]):
    trained = recognised(saved(tmp_path, random_vit(**options).state_dict(), **TOP_K))
    with pytest.raises(UserError, match="of no plain ViT with a class token"):
        blank_vit(trained, HEADS)


def test_building_leaves_torchs_generator_alone(tmp_path: Path):
    trained = recognised(saved(tmp_path, random_vit().state_dict(), **TOP_K))
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    blank_vit(trained, HEADS)
    assert torch.equal(torch.rand(3), wanted)
