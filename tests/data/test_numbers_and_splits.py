"""Folders numbered from 0 or from 1, and splits, which are never pooled."""

from pathlib import Path

import pytest
from made_images import TABBY, TENCH, write_folder, write_parquet, write_tar

from tokbench.data.sets import DataError, open_images


def numbered(*folders: str, file: str = "a.jpg") -> list[str]:
    return [f"{folder}/{file}" for folder in folders]


NUMBERS: dict[str, tuple[list[str], list[int]]] = {
    "from 1": (["1", "2", "1000"], [0, 1, 999]),
    "from 1, padded": (["0001", "0002", "1000"], [0, 1, 999]),
    "the last of 1..1000": (["1000"], [999]),
    "from 0": (["0", "1", "999"], [0, 1, 999]),
    "from 0, padded": (["000", "001", "999"], [0, 1, 999]),
    "from 0, padded to four": (["0000", "0001", "0999"], [0, 1, 999]),
    "a part": (["1", "2", "999"], [1, 2, 999]),
    "nested": (["set/1", "set/1000"], [0, 999]),
    "all from 1": ([str(number) for number in range(1, 1001)], list(range(1000))),
}


@pytest.mark.parametrize("case", NUMBERS)
@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_numbers_are_classes(case: str, kind: str, tmp_path: Path) -> None:
    folders, expected = NUMBERS[case]
    names = numbered(*folders)
    images = open_images(
        write_folder(tmp_path / "set", names) if kind == "folder" else write_tar(tmp_path / "a.tar", names)
    )
    assert dict(zip(images.names, images.labels, strict=True)) == dict(zip(names, expected, strict=True))


@pytest.mark.parametrize("folders", [("0", "1000"), ("0000", "0003", "1000")])
def test_0_and_1000_together_are_refused(folders: tuple[str, ...], tmp_path: Path) -> None:
    write_folder(tmp_path, numbered(*folders))
    with pytest.raises(DataError, match=r"both '0' and '1000': number the classes 0\.\.999 or 1\.\.1000"):
        open_images(tmp_path)


@pytest.mark.parametrize("folder", ["1001", "20240131", "-1", "1.5", "\u0661", "1" * 200])  # U+0661 is an Arabic one
def test_other_numbers_are_no_classes(folder: str, tmp_path: Path) -> None:
    write_folder(tmp_path, numbered("1", folder))
    with pytest.raises(DataError, match="cannot read a class from"):
        open_images(tmp_path)


def test_official_names_in_numbered_folders_are_looked_up_where_the_list_is(tmp_path: Path) -> None:
    names = ["7/ILSVRC2012_val_00000001.JPEG", "9/ILSVRC2012_val_00000002.JPEG"]
    root = write_folder(tmp_path / "set", names)
    assert open_images(root).labels == (7, 9)  # which says nothing of where the numbers start
    lines = ["ImageId,PredictionString", f"ILSVRC2012_val_00000001,{TABBY} 1 2 3 4", f"ILSVRC2012_val_00000002,{TENCH}"]
    (tmp_path / "LOC_val_solution.csv").write_text("\n".join(lines))
    images = open_images(root)
    assert (images.name, images.labels) == ("official", (281, 0))


TWO_SPLITS = [
    ("train", "val"),
    ("Train", "Val"),
    ("TRAIN", "VAL"),
    ("train.X1", "val.X"),
    ("train_images", "val_images"),
    ("TrainImages", "ValImages"),
    ("ILSVRC2012_img_train", "ILSVRC2012_img_val"),
    ("training", "validation"),
    ("imagenet-train", "imagenet-valid"),
    ("train2012", "val2012"),
    ("train", "test"),
    ("val", "testing"),
    ("validation", "dev"),
    ("set/training/images", "set/validation/images"),
    ("val/train", "val/val"),
    (f"{TENCH}/train", f"{TENCH}/val"),
]


@pytest.mark.parametrize(("one", "other"), TWO_SPLITS)
@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_two_splits_are_refused(one: str, other: str, kind: str, tmp_path: Path) -> None:
    names = [f"{folder}/{TENCH}/{folder.replace('/', '_')}.jpg" for folder in (one, other)]
    source = write_folder(tmp_path / "set", names) if kind == "folder" else write_tar(tmp_path / "a.tar", names)
    with pytest.raises(DataError, match=r"the images are from both '.*' and '.*': pass the folder of one split"):
        open_images(source)


@pytest.mark.parametrize(
    "folders",
    [
        [f"train.X{number}" for number in range(1, 5)],
        ["val", "validation"],
        ["trainval", "train_and_val"],
        ["latest", "devkit", "contest", "intervals", "evaluated_by_us"],
        ["Val"],
    ],
)
def test_one_split_in_parts_and_other_words_are_fine(folders: list[str], tmp_path: Path) -> None:
    write_folder(tmp_path, [f"{folder}/{TENCH}/a.jpg" for folder in folders])
    assert len(open_images(tmp_path)) == len(folders)


def test_the_folder_that_is_passed_is_no_split(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", [f"val/{TENCH}/a.jpg", f"val/{TABBY}/a.jpg"])
    assert len(open_images(tmp_path / "train")) == 2


TABLES: dict[str, tuple[dict[str, int], set[int] | None]] = {
    "HuggingFace's names": (
        {
            "train-00000-of-00002": 1,
            "train-00001-of-00002": 2,
            "test-00000-of-00001": 3,
            "validation-00000-of-00001": 4,
        },
        {4},
    ),
    "folders": ({"train/0000": 1, "validation/0000": 2, "validation/0001": 3}, {2, 3}),
    "short": ({"train": 1, "val": 2}, {2}),
    "upper case": ({"TRAIN": 1, "VAL": 2}, {2}),
    "prefixed": ({"imagenet-1k-validation-00000-of-00001": 1, "imagenet-1k-train-00000-of-00001": 2}, {1}),
    "one split": ({"train-00000-of-00002": 1, "train-00001-of-00002": 2}, {1, 2}),
    "no split": ({"a": 1, "b": 2}, {1, 2}),
    "no split and validation": ({"a": 1, "validation": 2}, {2}),
    "train and test": ({"train-00000-of-00001": 1, "test-00000-of-00001": 2}, None),
    "two validation splits": ({"validation": 1, "dev": 2, "train": 3}, None),
    "no split and train": ({"a": 1, "train": 2}, None),
}


@pytest.mark.parametrize("case", TABLES)
def test_the_validation_split_of_parquet_files_is_read(case: str, tmp_path: Path) -> None:
    tables, expected = TABLES[case]
    for name, label in tables.items():
        write_parquet(tmp_path / "data" / f"{name}.parquet", [label])
    if expected is None:
        with pytest.raises(DataError, match=r"the parquet files are of several splits .*: pass the file of one split"):
            open_images(tmp_path)
    else:
        assert set(open_images(tmp_path).labels) == expected


def test_a_parquet_file_of_any_split_can_be_passed(tmp_path: Path) -> None:
    assert open_images(write_parquet(tmp_path / "test-00000-of-00001.PARQUET", [5])).labels == (5,)
