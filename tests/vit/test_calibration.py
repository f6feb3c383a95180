"""Calibration: a method's constants from unlabelled images."""

import copy
from collections.abc import Callable

import pytest
import torch
from small_models import images, logits
from timm.models.vision_transformer import VisionTransformer

import tokbench
from tokbench import Context, DownsampledViT, Downsampler, Geometry, Schedule, Tokens, create
from tokbench.errors import UserError
from tokbench.vit.calibration import ConstantsError, calibrate, constants_of, set_constants


class NearestToMean(Downsampler):
    """Keep the tokens nearest to a mean over all images, which is calibrated."""

    calibrated = True

    def setup(self, geometry: Geometry) -> None:
        self.register_buffer("mean", torch.zeros(len(geometry.depths), geometry.dim))

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        distance = (tokens.patches - self.mean[context.stage]).square().sum(dim=2)
        return tokens.select(distance.topk(keep, largest=False).indices.sort().values)

    def calibrate(self, run: Callable) -> None:
        """Two passes: the second stage's mean depends on what the first one keeps."""
        for stage in range(len(self.mean)):
            seen: list[torch.Tensor] = []

            def act(tokens: Tokens, keep: int, context: Context, stage=stage, seen=seen) -> Tokens:
                if context.stage == stage:
                    seen.append(tokens.patches)
                return self(tokens, keep, context)

            run(act)
            self.mean[stage] = torch.cat(seen).mean(dim=(0, 1))


def model_of(vit: VisionTransformer, method: Downsampler | None = None) -> DownsampledViT:
    return DownsampledViT(vit, method or NearestToMean(), Schedule.stages(0.5, (1, 2))).eval()


def test_an_uncalibrated_model_says_what_to_do(tiny_vit: Callable[..., VisionTransformer]):
    for method in (NearestToMean(), create("dtome")):
        model = model_of(tiny_vit(), method)
        assert model.needs_calibration
        with pytest.raises(UserError, match=r"has no constants yet: tokbench\.calibrate\(model, images\)"):
            model(images())


def test_constants_are_set_from_all_batches(tiny_vit: Callable[..., VisionTransformer]):
    vit = tiny_vit()
    pixels = images(7)
    whole, split = model_of(vit), model_of(vit)
    calibrate(whole, pixels)
    calibrate(split, [pixels[:3], pixels[3:6], pixels[6:]])
    torch.testing.assert_close(whole.downsampler.mean[0], attention_output(vit, pixels))
    for name, value in constants_of(whole).items():
        torch.testing.assert_close(constants_of(split)[name], value)
        assert not value.requires_grad
    assert not whole.needs_calibration
    assert torch.isfinite(logits(whole)).all()


def attention_output(vit: VisionTransformer, pixels: torch.Tensor) -> torch.Tensor:
    """The mean over images and patches of the tokens after the attention of block 1."""
    x = vit._pos_embed(vit.patch_embed(pixels))
    x = vit.blocks[0](x)
    block = vit.blocks[1]
    return (x + block.attn(block.norm1(x)))[:, 1:].mean(dim=(0, 1))


def test_calibrating_again_starts_over(tiny_vit: Callable[..., VisionTransformer]):
    vit = tiny_vit()
    for method in ("dtome", None):
        once, twice = (model_of(vit, create(method) if method else None) for _ in range(2))
        calibrate(once, images(6, seed=1))
        calibrate(twice, images(6, seed=2))
        calibrate(twice, images(6, seed=1))
        for name, value in constants_of(once).items():
            torch.testing.assert_close(constants_of(twice)[name], value, rtol=1e-4, atol=1e-6)


def test_saved_constants_need_no_calibration(tiny_vit: Callable[..., VisionTransformer]):
    model = model_of(tiny_vit(), create("dtome"))
    tokbench.calibrate(model, images(6))
    loaded, given, copied = (
        model_of(tiny_vit(), create("dtome")),
        model_of(tiny_vit(), create("dtome")),
        copy.deepcopy(model),
    )
    loaded.load_state_dict(model.state_dict())
    set_constants(given, constants_of(model))
    for other in (loaded, given, copied):
        assert torch.equal(logits(other), logits(model))


def test_a_state_dict_without_the_constants_sets_none(tiny_vit: Callable[..., VisionTransformer]):
    model = model_of(tiny_vit(), create("dtome"))
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("downsampler.")}
    with pytest.raises(RuntimeError):
        model.load_state_dict({})
    model.load_state_dict(state, strict=False)
    assert model.needs_calibration
    done = model_of(tiny_vit(), create("dtome"))
    calibrate(done, images(6))
    model.load_state_dict(constants_of(done), strict=False)  # what a checkpoint of a comparison holds
    assert torch.equal(logits(model), logits(done))


def test_constants_of_another_schedule_are_refused(tiny_vit: Callable[..., VisionTransformer]):
    model = model_of(tiny_vit(), create("dtome"))
    calibrate(model, images(6))
    other = DownsampledViT(tiny_vit(), create("dtome"), Schedule.stages(0.5, (1, 2, 3))).eval()
    with pytest.raises(ConstantsError, match="do not fit method 'dtome'"):
        set_constants(other, constants_of(model))
    assert other.needs_calibration


def test_methods_without_constants_and_plain_models_are_left_alone(tiny_vit: Callable[..., VisionTransformer]):
    vit = tiny_vit()
    for model in (model_of(vit, create("tome")), DownsampledViT(vit).eval()):
        before = logits(model)
        calibrate(model, images())
        assert torch.equal(logits(model), before)


def test_no_images_are_an_error(tiny_vit: Callable[..., VisionTransformer]):
    for none in (images(0), [], [images(0)]):
        with pytest.raises(ValueError, match="no images"):
            calibrate(model_of(tiny_vit()), none)


def test_a_method_that_declares_calibration_must_have_it(tiny_vit: Callable[..., VisionTransformer]):
    class Forgotten(NearestToMean):
        calibrate = Downsampler.calibrate

    with pytest.raises(NotImplementedError, match="Forgotten declares calibrated = True"):
        calibrate(model_of(tiny_vit(), Forgotten()), images())


def test_a_failed_calibration_leaves_the_model_uncalibrated(tiny_vit: Callable[..., VisionTransformer]):
    class Broken(NearestToMean):
        def calibrate(self, run: Callable) -> None:
            run(lambda tokens, keep, context: 1 / 0)

    model = model_of(tiny_vit(), Broken())
    with pytest.raises(ZeroDivisionError):
        calibrate(model, images())
    assert model.needs_calibration
    assert model.reduction is None
