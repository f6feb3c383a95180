"""Webdataset's shards: samples with a class or an object beside the image."""

import io
import json
import pickle
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from made_images import TENCH, colour_of, colours, png, write_tar
from own_models import ANIMALS, picture, right_answers
from test_own_classes import THREE, answers

from tokbench.data.errors import DataError
from tokbench.data.sets import Labelling, open_images

pytestmark = pytest.mark.filterwarnings("ignore:.*is right on|.*is labelled:UserWarning")


def write_members(archive: Path, members: Mapping[str, bytes]) -> Path:
    archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive


def samples(labels: Sequence[object], suffix: str = "cls", first: int = 0) -> dict[str, bytes]:
    """Members as webdataset's writer orders them."""
    members: dict[str, bytes] = {}
    for place, label in enumerate(labels, start=first):
        text = json.dumps({"label": label, "width": 4}) if suffix == "json" else f"{label}\n"
        members |= {f"{place:06d}.{suffix}": text.encode(), f"{place:06d}.png": png(colour_of(place))}
    return members


@pytest.mark.parametrize("suffix", ["cls", "json"])
@pytest.mark.parametrize("labels", [[2, 0, 1, 2], ["dogs", "birds", "cats", "dogs"]])
def test_labels_are_beside_the_images(suffix: str, labels: list[object], tmp_path: Path) -> None:
    images = open_images(write_members(tmp_path / "a.tar", samples(labels, suffix)), THREE)
    assert images.names == ("000000.png", "000001.png", "000002.png", "000003.png")
    assert (images.labels, images.class_count, images.name) == ((2, 0, 1, 2), 3, "shards")
    assert images.ignored == {}
    assert colours(images) == [colour_of(place) for place in range(4)]


def test_a_shard_of_imagenet(tmp_path: Path) -> None:
    images = open_images(write_members(tmp_path / "a.tar", samples([0, 999, 281])))
    assert (images.labels, images.class_names, images.class_count) == ((0, 999, 281), (), 1000)


def test_the_name_of_a_sample_ends_at_the_first_dot(tmp_path: Path) -> None:
    members = {"a/x.y.png": png((1, 2, 3)), "a/x.cls": b"1", "b.c/x.JPG": png((4, 5, 6)), "b.c/x.cls": b"0"}
    assert open_images(write_members(tmp_path / "a.tar", members), THREE).labels == (1, 0)


def test_a_folder_of_shards_and_a_range(tmp_path: Path) -> None:
    for shard in range(3):
        write_members(tmp_path / f"set-{shard:06d}.tar", samples([shard, 2 - shard], first=2 * shard))
    (tmp_path / "._set-000000.tar").write_bytes(b"odd")
    folder = open_images(tmp_path, THREE)
    assert folder.labels == (0, 2, 1, 1, 2, 0)
    assert folder.names[2] == "set-000001/000002.png"
    assert colours(pickle.loads(pickle.dumps(folder))) == [colour_of(place) for place in range(6)]
    assert colours(folder.part([4, 1])) == [colour_of(4), colour_of(1)]
    few = open_images(f"{tmp_path}/set-{{000001..000002}}.tar", THREE)
    assert few.names == folder.names[2:]
    with pytest.raises(DataError, match=r"is no range of shards"):
        open_images(f"{tmp_path}/set-{{3..1}}.tar", THREE)
    with pytest.raises(DataError, match=r"set-000003\.tar cannot be read"):
        open_images(f"{tmp_path}/set-{{000002..000003}}.tar", THREE)


