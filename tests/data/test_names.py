"""File names that are not UTF-8."""

import os
from pathlib import Path

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st
from made_images import TENCH, write_folder, write_tar

from tokbench.data.names import in_utf8
from tokbench.data.sets import open_images
from tokbench.errors import escaped
from tokbench.results.directory import IMAGES, write_images

ODD = [f"{TENCH}/caf\udce9.png", f"{TENCH}/caf\\xe9.png", f"{TENCH}/café.png", f"{TENCH}/\\.png", f"{TENCH}/a\nb.png"]

file_names = st.binary(min_size=1, max_size=30).map(os.fsdecode)


@given(file_names)
def test_a_spelling_can_be_encoded(name: str) -> None:
    assert in_utf8(name).encode().decode() == in_utf8(name)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\\")))
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert in_utf8(name) == name


@given(file_names, file_names)
def test_names_differ_as_their_spellings_do(one: str, other: str) -> None:
    assert (in_utf8(one) == in_utf8(other)) == (one == other)


@given(st.text(st.characters()))
def test_a_message_has_one_line_and_can_be_printed(text: str) -> None:
    assert len(escaped(text).splitlines()) <= 1
    escaped(text).encode()


def test_odd_names_are_read_and_written(tmp_path: Path) -> None:
    folder = open_images(write_folder(tmp_path / "set", ODD))
    assert sorted(folder.names) == sorted(map(in_utf8, ODD))
    assert len(folder.identity) == 64
    archive = open_images(write_tar(tmp_path / "a.tar", ODD))
    assert archive.names == folder.names
    assert [folder.reader.content(place) for place in range(len(ODD))]
    write_images(tmp_path, dict(zip(folder.names, range(len(ODD)), strict=True)))
    assert pd.read_parquet(tmp_path / IMAGES)["image"].tolist() == list(folder.names)
