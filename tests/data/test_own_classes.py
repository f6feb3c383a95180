"""Data with other classes than ImageNet's: every layout through a whole comparison, against an independent loop."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import timm
from made_images import TABBY, TENCH, write_folder
from own_models import ANIMALS, logits_of, model_of, picture, right_answers, save_weights
from torchvision.datasets import ImageFolder

import tokbench
from tokbench.config import load_config
from tokbench.data.class_names import read_class_names
from tokbench.data.errors import DataError
from tokbench.data.sets import Labelling, open_images
from tokbench.errors import UserError
from tokbench.run.inputs import Inputs, open_inputs
from tokbench.run.labelling import in_another_order
from tokbench.run.wrong_answers import answers_in_words
from tokbench.vit.models import Pretrained, load_model

# Random weights are right on a third of the images.
pytestmark = pytest.mark.filterwarnings("ignore:.*is right on|.*is labelled:UserWarning")

THREE = Labelling(outputs=(3,))
COUNT = 24


def write_pictures(root: Path, names: Sequence[str]) -> dict[str, Path]:
    """A picture of its own for each name."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(root / name)
    return {name: root / name for name in names}


def in_folders(folders: Sequence[str], count: int = COUNT) -> list[str]:
    return [f"{folders[number % len(folders)]}/{number:02d}.png" for number in range(count)]


def answers(folder: Path, outputs: int = 3, **settings: object) -> dict[str, bool]:
    """Which images of `data` the plain model classifies correctly, from a whole comparison."""
    tokbench.compare(
        "imagenet", out=folder / "out", models=[model_of(outputs)], weights=save_weights(outputs, folder),
        methods=["none"], baselines=["none"], only=["accuracy"], workers=0, device="cpu", accuracy_batch=7,
        progress=False, **settings,
    )  # fmt: skip
    found = tokbench.load(folder / "out").answers
    return dict(zip(found["image"].astype(str), found["top1"].tolist(), strict=True))


def text_file(file: Path, lines: Sequence[str]) -> Path:
    file.write_text("\n".join(lines))
    return file


Prepare = Callable[[Path], tuple[Mapping[str, object], Mapping[str, int]]]


def sorted_folders(folder: Path) -> tuple[Mapping[str, object], Mapping[str, int]]:
    names = in_folders(ANIMALS)
    write_pictures(folder / "data", names)
    return {}, {name: ANIMALS.index(name.split("/")[0]) for name in names}


def own_order(folder: Path) -> tuple[Mapping[str, object], Mapping[str, int]]:
    names = in_folders(ANIMALS)
    write_pictures(folder / "data", names)
    order = ["Dogs", "birds ", "CATS"]
    labels = {"dogs": 0, "birds": 1, "cats": 2}
    return {"classes": text_file(folder / "c.txt", order)}, {name: labels[name.split("/")[0]] for name in names}


def of_a_split(folder: Path) -> tuple[Mapping[str, object], Mapping[str, int]]:
    names = [f"{split}/{name}" for split in ("train", "val") for name in in_folders(ANIMALS)]
    write_pictures(folder / "data", names)
    wanted = [name for name in names if name.startswith("val/")]
    return {"split": "val"}, {name: ANIMALS.index(name.split("/")[1]) for name in wanted}


def some_classes(folder: Path) -> tuple[Mapping[str, object], Mapping[str, int]]:
    names = in_folders(("dogs", "cats"))
    write_pictures(folder / "data", names)
    return {"classes": text_file(folder / "c.txt", ANIMALS)}, {
        name: ANIMALS.index(name.split("/")[0]) for name in names
    }


