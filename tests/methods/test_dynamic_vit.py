"""DynamicViT against plain loops, and the treatment of methods that need training."""

import pytest
import timm
import torch
from plain_math import at, kept_probabilities, noisy, predictor_weights

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


def test_training_gives_the_same_tokens_and_a_gradient_for_every_weight():
    method = made((5, 3))
    tokens = Tokens.from_sequence(noisy(3, 10, DIM, seed=1), (3, 3))
    measured = method(tokens, 5, at(0)).x
    method.train()
    outputs = [method(tokens, 5, at(stage)) for stage in (0, 1)]
    assert torch.allclose(outputs[0].x, measured, atol=1e-6)
    sum(output.patches.square().sum() for output in outputs).backward()
    for name, parameter in method.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


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
