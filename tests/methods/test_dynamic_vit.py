"""DynamicViT against plain loops, and the treatment of methods that need training."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import timm
import torch
from plain_math import at, kept_probabilities, noisy, predictor_weights
from sure_predictors import POOLINGS, sure, trained_and_measured
from timm.models.vision_transformer import VisionTransformer

from tokbench import DownsampledViT, Downsampler, Geometry, Schedule, Tokens, create
from tokbench.config import load_config
from tokbench.measure.macs import count_macs
from tokbench.run.cells import cells_of

DIM = 8
TRAINED = ["dynamic_vit", "patch_merger", "token_learner", "sinkhorn", "sit", "dtem", "ltmp", "convolution"]


def made(counts: tuple[int, ...], seed: int = 0) -> Downsampler:
    torch.manual_seed(seed)
    method = create("dynamic_vit")
    method.setup(Geometry(DIM, 2, tuple(range(1, 1 + len(counts))), (3, 3), counts))
    for parameter in method.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return method.eval()


@pytest.mark.parametrize("stage", [0, 1])
def test_the_tokens_with_the_highest_probability_are_kept(stage: int):
    for seed in range(5):
        method = made((5, 3), seed).double()
        weights = predictor_weights(method.state_dict(), stage)
        x = noisy(3, 10, DIM, seed=seed).double()
        tokens = Tokens.from_sequence(x, (3, 3))
        for keep in (1, 4, 8):
            after = method(tokens, keep, at(stage))
            assert after.n_patches == keep
            for b in range(3):
                score = kept_probabilities(weights, tokens.patches[b].tolist())
                best = sorted(sorted(range(9), key=lambda i: -score[i])[:keep])
                assert torch.equal(after.patches[b], tokens.patches[b, best])


@pytest.mark.parametrize(
    "settings", [{}, {"global_pool": "avg"}, {"global_pool": "map", "class_token": False}], ids=str
)
def test_training_with_sure_decisions_equals_evaluation(settings: dict[str, Any], tiny_vit: Callable[..., Any]):
    pixels, found = noisy(6, 3, 32, 32, seed=3).double(), []
    model = sure(tiny_vit(**settings), create("dynamic_vit"), pixels)
    for image in pixels:
        trained, measured, counts = trained_and_measured(model, create("dynamic_vit"), image)
        torch.testing.assert_close(trained, measured, rtol=1e-9, atol=1e-9)
        found.append(counts)
    assert any(16 > first > second > 1 for first, second in found)


def test_training_drops_for_good_and_gives_a_gradient_for_every_weight():
    method = made((5, 3)).train()
    tokens = Tokens.from_sequence(noisy(3, 10, DIM, seed=1), (3, 3))
    torch.manual_seed(0)
    first = method.relaxed(tokens, 5, at(0))
    second = method.relaxed(first, 3, at(1))
    for after in (first, second):
        assert set(after.presence.unique().tolist()) == {0, 1}
        assert torch.equal(after.x, tokens.x)
        assert [row.count(-1) for row in after.owner.tolist()] == (9 - after.presence.sum(dim=1)).tolist()
    assert (second.presence <= first.presence).all()
    (method.loss([first, second]) + (second.presence * noisy(3, 9, seed=2)).sum()).backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_a_token_is_kept_with_its_probability():
    method = made((5, 3)).train()
    x = noisy(1, 10, DIM, seed=4)
    probability = method.predictors[0](x[:, 1:])[0]
    draws = 20_000
    torch.manual_seed(0)
    kept = method.relaxed(Tokens.from_sequence(x.expand(draws, -1, -1), (3, 3)), 5, at(0)).presence.mean(dim=0)
    deviation = (probability * (1 - probability) / draws).sqrt()
    assert ((kept - probability).abs() < 4 * deviation).all()


def test_the_mean_in_the_network_is_over_the_present_tokens():
    method, x = made((5, 3)).double(), noisy(2, 10, DIM, seed=5).double()[:, 1:]
    presence = torch.tensor([[1, 0, 0, 1, 1, 0, 1, 0, 0], [0, 0, 0, 0, 0, 0, 0, 1, 0]]).double()
    logits = method.predictors[0]._logits(x, presence)
    for b in range(2):
        present = presence[b] > 0
        torch.testing.assert_close(logits[b, present], method.predictors[0]._logits(x[b : b + 1, present], None)[0])


def test_the_loss_is_that_of_the_paper():
    tokens = Tokens.from_sequence(noisy(2, 11, DIM, seed=1), (2, 5))
    kept = torch.tensor([[1.0] * 8 + [0] * 2, [1.0] * 5 + [0] * 5])
    after = [replace(tokens, presence=kept), replace(tokens, presence=kept * torch.tensor([1.0, 0] * 5))]
    method = create("dynamic_vit")
    method.setup(Geometry(DIM, 2, (1, 2), (2, 5), counts=(7, 5), targets=(7, 5)))
    first, second = ((0.8 - 0.7) ** 2 + (0.5 - 0.7) ** 2) / 2, ((0.4 - 0.5) ** 2 + (0.3 - 0.5) ** 2) / 2
    assert method.loss(after).item() == pytest.approx(2 * (first + second) / 2)
    method.setup(Geometry(DIM, 2, (1, 2), (2, 5), counts=(10, 5), targets=(10, 5)))
    assert method.loss([tokens, after[1]]).item() == pytest.approx(2 * second / 2)  # nothing is removed at first
    assert method.loss([tokens, tokens]).item() == 0


def test_networks_that_drop_everything_give_finite_losses_and_gradients(tiny_vit: Callable[..., VisionTransformer]):
    for settings in POOLINGS:
        torch.manual_seed(0)
        model = DownsampledViT(tiny_vit(**settings), create("dynamic_vit"), Schedule.stages(0.3, (0, 1, 2))).train()
        with torch.no_grad():
            for predictor in model.downsampler.predictors:
                predictor.outer[4].bias.copy_(torch.tensor([-30.0, 30.0]))
        after: list[Tokens] = []
        logits = model(noisy(3, 3, 32, 32, seed=0), observe=lambda _, tokens, into=after: into.append(tokens))
        assert [tokens.presence.sum(dim=1).tolist() for tokens in after] == [[1, 1, 1]] * 4
        (logits.square().sum() + model.downsampler.loss(after[:3])).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all(), name


def test_weights_can_be_saved_and_loaded():
    method, other = made((5, 3), seed=1), made((5, 3), seed=2)
    tokens = Tokens.from_sequence(noisy(4, 10, DIM, seed=3), (3, 3))
    assert not torch.equal(method(tokens, 4, at(0)).owner, other(tokens, 4, at(0)).owner)
    other.load_state_dict(method.state_dict())
    assert torch.equal(method(tokens, 4, at(0)).owner, other(tokens, 4, at(0)).owner)


def test_an_image_gives_the_same_result_in_any_batch():
    method, x = made((5, 3)), noisy(5, 10, DIM, seed=6)
    together = method(Tokens.from_sequence(x, (3, 3)), 4, at(0))
    for b in range(5):
        alone = method(Tokens.from_sequence(x[b : b + 1], (3, 3)), 4, at(0))
        assert torch.equal(alone.owner[0], together.owner[b])


def test_parameters_and_compute_match_the_paper():
    # DeiT-S has 22.05 million parameters; arXiv 2106.02034, table 1. Its gmacs may or may not include the predictors.
    vit = timm.create_model("deit_small_patch16_224", pretrained=False).eval()
    for keep, gmacs in ((0.9, 4.0), (0.7, 2.9)):
        model = DownsampledViT(vit, create("dynamic_vit"), Schedule.stages(keep)).eval()
        assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 1) == 22.8
        macs = count_macs(model, torch.zeros(1, 3, 224, 224))
        assert (macs.total - macs.method) / 1e9 <= gmacs <= macs.total / 1e9


@pytest.mark.parametrize("name", TRAINED)
def test_it_is_skipped_without_fine_tuning(name: str):
    config = load_config()
    chosen = {"models": ["digits_deit"], "baselines": ["none"], "methods": [name], "keep": [0.5]}
    cells = cells_of(config.suite("embedded", chosen), config, [])
    assert [cell.variant.method for cell in cells] == ["none", name]
    assert not cells[0].variant.skipped
    assert "fine-tuned" in cells[1].variant.skipped
