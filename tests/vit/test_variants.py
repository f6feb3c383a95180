"""Plain models with fewer pixels: timm's own model of that size gives the same answers."""

import pytest
import timm
import torch
from timm.data.config import resolve_data_config
from timm.layers import resample_abs_pos_embed

from tokbench.errors import UserError
from tokbench.vit.variants import smaller_sizes, with_fewer_pixels

SMALL = "test_vit"  # 160 pixels in patches of 16


@pytest.mark.parametrize("size", [144, 96])
def test_it_answers_like_timms_model_of_that_size(shake, size):
    vit = shake(timm.create_model(SMALL, pretrained=False))
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    built = timm.create_model(SMALL, pretrained=False, img_size=size)
    resampled = resample_abs_pos_embed(vit.pos_embed, [size // 16] * 2, [10, 10], num_prefix_tokens=1)
    built.load_state_dict({**vit.state_dict(), "pos_embed": resampled})
    smaller = with_fewer_pixels(vit, size).eval()
    with torch.inference_mode():
        torch.testing.assert_close(smaller(images), built.eval()(images), rtol=0, atol=0)
    assert resolve_data_config({}, model=smaller)["input_size"] == (3, size, size)


def test_the_model_stays_as_it_is_and_its_weights_are_shared(shake):
    vit = shake(timm.create_model(SMALL, pretrained=False))
    before = {name: value.clone() for name, value in vit.state_dict().items()}
    smaller = with_fewer_pixels(vit, 96)
    assert resolve_data_config({}, model=vit)["input_size"] == (3, 160, 160)
    assert vit.patch_embed.img_size == (160, 160)
    assert all(torch.equal(value, before[name]) for name, value in vit.state_dict().items())
    own = {name for name, value in smaller.named_parameters() if value is not vit.get_parameter(name)}
    assert own == {"pos_embed"}


@pytest.mark.parametrize("size", [160, 176, 100, 0])
def test_other_sizes_are_refused(size):
    with pytest.raises(UserError, match="multiple of the patch size 16 below the model's 160 pixels"):
        with_fewer_pixels(timm.create_model(SMALL, pretrained=False), size)


def test_default_sizes_are_multiples_of_the_patch_size_below_the_models_own():
    assert smaller_sizes("deit_tiny_patch16_224") == [208, 192, 176, 160, 144]
    assert smaller_sizes("digits_deit") == [28, 24, 20]
    assert smaller_sizes("vit_small_patch14_dinov2") == [476, 448, 406, 364, 336]
    with pytest.raises(UserError, match="unknown model 'resnet'"):
        smaller_sizes("resnet")