def test_splits_of_shards(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for shard in range(2):
            write_members(tmp_path / f"{split}-{shard:04d}.tar", samples([shard]))
    with pytest.raises(DataError, match=r"both 'train-0001' and 'val-0001': .* --split"):
        open_images(tmp_path, THREE)
    images = open_images(tmp_path, Labelling(outputs=(3,), split="val"))
    assert images.names == ("val-0000/000000.png", "val-0001/000000.png")


def test_an_archive_per_class(tmp_path: Path) -> None:
    for animal in ANIMALS:
        write_tar(tmp_path / f"{animal}.tar", ["1.png", "2.png"])
    assert open_images(tmp_path, THREE).labels == (0, 0, 1, 1, 2, 2)
    (tmp_path / "imagenet").mkdir()
    write_tar(tmp_path / "imagenet" / f"{TENCH}.tar", ["1.png"])
    write_tar(tmp_path / "imagenet" / "n01443537.tar", ["1.png"])
    assert open_images(tmp_path / "imagenet").labels == (0, 1)


def test_the_label_has_another_name(tmp_path: Path) -> None:
    members = {"a.png": png((1, 2, 3)), "a.json": b'{"kind": 2, "label": 0}'}
    archive = write_members(tmp_path / "a.tar", members)
    assert open_images(archive, Labelling(outputs=(3,), label_column="kind")).labels == (2,)
    with pytest.raises(DataError, match=r"no sample has 'odd' in its \.json: correct --label-column"):
        open_images(archive, Labelling(outputs=(3,), label_column="odd"))


def test_a_named_label_comes_before_the_class(tmp_path: Path) -> None:
    members = {"0.png": png((1, 2, 3)), "0.cls": b"1", "0.json": b'{"fine": 2}'}
    shard = write_members(tmp_path / "a.tar", members)
    assert open_images(shard, THREE).labels == (1,)
    assert open_images(shard, replace(THREE, label_column="fine")).labels == (2,)


def test_shards_of_the_same_name_have_images_of_different_names(tmp_path: Path) -> None:
    for place, folder in enumerate("ab"):
        write_members(tmp_path / folder / "0.tar", samples([place]))
    images = open_images(tmp_path, THREE)
    assert images.names == ("a/0/000000.png", "b/0/000000.png")
    assert images.labels == (0, 1)


def test_a_mask_beside_the_image_is_refused(tmp_path: Path) -> None:
    members = {"0.jpg": png((1, 2, 3)), "0.seg.png": png((4, 5, 6)), "0.cls": b"1"}
    with pytest.raises(DataError, match=r"samples of several images \('0.jpg', '0.seg.png'\): write shards with one"):
        open_images(write_members(tmp_path / "a.tar", members), THREE)


def test_objects_without_a_label_are_other_files(tmp_path: Path) -> None:
    members = {"a.png": png((1, 2, 3)), "a.json": b'{"caption": "a bird"}'}
    images = open_images(write_members(tmp_path / "a.tar", members), THREE)
    assert images.unlabelled
    assert images.ignored == {".json": 1}


MISTAKES: dict[str, tuple[dict[str, bytes], str]] = {
    "a label is missing": ({"a.png": b"", "b.png": b"", "a.cls": b"1"}, "no label for 1 of 2 images .'b.png'."),
    "an empty label": ({"a.png": b"", "a.cls": b""}, "has 1 images without a label"),
    "a number too large": ({"a.png": b"", "a.cls": b"3"}, "has the label 3, and the model has 3 outputs"),
    "no text": ({"a.png": b"", "a.cls": b"\xff\xfe"}, "the labels in .* cannot be read"),
    "no JSON": ({"a.png": b"", "a.json": b"{"}, "the labels in .* cannot be read .a.json"),
    "nested": ({"a.png": b"", "a.json": b"[" * 100_000}, "the labels in .* cannot be read"),
    "huge": ({"a.png": b"", "a.cls": b"1" * 2**21}, "too many for a label"),
    "labels and none": (
        {"a.png": b"", "a.json": b'{"label": 1}', "b.png": b"", "b.json": b"{}"},
        "no label for 1 of 2",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_user_errors_are_one_line(mistake: str, tmp_path: Path) -> None:
    members, message = MISTAKES[mistake]
    with pytest.raises(DataError, match=message) as caught:
        open_images(write_members(tmp_path / "a.tar", members), THREE)
    assert str(caught.value).isprintable()


def test_shards_with_and_without_labels(tmp_path: Path) -> None:
    write_members(tmp_path / "a-0.tar", samples([1]))
    write_members(tmp_path / "a-1.tar", {"1.png": png((1, 2, 3))})
    with pytest.raises(DataError, match=r"some shards in .* have labels and others none"):
        open_images(tmp_path, THREE)


def test_answers_are_those_of_an_independent_loop(tmp_path: Path) -> None:
    files, labels, shards = {}, {}, [{}, {}, {}]
    (tmp_path / "made").mkdir()
    for number in range(24):
        file = tmp_path / "made" / f"{number}.jpg"
        picture(number).save(file, quality=90)
        name = f"data-{number % 3:06d}/{number:04d}.jpg"
        files[name], labels[name] = file, (number // 2) % 3
        shards[number % 3] |= {f"{number:04d}.jpg": file.read_bytes(), f"{number:04d}.cls": str(labels[name]).encode()}
    for place, members in enumerate(shards):
        write_members(tmp_path / "data" / f"data-{place:06d}.tar", members)
    found = answers(tmp_path, data=str(tmp_path / "data"))
    assert found == right_answers(files, labels, 3)
    assert 0 < sum(found.values()) < 24
