"""Checkpoints that public code wrote: the logits that this code computes are those that tokbench computes."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from recognised_models import logits, model_of, recognised
from safetensors.torch import load_file
from torch import Tensor

from tokbench import Context, DownsampledViT, Tokens

PEERS = Path(__file__).parents[3] / "shared" / "peers"
pytestmark = pytest.mark.skipif(not PEERS.is_dir(), reason=f"the checkpoints are not at {PEERS}")

AGREEMENT = 1e-4  # the largest difference of a logit
EXACT = {
    "atc_average": "atc",
    "atc_complete": "atc",
    "atc_single": "atc",
    "dynamicvit_official": "dynamic_vit",
    "tokenreduction_dyvit": "dynamic_vit",
    "tokenreduction_evit": "evit",
    "tokenreduction_kmedoids": "token_pooling",
    "tokenreduction_patchmerger": "patch_merger",
    "tokenreduction_sinkhorn": "sinkhorn",
    "tokenreduction_sit": "sit",
    "tokenreduction_tome": "tome",
    "tokenreduction_topk": "score_pruning",
}


@pytest.fixture(scope="module")
def images() -> Tensor:
    return load_file(PEERS / "images.safetensors")["images"]


def expected(name: str) -> Tensor:
    return torch.tensor(json.loads((PEERS / "expected.json").read_text())[name]["logits"])


def test_each_of_the_fourteen_files_is_tested():
    assert {file.stem for file in PEERS.glob("*.pth")} == {*EXACT, "tokenreduction_ats", "tokenreduction_dpcknn"}


@pytest.mark.parametrize(("name", "method"), EXACT.items())
def test_the_logits_agree(images: Tensor, name: str, method: str):
    trained = recognised(PEERS / f"{name}.pth")
    assert trained.method == method
    assert trained.schedule == "explicit(counts=137-96-67,at=3-6-9)"
    assert trained.model == ""  # no DeiT is 24 channels wide
    torch.testing.assert_close(logits(model_of(trained), images), expected(name), atol=AGREEMENT, rtol=0)


def test_sinkhorn_varies_only_by_rounding(images: Tensor):
    # Its code scales the centres to unit length at each call, in place: the second call scales rounded ones.
    trained = recognised(PEERS / "tokenreduction_sinkhorn.pth")
    once = {name: value / value.norm(dim=1, keepdim=True) for name, value in trained.downsampler.items()}
    twice = {name: value / value.norm(dim=1, keepdim=True) for name, value in once.items()}
    assert any(not torch.equal(once[name], twice[name]) for name in once)
    first, second = (
        logits(model_of(dataclasses.replace(trained, downsampler=centres)), images) for centres in (once, twice)
    )
    torch.testing.assert_close(first, second, atol=1e-5, rtol=0)


# Of image 1, token 57 is nearer to a point of the distribution than token 56, of image 3, 174 than 173.
ROUNDED = {1: (57, 56), 3: (174, 173)}


def test_ats_agrees_but_for_the_rounding_of_distances(images: Tensor):
    trained = recognised(PEERS / "tokenreduction_ats.pth")
    assert trained.schedule == "explicit(counts=138-97-68,at=3-6-9)"
    assert "rounding" in trained.remarks[0]
    wanted = expected("tokenreduction_ats")
    model, method = model_of(trained), model_of(trained).downsampler
    clear = [image for image in range(len(images)) if image not in ROUNDED]
    torch.testing.assert_close(logits(model, images)[clear], wanted[clear], atol=AGREEMENT, rtol=0)
    method.points = dict(zip((3, 6, 9), (138, 97, 68), strict=True))

    def with_rounded_choice(tokens: Tokens, keep: int, context: Context) -> Tokens:
        after = method(tokens, keep, context)
        if context.stage:
            return after
        x, owner = after.x.clone(), after.owner.clone()
        for image, (nearest, other) in ROUNDED.items():
            assert_equally_near(context, image, nearest, other)
            place = int(after.owner[image, nearest])
            assert place >= 0 > after.owner[image, other]
            x[image, 1 + place] = tokens.patches[image, other]
            owner[image, nearest], owner[image, other] = -1, place
        return dataclasses.replace(after, x=x, owner=owner)

    model.reduction = with_rounded_choice
    torch.testing.assert_close(logits(model, images), wanted, atol=AGREEMENT, rtol=0)


def assert_equally_near(context: Context, image: int, nearest: int, other: int) -> None:
    """Assert that for one point, the squared distances of two tokens differ by less than float32 rounds squares near 1.

    The original code computes |a - b|² as a² + b² - 2ab, with a and b up to 1.
    """
    scores = context.attention[image, :, 0, 1:].double() * context.values[image].double().norm(dim=2)
    cdf = (scores.sum(dim=0) / (scores.sum() + 1e-6)).cumsum(dim=0)
    points = (2 * torch.arange(137).double() + 1) / (2 * 138)
    squared = (points[:, None] - cdf).square()
    rows = [row for row in squared if row.argmin() == nearest and row.argsort()[1] == other]
    assert min(float(row[other] - row[nearest]) for row in rows) < torch.finfo(torch.float32).eps


def test_dpc_knn_agrees_given_the_noise_that_its_code_draws(images: Tensor):
    # It adds u·1e-6, u uniform in [0, 1), to densities, which are below 1e-10 here, so that u chooses the centres. The
    # logits are those for torch's generator with the seed 0; with another seed they differ by up to 1 and more.
    trained = recognised(PEERS / "tokenreduction_dpcknn.pth")
    assert "seed" in trained.remarks[0]
    model, method = model_of(trained), model_of(trained).downsampler
    generator = torch.Generator()

    def with_its_noise(tokens: Tokens, keep: int, context: Context) -> Tokens:
        noise = torch.rand(tokens.size.shape, generator=generator)
        return method(
            tokens, keep, Context(depth=context.depth, depths=context.depths, stage=context.stage, noise=noise)
        )

    model.reduction = with_its_noise
    wanted = expected("tokenreduction_dpcknn")
    torch.testing.assert_close(logits_with(model, images, generator, 0), wanted, atol=AGREEMENT, rtol=0)
    assert (logits_with(model, images, generator, 1) - wanted).abs().max() > 1


def logits_with(model: DownsampledViT, images: Tensor, generator: torch.Generator, seed: int) -> Tensor:
    generator.manual_seed(seed)
    return logits(model, images)
