"""Lowering the keep during training."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from plugin_files import error_message

from tokbench import DownsampledViT, reduce
from tokbench.errors import UserError
from tokbench.finetune.keep_warm_up import check_keep_warm_up, keep_at, set_keep

MakeViT = Callable[..., Any]


def counts_seen(model: DownsampledViT) -> list[int]:
    """How many patch tokens leave each reduction."""
    seen: dict[int, int] = {}
    model.eval()(torch.zeros(1, 3, 32, 32), observe=lambda depth, tokens: seen.update({depth: tokens.n_patches}))
    return [seen[depth] for depth in model.depths]


def test_the_keep_falls_by_a_half_cosine() -> None:
    for progress in (0.0, 9.99, 10.0):
        assert keep_at(progress, 10, 30, 0.6) == 1
    assert keep_at(15, 10, 30, 0.6) == round(0.6 + 0.4 * (1 + math.sqrt(0.5)) / 2, 4)
    assert keep_at(20, 10, 30, 0.6) == 0.8
    for progress in (30.0, 31.0, 100.0):
        assert keep_at(progress, 10, 30, 0.6) == 0.6


def test_the_keep_never_rises_and_ends_at_one_that_has_more_digits() -> None:
    keeps = [keep_at(step / 50, 2, 7, 0.123456) for step in range(500)]
    assert keeps == sorted(keeps, reverse=True)
    assert keeps[0] == 1
    assert keeps[-1] == 0.123456


@pytest.mark.parametrize("schedule", ["stages(at=1-2)", "every_block"])
def test_counts_are_those_of_a_model_with_this_keep(schedule: str, tiny_vit: MakeViT) -> None:
    model = reduce(tiny_vit(), "tome", keep=0.5, schedule=schedule)
    final = model.schedule
    assert final is not None
    for keep in (1.0, 0.8, 0.6, 0.5):
        set_keep(model, final, keep)
        expected = reduce(tiny_vit(), "tome", keep=keep, schedule=schedule)
        assert model.counts == expected.counts
        assert counts_seen(model) == counts_seen(expected)
    assert model.schedule == final


def test_checking_changes_nothing(tiny_vit: MakeViT) -> None:
    model = reduce(tiny_vit(), "evit", keep=0.5, schedule="stages(at=1-2)")
    before, counts = copy.deepcopy(model.state_dict()), model.counts
    check_keep_warm_up(model)
    assert model.counts == counts
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("method", ["tome", "score_pruning", "evit"])
def test_methods_whose_weights_fit_all_counts_are_accepted(method: str, tiny_vit: MakeViT) -> None:
    check_keep_warm_up(reduce(tiny_vit(), method, keep=0.5, schedule="stages(at=1-2)"))


def test_the_plain_model_has_nothing_to_warm_up(tiny_vit: MakeViT) -> None:
    check_keep_warm_up(DownsampledViT(tiny_vit()))


def test_a_method_with_a_weight_for_each_token_is_refused(tiny_vit: MakeViT) -> None:
    model = reduce(tiny_vit(), "sit", keep=0.5, schedule="stages(at=1-2)")
    assert "method 'sit' has weights for its final counts" in error_message(check_keep_warm_up, model)


@pytest.mark.parametrize("schedule", ["every_block(r=2)", "explicit(counts=8-4,at=1-2)"])
def test_a_schedule_without_a_keep_is_refused(schedule: str, tiny_vit: MakeViT) -> None:
    model = reduce(tiny_vit(), "tome", schedule=schedule)
    assert "has no keep to warm up" in error_message(check_keep_warm_up, model)


@pytest.mark.parametrize("method", ["dynamic_vit", "tps"])
def test_a_method_that_is_trained_with_all_tokens_is_refused(method: str, tiny_vit: MakeViT) -> None:
    model = reduce(tiny_vit(), method, keep=0.5, schedule="stages(at=1-2)")
    with pytest.raises(UserError, match="is trained with all tokens in place"):
        check_keep_warm_up(model)
