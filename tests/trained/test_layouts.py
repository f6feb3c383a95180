"""What makes a file one of a known layout, which of its weights are taken, and what is refused with a reason."""

import argparse
from pathlib import Path
from typing import Any

import pytest
import torch
from made_checkpoints import TOP_K, images, random_vit, saved
from recognised_models import logits, model_of, recognised

from tokbench.errors import UserError
from tokbench.trained.layouts import recognise
from tokbench.vit.weights import load_object

ATC = {"model": "atc_tiny_patch16_224", "reduction_ratio": [0.5], "reduction_loc": [1, 3], "linkage": "single"}


def made(folder: Path, **args: Any) -> Path:
    return saved(folder, random_vit().state_dict(), **args)


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"model": "deit_tiny_patch16_224"},
        {"model": "topk_tiny_patch16_224"},
        {"keep_rate": [0.5], "reduction_loc": [1]},
        {**TOP_K, "model": 3},
    ],
)
def test_what_does_not_say_which_method_it_is_of_is_not_recognised(tmp_path: Path, args: dict[str, Any]):
    file = made(tmp_path, **args)
    assert recognise(load_object(file), file) is None


@pytest.mark.parametrize("content", [[1, 2], 3.0, {}, {"model": 3}, {"model": {"a": 1}}])
def test_other_content_is_not_recognised(tmp_path: Path, content: Any):
    file = tmp_path / "other.pth"
    torch.save(content, file)
    assert recognise(load_object(file), file) is None


def test_one_rate_gives_its_powers_and_a_list_one_rate_each(tmp_path: Path):
    assert recognised(made(tmp_path, **TOP_K)).schedule == "explicit(counts=8-4,at=1-3)"
    listed = recognised(made(tmp_path, **{**TOP_K, "keep_rate": [0.8, 0.3]}))
    assert listed.schedule == "explicit(counts=12-4,at=1-3)"


def test_the_plain_model_trained_in_the_benchmark_is_one_too(tmp_path: Path):
    trained = recognised(made(tmp_path, model="deit_small_patch16_224_local", keep_rate=[], reduction_loc=[]))
    assert (trained.method, trained.schedule, trained.site) == ("none", "", "")
    with torch.no_grad():
        torch.testing.assert_close(logits(model_of(trained), images()), random_vit()(images()))


def test_tome_removes_at_most_half_and_then_what_was_planned(tmp_path: Path):
    # Planned are 16 -> 4 -> 1: the first matching removes 8 of 12, and the second the planned 3, not 7.
    tome = recognised(made(tmp_path, **{**TOP_K, "model": "tome_tiny_patch16_224", "keep_rate": [0.25]}))
    assert tome.schedule == "explicit(counts=8-5,at=1-3)"
    assert model_of(tome).counts == (8, 5)


@pytest.mark.parametrize(("better", "wanted"), [(True, 1), (False, 0)])
def test_the_averaged_weights_are_taken_where_they_were_better(tmp_path: Path, better: bool, wanted: int):
    content = {
        "model": random_vit(0).state_dict(),
        "model_ema": random_vit(1).state_dict(),
        "ema_best": better,
        "args": argparse.Namespace(**TOP_K),
    }
    torch.save(content, tmp_path / "both.pth")
    trained = recognised(tmp_path / "both.pth")
    assert torch.equal(trained.vit["head.weight"], random_vit(wanted).head.weight)
    assert "model_ema" in trained.remarks[0]


def test_weights_saved_from_a_parallel_model_are_read(tmp_path: Path):
    state = {f"module.{name}": value for name, value in random_vit().state_dict().items()}
    trained = recognised(saved(tmp_path, state, **TOP_K))
    assert set(trained.vit) == set(random_vit().state_dict())


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        ({**TOP_K, "model": "heuristic_tiny_patch16_224"}, "does not have the method 'heuristic'"),
        ({**TOP_K, "keep_rate": [0.5, 0.4, 0.3]}, "3 rates for 2 reductions"),
        ({**TOP_K, "keep_rate": ["0.5"]}, "keep_rate=.*not a list of float"),
        ({**TOP_K, "reduction_loc": "3 6 9"}, "reduction_loc='3 6 9', not a list"),
        ({**TOP_K, "model": "sit_tiny_patch16_224", "keep_rate": [8.0, 4.0]}, "2 rates for 2 reductions"),
        ({**TOP_K, "model": "sit_tiny_patch16_224"}, r"lack cluster_layers.0.weight.0.weight"),
        ({**TOP_K, "model": "kmedoids_tiny_patch16_224", "equal_weight": True}, "random token"),
        ({**TOP_K, "model": "kmedoids_tiny_patch16_224"}, "equal_weight=None, not a bool"),
        ({**ATC, "proportional_attn": True, "reduction_ratio": [0.5, 0.2]}, "2 reduction_ratios"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_the_reason(tmp_path: Path, args: dict[str, Any], reason: str):
    with pytest.raises(UserError, match=reason) as error:
        recognised(made(tmp_path, **args))
    assert "\n" not in str(error.value)
    assert str(tmp_path) in str(error.value)


def test_a_distillation_token_is_refused(tmp_path: Path):
    state = {**random_vit().state_dict(), "dist_token": torch.zeros(1, 1, 24)}
    with pytest.raises(UserError, match="distillation token"):
        recognised(saved(tmp_path, state, **TOP_K))


def test_atc_without_proportional_attention_is_built_so(tmp_path: Path):
    trained = recognised(made(tmp_path, **ATC, proportional_attn=False))
    assert trained.params == {"linkage": "single", "proportional": False}
    assert model_of(trained).counts == (8, 4)


def test_a_released_dynamicvit_does_not_say_its_keep_rate(tmp_path: Path):
    state = {**random_vit().state_dict(), "score_predictor.0.in_conv.0.weight": torch.ones(24)}
    with pytest.raises(UserError, match=r"does not say its keep rate, as .*base_rate=0\.7"):
        recognised(saved(tmp_path, state))
    with pytest.raises(UserError, match="name no DeiT"):
        recognised(saved(tmp_path, state, base_rate=0.7, model="lvvit-s"))
