"""Which images a model is trained on, and which it is validated on."""

from pathlib import Path
from types import ModuleType

import pytest
from plugin_files import error_message

from tokbench.config import load_config
from tokbench.data.labelling import Labelling
from tokbench.data.sets import open_images
from tokbench.embedded.canvases import digits
from tokbench.finetune.inputs import TrainingInputs, open_training_inputs

ANIMALS = ("birds", "cats", "dogs")


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Tiny models that timm knows by name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "data"))
    import own_models

    return own_models


@pytest.fixture
def photographs(models: ModuleType, tmp_path: Path) -> Path:
    """Eight photographs of each of three animals."""
    for number in range(24):
        file = tmp_path / "photographs" / ANIMALS[number % 3] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        models.picture(number).save(file)
    return tmp_path / "photographs"


def opened(**settings: object) -> TrainingInputs:
    base = {"methods": ["tome"], "baselines": ["none"], "device": "cpu", "weights": "random"}
    return open_training_inputs(load_config().suite("imagenet", {**base, **settings}))


def test_the_part_that_is_set_apart_is_the_one_that_compare_does_not_measure(
    models: ModuleType, photographs: Path
) -> None:
    inputs = opened(models=[models.model_of(3)], data=str(photographs), set_apart=0.5)
    whole = open_images(photographs, Labelling(outputs=(3,)))
    apart = [name for name, found in zip(whole.names, whole.digests, strict=True) if int(found[:2], 16) < 128]
    assert list(inputs.images.names) == apart
    assert inputs.run.images is not None
    assert sorted([*apart, *inputs.run.images.names]) == sorted(whole.names)


def test_images_to_train_on_have_the_classes_of_those_to_validate_on(models: ModuleType, photographs: Path) -> None:
    inputs = opened(models=[models.model_of(3)], data=str(photographs), train=str(photographs), limit=6)
    assert inputs.images.class_names == ANIMALS
    assert len(inputs.images) == 24
    assert inputs.run.images is not None
    assert len(inputs.run.images) == 6


def test_without_data_there_is_no_validation(models: ModuleType, photographs: Path) -> None:
    inputs = opened(models=[models.model_of(3)], train=str(photographs))
    assert inputs.run.images is None
    assert len(inputs.images) == 24


def test_the_embedded_data_bring_their_own_images() -> None:
    suite = load_config().suite("embedded", {"models": ["digits_deit_16"], "methods": ["tome"], "limit": 10})
    inputs = open_training_inputs(suite)
    assert inputs.images.labels == tuple(digits("train").labels)
    assert inputs.run.images is not None
    assert len(inputs.run.images) == 10
    assert not set(inputs.images.digests) & set(inputs.run.images.digests)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no images to train on: name them with --train, or let --set-apart 0.5"),
        ({"data": "x"}, "no images to train on"),
        ({"set_apart": 0.5}, "--set-apart takes a part of --data, which is missing"),
        ({"data": "x", "train": "y", "set_apart": 0.5}, "give one of the two"),
        ({"data": "embedded", "train": "y"}, "brings its own training images"),
        ({"data": "embedded", "set_apart": 0.5}, "brings its own training images"),
    ],
)
def test_unclear_sources_are_refused(settings: dict[str, object], message: str) -> None:
    assert message in error_message(lambda: opened(**settings))


def test_a_head_for_other_classes_is_refused(models: ModuleType, photographs: Path) -> None:
    text = error_message(lambda: opened(models=[models.model_of(12)], train=str(photographs)))
    assert "there are 3 folders, and the model has 12 outputs" in text


def test_images_without_labels_are_refused(models: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "flat").mkdir()
    for number in range(4):
        models.picture(number).save(tmp_path / "flat" / f"{number}.png")
    text = error_message(lambda: opened(models=[models.model_of(3)], train=str(tmp_path / "flat")))
    assert "--train" in text or "training needs labels" in text