LAYOUTS: dict[str, Prepare] = {
    "sorted folders": sorted_folders,
    "names in an order of one's own": own_order,
    "a split": of_a_split,
    "some of the classes": some_classes,
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_answers_are_those_of_an_independent_loop(layout: str, tmp_path: Path) -> None:
    settings, labels = LAYOUTS[layout](tmp_path)
    expected = right_answers({name: tmp_path / "data" / name for name in labels}, labels, 3)
    assert 0 < sum(expected.values()) < len(expected)
    assert answers(tmp_path, data=str(tmp_path / "data"), **settings) == expected


def test_twelve_numbered_folders_are_class_numbers(tmp_path: Path) -> None:
    names = in_folders([str(number) for number in range(12)], 48)
    files = write_pictures(tmp_path / "data", names)
    labels = {name: int(name.split("/")[0]) for name in names}
    with pytest.warns(UserWarning, match="torchvision's ImageFolder sorts numbers as texts"):
        found = answers(tmp_path, 12, data=str(tmp_path / "data"))
    assert found == right_answers(files, labels, 12)


def test_no_published_number_stands_beside_other_classes(tmp_path: Path) -> None:
    settings, _ = sorted_folders(tmp_path)
    answers(tmp_path, data=str(tmp_path / "data"), **settings)
    plan = tokbench.load(tmp_path / "out").plan
    assert plan.images is not None
    assert (plan.images.name, plan.images.classes, plan.images.class_names) == ("folders", 3, ANIMALS)
    assert plan.images.own_classes


# Which class a folder is


def labels_in(root: Path, labelling: Labelling = THREE) -> dict[str, int]:
    images = open_images(root, labelling)
    assert not images.unlabelled, images.unlabelled
    return dict(zip(images.names, images.labels, strict=True))


def test_names_are_found_whatever_their_case_and_separators(tmp_path: Path) -> None:
    write_folder(tmp_path, ["Great Owl/a.png", "brown-bear/b.png", "CAT/c.png"])
    labelling = Labelling(outputs=(3,), classes=("cat", "Brown_Bear", "great_owl"))
    assert labels_in(tmp_path, labelling) == {"Great Owl/a.png": 2, "brown-bear/b.png": 1, "CAT/c.png": 0}


def test_names_that_differ_in_case_only_are_told_apart(tmp_path: Path) -> None:
    write_folder(tmp_path, ["a/1.png", "A/2.png"])
    assert labels_in(tmp_path, Labelling(outputs=(2,), classes=("a", "A"))) == {"a/1.png": 0, "A/2.png": 1}


def test_a_name_that_two_classes_have_names_none(tmp_path: Path) -> None:
    write_folder(tmp_path, ["crane/1.png", "dog/1.png"])
    with pytest.raises(DataError, match="'crane' not among the model's class names"):
        open_images(tmp_path, Labelling(outputs=(4,), model_names=("crane", "dog", "crane", "cat")))


def test_numbered_folders_without_a_zero_are_noted(tmp_path: Path) -> None:
    write_folder(tmp_path, ["1/a.png", "2/b.png"])
    images = open_images(tmp_path, THREE)
    assert images.labels == (1, 2)
    assert "the folders '1', '2' are taken as class numbers from 0, though there is no 0" in images.notes[0]
    assert open_images(tmp_path, Labelling(outputs=(2,))).labels == (0, 1)


def test_the_model_s_names_come_before_the_sorted_folders(tmp_path: Path) -> None:
    write_folder(tmp_path, [f"{name}/1.png" for name in ANIMALS])
    named = Labelling(outputs=(3,), model_names=("dogs", "cats", "birds"))
    assert labels_in(tmp_path, named) == {"birds/1.png": 2, "cats/1.png": 1, "dogs/1.png": 0}
    given = Labelling(outputs=(3,), model_names=("dogs", "cats", "birds"), classes=("cats", "birds", "dogs"))
    assert labels_in(tmp_path, given) == {"birds/1.png": 1, "cats/1.png": 0, "dogs/1.png": 2}
    strange = Labelling(outputs=(3,), model_names=("LABEL_0", "LABEL_1", "LABEL_2"))
    assert labels_in(tmp_path, strange) == {"birds/1.png": 0, "cats/1.png": 1, "dogs/1.png": 2}
    (note,) = open_images(tmp_path, strange).notes
    assert "sorted order, since none of them is among the model's class names ('LABEL_0'" in note


@pytest.mark.parametrize(
    ("folders", "order"),
    [
        (["birds", "cats", "dogs"], ["birds", "cats", "dogs"]),
        (["2", "10", "9"], ["10", "2", "9"]),
        (["Zebra", "ant", "bee"], ["Zebra", "ant", "bee"]),
    ],
)
def test_sorted_folders_are_torchvision_s(folders: list[str], order: list[str], tmp_path: Path) -> None:
    write_folder(tmp_path, [f"{name}/1.png" for name in folders])
    images = open_images(tmp_path, THREE)
    assert images.class_names == tuple(order) == tuple(ImageFolder(tmp_path).classes)
    assert [name.split("/")[0] for name in images.names] == [order[label] for label in images.labels]
    timm_order = tuple(sorted(folders, key=lambda name: int(name) if name.isdigit() else name.lower()))
    assert len(images.notes) == (timm_order != images.class_names)


def test_folders_within_class_folders(tmp_path: Path) -> None:
    names = ["set/birds/2019/a.png", "set/cats/x/y/b.png", "set/dogs/c.png"]
    write_folder(tmp_path, names)
    assert labels_in(tmp_path) == dict(zip(names, range(3), strict=True))


def test_innermost_folders_are_classes_where_only_their_number_fits(tmp_path: Path) -> None:
    names = ["part1/birds/a.png", "part1/cats/b.png", "part2/dogs/c.png", "part2/birds/d.png"]
    write_folder(tmp_path, names)
    assert labels_in(tmp_path) == dict(zip(names, (0, 1, 2, 0), strict=True))


def test_imagenet_s_classes_come_first_for_a_model_of_1000(tmp_path: Path) -> None:
    write_folder(tmp_path, [f"{TENCH}/a.png", f"{TABBY}/b.png"])
    for outputs in ((1000,), (2, 1000), (0,), ()):
        images = open_images(tmp_path, Labelling(outputs=outputs))
        assert (images.labels, images.class_names, images.class_count) == ((0, 281), (), 1000)
    ten = open_images(tmp_path, Labelling(outputs=(2,)))
    assert (ten.labels, ten.class_names, ten.class_count) == ((0, 1), (TENCH, TABBY), 2)


def test_labels_are_a_part_of_the_identity(tmp_path: Path) -> None:
    write_folder(tmp_path, [f"{name}/1.png" for name in ANIMALS])
    other = Labelling(outputs=(3,), classes=("dogs", "cats", "birds"))
    assert open_images(tmp_path, THREE).identity != open_images(tmp_path, other).identity


MISTAKES: dict[str, tuple[list[str], Labelling, str]] = {
    "too few folders": (
        ["birds/1.png", "cats/1.png"],
        THREE,
        "there are 2 folders, and the model has 3 outputs: give the names of the classes in the order",
    ),
    "ImageNet's outputs": (["birds/1.png", "cats/1.png"], Labelling(), "from 'birds', 'cats': name each .*--classes"),
    "another folder": (
        ["birds/1.png", "wolves/1.png"],
        Labelling(outputs=(3,), classes=ANIMALS),
        "'wolves' not among the classes .'birds', 'cats', 'dogs'.: rename them, or correct --classes",
    ),
    "other folders": (
        ["owls/1.png", "wolves/1.png"],
        Labelling(outputs=(3,), classes=ANIMALS),
        "'owls', 'wolves' not among the classes",
    ),
    "another than the model's": (
        ["birds/1.png", "wolves/1.png"],
        Labelling(outputs=(3,), model_names=ANIMALS),
        "'wolves' not among the model's class names .*--classes FILE",
    ),
    "an image in no folder": (["birds/1.png", "cats/1.png", "1.png"], THREE, "from '1.png', which are in no folder"),
    "no folders": (["1.png", "2.png"], THREE, "from '1.png', '2.png': sort the images into one folder per class"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_folders_that_say_no_class(mistake: str, tmp_path: Path) -> None:
    names, labelling, message = MISTAKES[mistake]
    write_folder(tmp_path, names)
    try:
        found = open_images(tmp_path, labelling).unlabelled
    except DataError as error:
        found = str(error)
    assert re.search(message, found), found
    assert found.isprintable()


# A file with the names


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.txt", "b\na c\nd"),
        ("a.TXT", "\ufeffb\r\na c\r\nd\r\n\r\n"),
        ("a.names", "b\na c\nd\n"),
        ("a.json", '["b", "a c", "d"]'),
        ("a.json", '{"a c": 1, "d": 2, "b": 0}'),
        ("a.json", '{"2": "d", "1": "a c", "0": "b"}'),
        ("config.json", '{"architectures": ["ViT"], "id2label": {"0": "b", "1": "a c", "2": "d"}}'),
        ("config.json", '{"num_classes": 3, "label_names": ["b", "a c", "d"]}'),
    ],
)
def test_names_are_read(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    assert read_class_names(tmp_path / name) == ("b", "a c", "d")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "it has no names"),
        ("a.txt", b"a\n\nb", "line 2 is empty"),
        ("a.txt", b"a\nb\na", "has 'a' more than once"),
        ("a.txt", b"\xff\xfe", "cannot be used"),
        ("a.json", b"{", "cannot be used"),
        ("a.json", b'"a"', "it has another form"),
        ("a.json", b'["a", 1]', "it has another form"),
        ("a.json", b'{"a": 0, "b": 2}', r"its indices are not 0\.\.1, each once"),
        ("a.json", b'{"a": 0, "b": 0}', r"its indices are not 0\.\.1, each once"),
        ("a.json", b'{"a": 0.5}', "it has another form"),
        ("a.json", b"[" * 100_000, "cannot be used"),
        ("nowhere.txt", None, "there is no such file"),
    ],
)
def test_files_without_names(name: str, content: bytes | None, message: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_class_names(tmp_path / name)
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith("--classes: ")


# Through the command line

Run = Callable[..., tuple[int, str, str]]


def command(folder: Path, classes: int, *more: str) -> list[str]:
    return [
        "compare", "imagenet", "--data", "data", "--models", model_of(classes), "--workers", "0", "--methods", "none",
        "--weights", str(save_weights(classes, folder)), "--only", "accuracy", "--json", *more,
    ]  # fmt: skip


def test_settings_in_a_file_are_relative_to_it(run: Run, tmp_path: Path) -> None:
    names = in_folders(ANIMALS)
    write_pictures(tmp_path / "there" / "data", names)
    text_file(tmp_path / "there" / "names.txt", ANIMALS[::-1])
    (tmp_path / "there" / "tokbench.toml").write_text('[suites.imagenet]\ndata = "data"\nclasses = "names.txt"\n')
    code, out, err = run(
        *(one for one in command(tmp_path, 3, "--config", "there/tokbench.toml") if one not in ("--data", "data"))
    )
    assert code == 0, err
    labels = {name: ANIMALS[::-1].index(name.split("/")[0]) for name in names}
    right = right_answers({name: tmp_path / "there" / "data" / name for name in names}, labels, 3)
    assert json.loads(out)[0]["top1"] == pytest.approx(100 * sum(right.values()) / COUNT)


def test_a_refused_folder_names_the_options(run: Run, tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", in_folders(ANIMALS[:2]))
    code, _, err = run(*command(tmp_path, 3))
    assert (code, err.count("\n")) == (2, 1)
    assert "there are 2 folders, and the model has 3 outputs: give the names of the classes" in err
    assert "--only macs,latency,agreement" in err
    code, _, err = run(*command(tmp_path, 3, "--classes", "nowhere.txt"))
    assert (code, err.count("\n")) == (2, 1)
    assert "--classes: nowhere.txt cannot be used (there is no such file)" in err


def test_labels_that_do_not_match_are_reported_with_examples(run: Run, tmp_path: Path) -> None:
    # Sorted folders and a model that was trained with another order: every answer is another animal's.
    files = write_pictures(tmp_path / "made", [f"{number}.png" for number in range(60)])
    shown = {name: int(logits.argmax()) for name, logits in logits_of(files, 3).items()}
    for name, answer in shown.items():
        folder = tmp_path / "data" / ANIMALS[(answer + 1) % 3]
        folder.mkdir(parents=True, exist_ok=True)
        files[name].rename(folder / name)
    assert len(set(shown.values())) == 3
    code, _, err = run(*command(tmp_path, 3))
    warning, *examples = err.splitlines()
    assert code == 0
    assert "is right on 0 of 60 images, no better than guessing among 3 classes" in warning
    assert "the labels and the model's classes probably do not match" in warning
    assert len(examples) == 3
    for example in examples:
        found = re.fullmatch(
            r"tokbench: (\w+)/(\d+\.png) is labelled (\d) \((\w+)\), the model answers (\d) \((\w+)\) with \d+ %",
            example,
        )
        assert found is not None, example
        label, answer = int(found[3]), int(found[5])
        assert (found[1], found[4], found[6]) == (ANIMALS[label], ANIMALS[label], ANIMALS[answer])
        assert answer == shown[found[2]]
    # In the right order, all answers are right.
    text_file(tmp_path / "order.txt", [ANIMALS[(place + 1) % 3] for place in range(3)])
    code, out, err = run(*command(tmp_path, 3, "--classes", "order.txt"))
    assert (code, err, json.loads(out)[0]["top1"]) == (0, "", 100)


def test_names_from_a_file_of_weights_cannot_steer_the_terminal(tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", ["0/1.png"])
    images = open_images(tmp_path / "data", THREE)
    model = replace(load_model(model_of(3), save_weights(3, tmp_path)), class_names=("\x1b[31ma", "\x1b[31mb", "c\nd"))
    (line,) = answers_in_words(model, images, [0])
    assert line.isprintable()


def test_of_two_models_the_one_with_another_head_is_not_evaluated(tmp_path: Path) -> None:
    names = in_folders(ANIMALS)
    write_pictures(tmp_path / "data", names)
    table = tokbench.compare(
        "imagenet", out=tmp_path / "out", models=[model_of(12), model_of(3)], data=str(tmp_path / "data"),
        methods=["none"], baselines=["none"], only=["macs", "accuracy"], workers=0, device="cpu", progress=False,
    ).set_index("model")  # fmt: skip
    labels = {name: ANIMALS.index(name.split("/")[0]) for name in names}
    right = right_answers({name: tmp_path / "data" / name for name in names}, labels, 3)
    assert table.loc[model_of(3), "top1"] == pytest.approx(100 * sum(right.values()) / COUNT)
    assert "its head has 12 outputs, and there are 3 classes" in table.loc[model_of(12), "remarks"]
    assert table["top1"].notna().tolist() == [False, True]


def test_a_model_with_the_classes_in_another_order_is_noticed(tmp_path: Path) -> None:
    write_folder(tmp_path, [f"{name}/1.png" for name in ANIMALS])
    images = open_images(tmp_path, Labelling(outputs=(3,), model_names=ANIMALS))
    vit = timm.create_model(model_of(3))
    for names, expected in {ANIMALS: False, ANIMALS[::-1]: True, (): False, ("x", "y", "z"): False}.items():
        assert in_another_order(images, Pretrained(vit, "", class_names=names)) == expected


def test_neighbours_and_calibration_images_have_the_same_classes(tmp_path: Path) -> None:
    """Training images in some of the folders: their classes are those of the data, whatever their number."""
    names = in_folders(ANIMALS)
    write_pictures(tmp_path / "data", names)
    write_pictures(tmp_path / "train", in_folders(ANIMALS[1:], 40))
    write_pictures(tmp_path / "flat", [f"{number}.png" for number in range(4)])
    found = inputs_of(tmp_path, train=str(tmp_path / "train"), calibration=str(tmp_path / "flat"), split=None)
    assert found.train is not None
    assert found.calibration is not None
    assert {(name.split("/")[0], label) for name, label in zip(found.train.names, found.train.labels, strict=True)} == {
        ("cats", 1),
        ("dogs", 2),
    }
    assert found.calibration.images.unlabelled
    assert found.classes == 3
    write_pictures(tmp_path / "train", ["wolves/1.png"])
    with pytest.raises(UserError, match=r"^--train: 'wolves' not among the classes"):
        inputs_of(tmp_path, train=str(tmp_path / "train"))


def inputs_of(folder: Path, **settings: object) -> Inputs:
    own = {"models": (model_of(3),), "weights": save_weights(3, folder), "data": str(folder / "data"), "device": "cpu"}
    return open_inputs(load_config().suite("imagenet", {**own, **settings}))


def test_a_model_with_another_head_is_left_out(run: Run, tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", in_folders(ANIMALS))
    code, _, err = run(*command(tmp_path, 12, "--classes", str(text_file(tmp_path / "c.txt", ANIMALS))))
    assert code == 2
    assert "its head has 12 outputs, and there are 3 classes" in err
