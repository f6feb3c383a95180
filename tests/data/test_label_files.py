"""A table of labels, columns of other names, and a named split: which class each image has."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_images import TABBY, TENCH, colour_of, colours, png, write_folder, write_parquet, write_tar
from own_models import ANIMALS, picture, right_answers
from test_own_classes import THREE, answers, write_pictures

from tokbench.data.errors import DataError
from tokbench.data.sets import ImageSet, Labelling, open_images

pytestmark = pytest.mark.filterwarnings("ignore:.*is right on|.*is labelled:UserWarning")

FILES = ["a.png", "b.png", "below/c.png"]
TABLES = {
    "filename,label\na.png,dogs\nb.png,birds\nbelow/c.png,cats\n": (2, 0, 1),
    "id;target\na;dogs\nb;birds\nc;cats": (2, 0, 1),
    "Image\tother\tCategory\n./b.png\tx\tbirds\na.png\ty\tdogs\nc.png\tz\tcats\n": (2, 0, 1),
    "a.png,2\nb.png,0\nc.png,1\n": (2, 0, 1),
    "a.png,2\r\nb.png,2\r\nc.png,2": (2, 2, 2),
    "file,label\nc.png, cats \n\na.png,dogs\nb.png,birds\na.png,dogs\n": (2, 0, 1),
    'path,class\n"a.png","dogs"\nb.png,birds\nbelow/c.png,cats\n': (2, 0, 1),
}


def labelled(root: Path, table: str, **changes: object) -> ImageSet:
    write_folder(root / "set", FILES)
    (root / "labels.csv").write_text(table, encoding="utf-8", newline="")
    return open_images(root / "set", Labelling(**{"outputs": (3,), "labels": root / "labels.csv", **changes}))


@pytest.mark.parametrize("table", TABLES)
def test_tables(table: str, tmp_path: Path) -> None:
    images = labelled(tmp_path, table)
    assert images.names == tuple(FILES)
    assert images.labels == TABLES[table]
    assert (images.name, images.class_count) == ("labels", 3)


def test_names_are_those_of_the_user_or_the_model(tmp_path: Path) -> None:
    table = next(iter(TABLES))
    assert labelled(tmp_path, table, classes=("Cats", "dogs", "birds", "owls")).labels == (1, 2, 0)
    assert labelled(tmp_path, table, model_names=("dogs", "birds", "cats")).labels == (0, 1, 2)
    assert labelled(tmp_path, "a,0\nb,3\nc,1", classes=("w", "x", "y", "z")).labels == (0, 3, 1)
    of_imagenet = f"a,{TENCH}\nb,{TABBY}\nc,{TENCH}"
    assert labelled(tmp_path, of_imagenet, outputs=(1000,)).labels == (0, 281, 0)
    assert labelled(tmp_path, "a,0\nb,999\nc,281", outputs=(1000,)).labels == (0, 999, 281)
    other_column = "file,label,mine\na,x,dogs\nb,x,birds\nc,x,cats"
    assert labelled(tmp_path, other_column, label_column="mine").labels == (2, 0, 1)


MISTAKES: dict[str, tuple[str, str]] = {
    "empty": ("", "is empty: give a column"),
    "other columns": ("a,b,c\n1,2,3", "has the columns 'a', 'b', 'c': give a column named filename"),
    "an image is missing": ("a.png,1\nb.png,1", "no line for 1 of 3 images, such as 'below/c.png'"),
    "a file too many": (
        "a.png,1\nb.png,1\nc.png,1\nd.png,1\ne.png,0",
        "names 2 files that are not among the images, such as 'd.png' .an image is 'a.png'.",
    ),
    "two labels": ("a.png,1\nb.png,1\nc.png,1\na.png,2", "two labels for 'a.png' .'1', '2'."),
    "too few cells": ("file,other,label\na.png,x,1\nb.png", "too few columns in the line 'b.png'"),
    "no label": ("a.png,1\nb.png,\nc.png,1", "has 1 images without a label"),
    "a number too large": ("a.png,1\nb.png,3\nc.png,1", "has the label 3, and the model has 3 outputs"),
    "too few classes": ("a.png,x\nb.png,x\nc.png,y", "has 2 classes .'x', 'y'., and the model has 3 outputs: give"),
    "no text": ("\0\0\0", "--labels: "),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_user_errors_are_one_line(mistake: str, tmp_path: Path) -> None:
    table, message = MISTAKES[mistake]
    with pytest.raises(DataError, match=message) as caught:
        labelled(tmp_path, table)
    assert str(caught.value).isprintable()


def test_a_table_that_is_missing_or_no_text(tmp_path: Path) -> None:
    write_folder(tmp_path / "set", FILES)
    with pytest.raises(DataError, match=r"nowhere.csv cannot be read .there is no such file."):
        open_images(tmp_path / "set", Labelling(labels=tmp_path / "nowhere.csv"))
    (tmp_path / "odd.csv").write_bytes(b"\xff\xfe\0")
    with pytest.raises(DataError, match=r"cannot be read"):
        open_images(tmp_path / "set", Labelling(labels=tmp_path / "odd.csv"))


def test_an_ambiguous_name_is_no_name(tmp_path: Path) -> None:
    write_folder(tmp_path / "set", ["x/a.png", "y/a.png"])
    (tmp_path / "l.csv").write_text("a.png,1\ny/a.png,0")
    with pytest.raises(DataError, match=r"names 1 files that are not among the images, such as 'a.png'"):
        open_images(tmp_path / "set", Labelling(outputs=(2,), labels=tmp_path / "l.csv"))


def test_answers_are_those_of_an_independent_loop(tmp_path: Path) -> None:
    files = write_pictures(tmp_path / "data", [f"{number:02d}.webp" for number in range(24)])
    labels = {name: (7 * number) % 3 for number, name in enumerate(files)}
    lines = [f"{Path(name).stem},{ANIMALS[label]}" for name, label in labels.items()]
    (tmp_path / "labels.csv").write_text("\n".join(["id,label", *lines[::-1]]))
    found = answers(tmp_path, data=str(tmp_path / "data"), labels=tmp_path / "labels.csv")
    assert found == right_answers(files, labels, 3)
    assert 0 < sum(found.values()) < 24


def test_numbers_are_names_where_a_model_has_such_names(tmp_path: Path) -> None:
    """torchvision sorts numbered folders as texts, and training scripts save that order."""
    order = tuple(sorted(map(str, range(12))))
    (tmp_path / "l.csv").write_text("a,10\nb,2")
    write_folder(tmp_path / "set", ["a.png", "b.png"])
    labelling = Labelling(outputs=(12,), labels=tmp_path / "l.csv")
    assert open_images(tmp_path / "set", labelling).labels == (10, 2)
    images = open_images(tmp_path / "set", replace(labelling, model_names=order))
    assert images.labels == (order.index("10"), order.index("2")) == (2, 4)


# Splits


def of_split(split: str) -> Labelling:
    return Labelling(outputs=(2,), split=split)


@pytest.mark.parametrize("kind", ["folder", "tar"])
@pytest.mark.parametrize(("split", "folder"), [("val", "val"), ("Validation", "val"), ("train", "train"), ("x", "x")])
def test_the_named_split_is_read(kind: str, split: str, folder: str, tmp_path: Path) -> None:
    names = [f"set/{part}/{animal}/{part}.png" for part in ("train", "val", "x") for animal in ANIMALS[:2]]
    source = write_folder(tmp_path / "s", names) if kind == "folder" else write_tar(tmp_path / "a.tar", names)
    images = open_images(source, of_split(split))
    assert images.names == (f"set/{folder}/birds/{folder}.png", f"set/{folder}/cats/{folder}.png")
    assert images.labels == (0, 1)
    assert colours(images) == [colour_of(names.index(name)) for name in images.names]


def test_a_split_must_be_named_and_be_there(tmp_path: Path) -> None:
    write_folder(tmp_path, [f"{part}/{animal}/1.png" for part in ("train", "val") for animal in ANIMALS[:2]])
    with pytest.raises(DataError, match=r"both 'train' and 'val': pass .* or name it with --split"):
        open_images(tmp_path, Labelling(outputs=(2,)))
    with pytest.raises(DataError, match=r"has no split 'test': there are 'train', 'val'"):
        open_images(tmp_path, of_split("test"))
    with pytest.raises(DataError, match=r"no folder or file has the name of a split"):
        open_images(tmp_path / "train", of_split("val"))


def test_the_named_split_of_parquet_files_is_read(tmp_path: Path) -> None:
    for place, split in enumerate(("train", "validation", "test")):
        write_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet", [place], ["a", "b", "c"])
    for split, label in {"train": 0, "val": 1, "test": 2, "test-00000-of-00001": 2}.items():
        assert open_images(tmp_path, Labelling(outputs=(3,), split=split)).labels == (label,)
    assert open_images(tmp_path, THREE).labels == (1,)
    with pytest.raises(DataError, match=r"has no split 'dev': there are "):
        open_images(tmp_path, of_split("dev"))


@pytest.mark.parametrize("split", ["val", "validation"])
def test_images_and_classes_with_the_words_of_splits_are_not_lost(split: str, tmp_path: Path) -> None:
    names = ["val/cat/train_1.png", "val/test_tube/1.png", "train/cat/val.png", "train/test_tube/2.png"]
    images = open_images(write_folder(tmp_path, names), of_split(split))
    assert images.names == ("val/cat/train_1.png", "val/test_tube/1.png")
    assert images.labels == (0, 1)


def test_a_table_may_be_of_all_splits(tmp_path: Path) -> None:
    write_folder(tmp_path / "set", ["train/a.png", "val/b.png"])
    (tmp_path / "l.csv").write_text("a,1\nb,0")
    images = open_images(tmp_path / "set", Labelling(outputs=(2,), split="val", labels=tmp_path / "l.csv"))
    assert (images.names, images.labels) == (("val/b.png",), (0,))


# Columns


def write_table(file: Path, columns: dict[str, list[object]], features: dict[str, object] | None = None) -> Path:
    metadata = {"huggingface": json.dumps({"info": {"features": features}})} if features else None
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), file)
    return file


def pictures(count: int) -> list[object]:
    return [{"bytes": png(colour_of(place)), "path": None} for place in range(count)]


def test_the_only_columns_that_fit_are_found(tmp_path: Path) -> None:
    file = write_table(tmp_path / "a.parquet", {"img": pictures(3), "text": ["x", "y", "z"], "digit": [2, 0, 1]})
    images = open_images(file, THREE)
    assert (images.labels, colours(images)) == ((2, 0, 1), [colour_of(place) for place in range(3)])


def test_columns_are_named(tmp_path: Path) -> None:
    table = {"img": pictures(3), "other": pictures(3), "fine_label": [2, 0, 1], "coarse_label": [0, 0, 1]}
    file = write_table(tmp_path / "a.parquet", table)
    with pytest.raises(
        DataError, match=r"several columns that may be the images .img, other.: choose one with --image-"
    ):
        open_images(file, THREE)
    with pytest.raises(
        DataError, match=r"several columns that may be the labels .fine_label, coarse_label.: choose one"
    ):
        open_images(file, Labelling(outputs=(3,), image_column="img"))
    fine = Labelling(outputs=(3,), image_column="img", label_column="fine_label")
    assert open_images(file, fine).labels == (2, 0, 1)
    with pytest.raises(DataError, match=r"has no column 'fine', it has img, other, .*: correct --label-column"):
        open_images(file, Labelling(image_column="img", label_column="fine"))
    with pytest.raises(DataError, match=r"has a 'fine_label' of type int64: expected"):
        open_images(file, Labelling(image_column="fine_label", label_column="fine_label"))


def test_a_column_of_texts_has_names(tmp_path: Path) -> None:
    file = write_table(tmp_path / "a.parquet", {"image": pictures(3), "label": ["dogs", "birds", "cats"]})
    images = open_images(file, THREE)
    assert (images.labels, images.class_names) == ((2, 0, 1), ANIMALS)
    assert open_images(file, Labelling(outputs=(3,), classes=("cats", "dogs", "birds"))).labels == (1, 2, 0)


def test_names_that_a_table_gives_to_its_numbers(tmp_path: Path) -> None:
    names = ["dogs", "cats", "birds"]
    features = {"kind": {"_type": "ClassLabel", "names": names}}
    file = write_table(tmp_path / "a.parquet", {"image": pictures(3), "kind": [2, 0, 1]}, features)
    plain = open_images(file, THREE)
    assert (plain.labels, plain.class_names) == ((2, 0, 1), tuple(names))
    for how in ("classes", "model_names"):
        assert open_images(file, Labelling(**{"outputs": (3,), how: ANIMALS})).labels == (0, 2, 1)
    with pytest.raises(DataError, match=r"has 3 classes .'dogs', 'cats', 'birds'., and the model has 10 outputs: give"):
        open_images(file, Labelling(outputs=(10,)))
    with pytest.raises(DataError, match=r"'birds' of .* not among the classes .'dogs', 'cats'."):
        open_images(file, Labelling(outputs=(2,), classes=("dogs", "cats")))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 3], "has the label 3, and the model has 3 outputs: number the classes from 0"),
        ([0, None], "rows without a label"),
        ([0, -1], "rows without a label"),
    ],
)
def test_numbers_that_are_no_classes(labels: list[int | None], message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        open_images(write_parquet(tmp_path / "a.parquet", labels), THREE)


def test_tables_must_be_of_one_set(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", [0], ["a", "b", "c"])
    write_parquet(tmp_path / "b.parquet", [0], ["c", "b", "a"])
    with pytest.raises(DataError, match=r"b\.parquet has other columns or class names than a\.parquet"):
        open_images(tmp_path, THREE)


def parquet_with_own_columns(folder: Path, labels: list[int]) -> dict[str, object]:
    rows = {"img": [{"bytes": file.read_bytes(), "path": None} for file in sorted((folder / "made").iterdir())]}
    write_table(folder / "a.parquet", {**rows, "fine": labels, "coarse": labels})
    return {"data": str(folder / "a.parquet"), "label_column": "fine"}


def hub(folder: Path, labels: list[int]) -> dict[str, object]:
    pytest.importorskip("datasets", reason="tokbench[hf] is not installed")
    rows = {"img": [{"bytes": file.read_bytes(), "path": None} for file in sorted((folder / "made").iterdir())]}
    (folder / "hub").mkdir()
    features = {"img": {"_type": "Image"}, "fine": {"_type": "Value", "dtype": "int64"}}
    features |= {"coarse": {"_type": "Value", "dtype": "int64"}}
    write_table(folder / "hub" / "test.parquet", {**rows, "fine": labels, "coarse": labels}, features)
    return {"data": f"hfds/{folder / 'hub'}", "label_column": "fine", "split": "test"}


@pytest.mark.parametrize("write", [parquet_with_own_columns, hub])
def test_answers_to_tables_are_those_of_an_independent_loop(
    write: Callable[[Path, list[int]], dict[str, object]], tmp_path: Path
) -> None:
    (tmp_path / "made").mkdir()
    for number in range(24):
        picture(number).save(tmp_path / "made" / f"{number:02d}.png")
    labels = [(5 * number) % 3 for number in range(24)]
    files = {str(number): tmp_path / "made" / f"{number:02d}.png" for number in range(24)}
    expected = right_answers(files, {name: labels[int(name)] for name in files}, 3)
    found = answers(tmp_path, **write(tmp_path, labels))
    assert {str(int(re.sub(".*#", "", name))): right for name, right in found.items()} == expected
