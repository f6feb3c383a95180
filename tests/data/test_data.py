"""Opening image sets in every supported layout, with tiny generated images."""

import gzip
import pickle
import shutil
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_images import (
    GOLDFISH,
    TABBY,
    TENCH,
    TISSUE,
    colour_of,
    colours,
    in_memory,
    write_folder,
    write_parquet,
    write_tar,
)

from tokbench.data.labels import Kind, recognise
from tokbench.data.sets import DataError, ImageSet, open_images


def write_solution(folder: Path, answers: dict[int, str]) -> None:
    lines = [
        f"ILSVRC2012_val_{number:08d},{synset} 1 2 30 40 {synset} 5 6 70 80 " for number, synset in answers.items()
    ]
    (folder / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *lines]))


def timm_list(file: str) -> list[str]:
    return resources.files("timm.data").joinpath("_info", file).read_text().split()


def by_name(images: ImageSet) -> dict[str, int]:
    return dict(zip(images.names, images.labels, strict=True))


LAYOUTS = {
    "by synset id": {f"{TISSUE}/a.JPEG": 999, f"{TENCH}/b.jpg": 0, f"{TABBY}/c.PNG": 281},
    "id in the name": {f"{TISSUE}_1.JPEG": 999, f"{TENCH}_2.JPEG": 0, f"ILSVRC2012_val_00000293_{TABBY}.JPEG": 281},
    "both": {f"{TISSUE}/{TENCH}_1.JPEG": 999, f"{GOLDFISH}_2.JPEG": 1},
    "nested": {f"set/val/{TABBY}/images/a.JPEG": 281, f"set/val/{TENCH}/b.jpeg": 0},
    "by number": {"v2/10/a.jpeg": 10, "v2/2/b.jpeg": 2, "v2/0/c.jpeg": 0, "v2/999/d.jpeg": 999},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_every_layout_gives_its_classes(layout: str, kind: str, tmp_path: Path) -> None:
    expected = LAYOUTS[layout]
    written = list(expected)
    source = write_folder(tmp_path / "set", written) if kind == "folder" else write_tar(tmp_path / "set.tar", written)
    images = open_images(source)
    assert by_name(images) == expected
    assert list(images.names) == sorted(expected)
    assert images.classes is None
    assert images.name == ("numbers" if layout == "by number" else "synsets")
    assert colours(images) == [colour_of(written.index(name)) for name in images.names]


def test_hidden_files_and_other_files_are_ignored(tmp_path: Path) -> None:
    write_folder(tmp_path, [f"{TENCH}/a.jpg", f"{TENCH}/._a.jpg", ".cache/odd/a.jpg", f"{TENCH}/notes.txt", "README"])
    assert open_images(str(tmp_path)).names == (f"{TENCH}/a.jpg",)


def test_tar_with_a_leading_dot_and_a_member_replaced(tmp_path: Path) -> None:
    images = open_images(write_tar(tmp_path / "a.tar", [f"./{TENCH}/a.png", f"./{TABBY}/b.png", f"./{TENCH}/a.png"]))
    assert images.names == (f"{TENCH}/a.png", f"{TABBY}/b.png")
    assert colours(images) == [colour_of(2), colour_of(1)]


OFFICIAL = [f"ILSVRC2012_val_{number:08d}.JPEG" for number in (3, 1, 2)]


@pytest.mark.parametrize("kind", ["folder", "tar"])
def test_official_validation_set_needs_the_solution_file(kind: str, tmp_path: Path) -> None:
    deep = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    deep.mkdir(parents=True)
    source = write_folder(deep / "val", OFFICIAL) if kind == "folder" else write_tar(deep / "val.tar", OFFICIAL)
    assert "put Kaggle's LOC_val_solution.csv next to them" in open_images(source).unlabelled
    assert set(open_images(source).labels) == {-1}
    write_solution(tmp_path, {1: TABBY, 2: TENCH, 3: TISSUE})
    assert open_images(source).labels == (281, 0, 999)
    write_solution(deep, {1: TABBY, 2: TENCH})
    with pytest.raises(DataError, match="has no line for 'ILSVRC2012_val_00000003'"):
        open_images(source)


@pytest.mark.parametrize(("name", "lists"), [("imagenet-a", "imagenet_a"), ("imagenet-r", "imagenet_r")])
def test_imagenet_a_and_r_are_recognised_by_their_200_classes(name: str, lists: str, tmp_path: Path) -> None:
    synsets = timm_list(f"{lists}_synsets.txt")
    write_folder(tmp_path, [f"{synset}/a.png" for synset in synsets])
    images = open_images(tmp_path)
    assert images.name == name
    assert images.classes == tuple(sorted(int(i) for i in timm_list(f"{lists}_indices.txt")))
    shutil.rmtree(tmp_path / synsets[7])
    part = open_images(tmp_path)
    assert (part.name, part.classes) == ("synsets", None)


def test_only_complete_sets_are_called_imagenet() -> None:
    everything = list(range(1000))
    assert recognise(Kind.SYNSETS, everything * 50) == ("imagenet", None)
    assert recognise("parquet", everything * 50) == ("imagenet", None)
    assert recognise(Kind.NUMBERS, everything * 10) == ("imagenet-v2", None)
    assert recognise(Kind.SYNSETS, (everything * 50)[1:]) == ("synsets", None)
    assert recognise(Kind.NUMBERS, [2, 10]) == ("numbers", None)


def test_parquet_reads_one_row_group_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [999, 10, 2, 0, 281]
    write_parquet(tmp_path / "data" / "validation-00000-of-00002.parquet", labels)
    write_parquet(tmp_path / "data" / "validation-00001-of-00002.parquet", labels[::-1])
    write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", [5] * 9)
    images = open_images(tmp_path)
    assert images.labels == (*labels, *labels[::-1])
    assert images.names[5] == "data/validation-00001-of-00002.parquet#0000000"

    loaded = []
    load = pq.ParquetFile.read_row_group

    def counting(file: pq.ParquetFile, group: int, **options: object) -> pa.Table:
        loaded.append(group)
        return load(file, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counting)
    assert colours(images) == [colour_of(i) for i in (0, 1, 2, 3, 4, 0, 1, 2, 3, 4)]
    assert loaded == [0, 1, 2, 0, 1, 2]
    assert images.reader.read(1).getpixel((0, 0)) == colour_of(1)


def test_parquet_classes_named_by_synset_are_looked_up(tmp_path: Path) -> None:
    file = write_parquet(tmp_path / "a.parquet", [0, 1, 1], [TISSUE, TABBY])
    assert open_images(file).labels == (999, 281, 281)


def test_huggingface_through_timm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="tokbench[hf] is not installed")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    write_parquet(tmp_path / "set" / "validation.parquet", [999, 2, 10])
    write_parquet(tmp_path / "set" / "test.parquet", [7])
    images = open_images(f"hfds/{tmp_path / 'set'}")
    assert images.labels == (999, 2, 10)
    assert colours(pickle.loads(pickle.dumps(images))) == [colour_of(i) for i in range(3)]
    assert open_images(f"hfds/{tmp_path / 'set'}:test").labels == (7,)
    with pytest.raises(DataError, match="check its name and split"):
        open_images(f"hfds/{tmp_path / 'set'}:nowhere")


