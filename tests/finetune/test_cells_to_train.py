"""Which cells a suite trains."""

import pytest
from plugin_files import error_message

from tokbench.config import load_config
from tokbench.finetune.cells import cells_to_train
from tokbench.finetune.prepare import NOTHING_TO_TRAIN, plan_training
from tokbench.finetune.recipes import load_recipe
from tokbench.registry import discover
from tokbench.run.cells import NO_BUDGET, Cell


def cells(**settings: object) -> tuple[Cell, ...]:
    config = load_config()
    known, _ = discover()
    suite = config.suite("embedded", {"models": ["digits_deit"], "seeds": [0], **settings})
    return cells_to_train(suite, config, list(known))


def test_the_plain_model_comes_first_and_every_cell_has_every_seed() -> None:
    found = cells(models=["digits_deit_16", "digits_deit"], methods=["tome"], keep=[0.3, 0.7], seeds=[4, 1])
    expected = [
        (model, method, keep, seed)
        for model in ("digits_deit_16", "digits_deit")
        for method, keep in (("none", 1.0), ("tome", 0.7), ("tome", 0.3))
        for seed in (4, 1)
    ]
    assert [(cell.model, cell.variant.method, cell.variant.keep, cell.seed) for cell in found] == expected


@pytest.mark.parametrize("method", ["dynamic_vit", "sinkhorn", "dtome"])
def test_methods_that_need_training_or_calibration_are_not_skipped(method: str) -> None:
    _, cell = cells(methods=[method], keep=[0.5])
    assert not cell.variant.skipped
    assert not cell.variant.failed


def test_a_method_that_learns_how_many_tokens_stay_is_trained_towards_each_keep() -> None:
    _, *found = cells(methods=["ltmp", "rajni"], keep=[0.7, 0.5, 0.3])
    assert [(cell.variant.method, cell.variant.keep) for cell in found] == [
        *(("ltmp", keep) for keep in (0.7, 0.5, 0.3)),
        ("rajni", 0.3),  # it has nothing to learn: any keep gives the same
    ]


def test_what_meets_no_budget_is_skipped() -> None:
    _, ltmp, tome = cells(methods=["ltmp", "tome"], schedule=["budget(0.7)"])
    assert ltmp.variant.skipped == NO_BUDGET
    assert not tome.variant.skipped


def test_all_methods_are_trained() -> None:
    found = cells(methods=["all"], keep=[0.5])
    assert {cell.variant.method for cell in found} == {"none", *discover()[0]}
    assert not [cell for cell in found if cell.variant.skipped]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": ["searched(0.7)"]}, "only tokbench compare searches"),
        ({"methods": ["none(attention=eager)"]}, "the plain model is only trained as it is"),
        ({"methods": ["tomee"]}, "did you mean 'tome'"),
    ],
)
def test_what_cannot_be_trained_is_refused(settings: dict[str, object], message: str) -> None:
    assert message in error_message(lambda: cells(**settings))


def test_where_the_model_is_frozen_only_methods_with_weights_are_trained() -> None:
    config = load_config()
    suite = config.suite("embedded", {"models": ["digits_deit_16"], "methods": ["tome", "dtem"], "seeds": [0]})
    recipe = load_recipe("digits", {"frozen_epochs": "all"})
    planned = plan_training(suite.model_copy(update={"keep": (0.7,)}), config, recipe)
    assert {task.about.method: task.skipped for task in planned.tasks} == {
        "none": NOTHING_TO_TRAIN,
        "tome": NOTHING_TO_TRAIN,
        "dtem": "",
    }
