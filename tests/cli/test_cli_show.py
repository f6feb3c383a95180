"""`tokbench show`, with the embedded model on pictures made on the spot."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tokbench.embedded.images import image_set

Run = Callable[..., tuple[int, str, str]]

METHODS = "token_pooling,tome,evit,grid_pooling,random_selection"
DIGITS = ("--models", "digits_deit")

FAILS = """
from tokbench import Downsampler, register


@register("fails_late")
class FailsLate(Downsampler):
    def forward(self, tokens, keep, context):
        raise RuntimeError("no <such>\\n luck")


@register("fails_early")
class FailsEarly(Downsampler):
    def setup(self, geometry):
        raise RuntimeError("no such luck")

    def forward(self, tokens, keep, context):
        return tokens
"""


@pytest.fixture
def digit(tmp_path: Path) -> Path:
    """A canvas of the embedded suite as a file."""
    path = tmp_path / "digit.png"
    image_set().reader.read(0).save(path)
    return path


def shown(run: Run, *arguments: str) -> list[dict[str, Any]]:
    code, out, err = run("show", *arguments, *DIGITS, "--json")
    assert (code, err) == (0, "")
    told: list[dict[str, Any]] = json.loads(out)
    return told


def test_a_picture_is_written_whole_and_beside_nothing(run: Run, digit: Path, tmp_path: Path) -> None:
    Image.effect_noise((300, 200), 80).convert("RGB").save(tmp_path / "photo.jpg")
    settings = ("--methods", METHODS, "--schedule", "every_block(r=5)", "--out", "x.png")
    code, out, err = run("show", "digit.png", "photo.jpg", *DIGITS, *settings)
    assert (code, out, err) == (0, "x.png\n", "")
    with Image.open("x.png") as picture:
        picture.load()
        assert picture.format == "PNG"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digit.png", "photo.jpg", "x.png"]


def test_the_counts_are_the_tables(run: Run, digit: Path) -> None:
    settings = ("--keep", "0.4", "--at", "2,9", "--site", "after_attention")
    code, out, _ = run("compare", *DIGITS, "--methods", METHODS, "--only", "macs", "--seeds", "0", *settings, "--json")
    assert code == 0
    table = json.loads(out)
    told = shown(run, "digit.png", "--methods", METHODS, *settings)
    assert [one["tokens_per_block"] for one in told] == [row["tokens_per_block"] for row in table]
    for one, row in zip(told, table, strict=True):
        assert one["method"].startswith("plain model" if row["method"] == "none" else row["method"])
    assert len({one["tokens_per_block"] for one in told}) == 5  # random selection leaves as many as token pooling


def test_the_plain_model_reads_the_digit(run: Run, digit: Path) -> None:
    plain, _ = shown(run, "digit.png", "--methods", "evit")
    assert plain["classes"][0]["index"] == image_set().labels[0]
    assert [one["name"] for one in plain["classes"]] == [str(one["index"]) for one in plain["classes"]]
    assert sum(one["probability"] for one in plain["classes"]) <= 1 + 1e-6


def test_each_image_is_shown_in_the_order_given(run: Run, digit: Path, tmp_path: Path) -> None:
    image_set().reader.read(1).save(tmp_path / "other.png")
    told = shown(run, "other.png", "digit.png", "other.png", "--methods", "random_selection")
    assert [one["image"] for one in told] == ["other.png"] * 2 + ["digit.png"] * 2 + ["other.png"] * 2
    assert told[:2] == told[4:]
    assert told[2:4] == shown(run, "digit.png", "--methods", "random_selection")
    assert told != shown(run, "other.png", "digit.png", "other.png", "--methods", "random_selection", "--seed", "1")


def test_a_photograph_lying_on_its_side_is_put_upright(run: Run, digit: Path, tmp_path: Path) -> None:
    with Image.open(digit) as upright:
        exif = upright.getexif()
        exif[0x0112] = 6  # to be turned clockwise by 90 degrees
        upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "lying.png", exif=exif)
    upright_told, lying_told = (shown(run, name, "--methods", "evit") for name in ("digit.png", "lying.png"))
    assert [one["classes"] for one in lying_told] == [one["classes"] for one in upright_told]


def test_parameters_tell_variants_apart(run: Run, digit: Path) -> None:
    methods = "token_pooling(algorithm=kmeans),token_pooling(algorithm=kmedoids),evit"
    told = shown(run, "digit.png", "--methods", methods, "--keep", "0.5")
    assert [one["method"] for one in told] == [
        "plain model",
        "token_pooling algorithm=kmeans keep 0.5",
        "token_pooling algorithm=kmedoids keep 0.5",
        "evit keep 0.5",
    ]


def test_an_untrained_method_is_drawn_and_says_so(run: Run, digit: Path) -> None:
    _, sinkhorn = told = shown(run, "digit.png", "--methods", "sinkhorn", "--keep", "0.5")
    assert sinkhorn["method"] == "sinkhorn keep 0.5 weights not trained"
    assert sinkhorn["tokens_per_block"] == "64 64 64 32 32 32 16 16 16 8 8 8"
    assert shown(run, "digit.png", "--methods", "sinkhorn", "--keep", "0.5") == told


def test_what_cannot_be_solved_for_is_left_out_with_the_reason(run: Run, digit: Path) -> None:
    settings = ("--methods", "sinkhorn", "--schedule", "budget(0.7)", "--json")
    code, out, err = run("show", "digit.png", *DIGITS, *settings)
    assert code == 0
    assert "sinkhorn in digits_deit is left out: needs fine-tuned weights" in err
    assert [one["method"] for one in json.loads(out)] == ["plain model"]


@pytest.mark.parametrize("method", ["fails_late", "fails_early"])
def test_a_method_that_fails_costs_its_own_panels_only(run: Run, digit: Path, tmp_path: Path, method: str) -> None:
    (tmp_path / "own.py").write_text(FAILS)
    settings = ("--plugins", "own.py", "--methods", f"evit,{method},tome", "--json")
    code, out, err = run("show", "digit.png", *DIGITS, *settings)
    assert code == 1
    assert [one["method"].split()[0] for one in json.loads(out)] == ["plain", "evit", "tome"]
    assert err.count("\n") == 1
    assert method in err
    assert "RuntimeError: no" in err
    assert (tmp_path / "tokens.png").is_file()


def test_a_broken_plugin_is_told_of(run: Run, digit: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("1 / 0")
    code, _, err = run("show", "digit.png", *DIGITS, "--methods", "evit", "--plugins", "own.py")
    assert code == 0
    assert "broken plugin own.py: ZeroDivisionError" in err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "Missing argument"),
        (["missing.png"], "there is no image missing.png: name photographs"),
        (["folder"], "there is no image folder"),
        (["notes.txt"], "notes.txt is no image: give a photograph"),
        (["cut.png"], "cut.png cannot be read"),
        (["digit.png", "notes.txt"], "notes.txt is no image"),
        (["digit.png", "--out", "nowhere/x.png"], "there is no folder nowhere"),
        (["digit.png", "--out", "x.jpg"], "ends in .png"),
        (["digit.png", "--out", "taken.png"], "cannot write taken.png"),
        (["digit.png", "--methods", "evitt"], "did you mean 'evit'?"),
        (["digit.png", "--models", "digits_diet"], "unknown model 'digits_diet'"),
        (["digit.png", "--keep", "1.5"], "keep"),
        (["digit.png", "--keep", "0.5", "--schedule", "every_block(r=5)"], "leave --keep out"),
        (["digit.png", "--at", "3", "--schedule", "every_block"], "give one of the two"),
        (["digit.png", "--at", "12"], "depth 12 is outside the model"),
        (["digit.png", "--site", "inside"], "site"),
        (["digit.png", "--weights", "x.pth"], "drop --weights"),
        (["digit.png", "--plugins", "x.py"], "no plugin at x.py"),
        (["digit.png", "--config", "x.toml"], "no config file at x.toml"),
    ],
)
def test_the_users_mistakes_are_told_in_one_line(
    run: Run, digit: Path, tmp_path: Path, arguments: list[str], told: str
) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "cut.png").write_bytes(digit.read_bytes()[:200])
    (tmp_path / "folder").mkdir()
    (tmp_path / "taken.png").mkdir()
    before = sorted(tmp_path.rglob("*"))
    models = () if "--models" in arguments else DIGITS
    methods = () if "--methods" in arguments else ("--methods", "evit")
    code, out, err = run("show", *arguments, *models, *methods)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert told in err
    assert sorted(tmp_path.rglob("*")) == before