def test_huggingface_needs_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'tokbench\[hf\]'"):
        open_images("hfds/imagenet-1k")


def compressed(root: Path) -> Path:
    (root / "a.tar.gz").write_bytes(gzip.compress(write_tar(root / "a.tar", [f"{TENCH}/a.png"]).read_bytes()))
    return root / "a.tar.gz"


def truncated(root: Path, size: int) -> Path:
    archive = write_tar(root / "a.tar", [f"{TENCH}/{i}.png" for i in range(3)])
    archive.write_bytes(archive.read_bytes()[:size])
    return archive


def text_file(root: Path) -> Path:
    (root / "a.txt").write_text("not an archive" * 100)
    return root / "a.txt"


def not_parquet(root: Path) -> Path:
    (root / "a.parquet").write_text("not a table")
    return root / "a.parquet"


def other_columns(root: Path) -> Path:
    pq.write_table(pa.table({"picture": [1], "label": [1]}), root / "a.parquet")
    return root


def link_to_parent(root: Path) -> Path:
    (root / TENCH).mkdir()
    (root / TENCH / "loop").symlink_to(root)
    return root


MISTAKES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "missing": (lambda root: root / "nowhere", "nowhere does not exist: expected"),
    "text file": (text_file, "cannot be read as a tar archive"),
    "compressed": (compressed, r"decompress it if it ends in \.gz"),
    "truncated in a header": (lambda root: truncated(root, 2100), "download it again if it is truncated"),
    "truncated in an image": (lambda root: truncated(root, 1600), "download it again if it is truncated"),
    "empty": (lambda root: root, r"has no images \(\.jpg, \.png, \.webp or others that Pillow reads\): pass"),
    "empty tar": (lambda root: write_tar(root / "a.tar", ["readme.txt"]), "has no images"),
    "folders that are not classes": (
        lambda root: write_folder(
            root, ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "e/1.jpg", "f/1.jpg", f"{TENCH}/1.jpg"]
        ),
        "cannot read a class from 'cat', 'dog', 'e' and 1 more: name each folder",
    ),
    "number too large": (lambda root: write_folder(root, ["1001/a.jpg", "1/a.jpg"]), "class from '1001': name"),
    "unknown synset": (lambda root: write_folder(root, ["n99999999/a.jpg"]), "1,000 classes.*'n99999999'"),
    "two kinds of labels": (lambda root: write_folder(root, [f"{TENCH}/a.jpg", "0/a.jpg"]), "in different ways"),
    "two splits": (
        lambda root: write_folder(root, [f"train/{TENCH}/a.jpg", f"val/{TENCH}/a.jpg"]),
        "both 'train' and 'val'",
    ),
    "not parquet": (not_parquet, "cannot be read as parquet"),
    "other columns": (other_columns, "has the columns picture, label: expected"),
    "no labels": (lambda root: write_parquet(root / "test.parquet", [-1, -1]), r"label is not in 0\.\.999"),
    "null labels": (lambda root: write_parquet(root / "a.parquet", [1, None]), r"label is not in 0\.\.999"),
    "other classes": (lambda root: write_parquet(root / "a.parquet", [0], ["cat", "dog"]), "has 2 classes"),
    "images and parquet": (
        lambda root: write_folder(write_parquet(root / "a.parquet", [0]).parent, [f"{TENCH}/a.jpg"]),
        "has both images and parquet",
    ),
    "link to a parent": (link_to_parent, "already part of the set: remove the link"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_user_errors_are_one_line(mistake: str, tmp_path: Path) -> None:
    make, message = MISTAKES[mistake]
    with pytest.raises(DataError, match=message) as caught:
        open_images(make(tmp_path))
    assert "\n" not in str(caught.value)


def test_names_that_are_not_utf8_are_supported(tmp_path: Path) -> None:
    write_folder(tmp_path, [f"{TENCH}/\udcff.png"])
    images = open_images(tmp_path)
    assert len(images.identity) == 64
    assert colours(images) == [colour_of(0)]


@settings(deadline=None)  # must not fail on a busy machine
@given(count=st.integers(1, 256), limit=st.integers(1, 300))
def test_head_is_evenly_spaced(count: int, limit: int) -> None:
    images = in_memory(count)
    head = images.head(limit)
    assert len(head) == min(count, limit)
    gaps = {after - before for before, after in zip(head.labels, (*head.labels[1:], count), strict=True)}
    assert min(gaps) >= 1
    assert max(gaps) - min(gaps) <= 1
    assert head.labels[0] == 0
    assert (head.identity == images.identity) == (limit >= count)
    last = len(head) - 1
    assert head.names[last] == str(head.labels[last])
    assert head.reader.read(last).getpixel((0, 0)) == colour_of(head.labels[last])


def test_head_of_zero_images_is_an_error() -> None:
    with pytest.raises(DataError, match="invalid limit 0: expected 1 or more images"):
        in_memory(3).head(0)
