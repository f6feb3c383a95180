"""What a comparison tells besides its table, and what it refuses to measure."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from tokbench.results import Results
from tokbench.results.store import UNREADABLE_IMAGE, Store

Run = Callable[..., tuple[int, str, str]]

MODEL = "test_vit"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Forty photographs of noise in two classes, and random weights with heads of several sizes."""
    generator = torch.Generator().manual_seed(0)
    for number in range(40):
        folder = tmp_path / "val" / ("n01440764", "n01443537")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (40, 40, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{number:03d}.png")
    return tmp_path / "val"


def weights(folder: Path, model: str = MODEL) -> str:
    torch.manual_seed(0)
    save_file(timm.create_model(model, pretrained=False).state_dict(), folder / f"{model}.safetensors")
    return f"{model}.safetensors"


def command(folder: Path, model: str, *more: str) -> list[str]:
    return [
        "compare", "imagenet", "--data", "val", "--weights", weights(folder, model), "--models", model, "--at", "1",
        "--methods", "grid_pooling", "--keep", "0.5", "--workers", "0", "--json", *more,
    ]  # fmt: skip


def test_a_plain_model_that_guesses_is_warned_about_with_examples(run: Run, data: Path, tmp_path: Path) -> None:
    code, _, err = run(*command(tmp_path, MODEL, "--only", "accuracy"))
    assert code == 0
    assert err.startswith(f"tokbench: WARNING: {MODEL} is right on 0 of 40 images, no better than guessing among 1000")
    assert [line.count(" is labelled ") for line in err.splitlines()] == [0, 1, 1, 1]
    few = command(tmp_path, MODEL, "--only", "accuracy", "--limit", "19", "--out", "few")
    assert run(*few)[2] == ""  # 19 images say nothing


def test_a_model_that_knows_the_labels_is_not_warned_about(run: Run) -> None:
    code, _, err = run("compare", "--methods", "none", "--only", "accuracy", "--limit", "40", "--json")
    assert (code, err) == (0, "")


def test_weights_for_images_of_another_size_are_told(run: Run, data: Path, tmp_path: Path) -> None:
    torch.save(timm.create_model(MODEL, img_size=64).state_dict(), tmp_path / "x.pth")
    more = ("--weights", "x.pth", "--only", "macs", "--baselines", "none")
    code, _, err = run(*command(tmp_path, MODEL, *more))
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith(f"tokbench: {MODEL}: position embeddings resampled from 4x4 to 10x10; ")
    assert "--img-size 64" in err
    assert run(*command(tmp_path, MODEL, *more, "--img-size", "64", "--out", "same"))[::2] == (0, "")


@pytest.mark.parametrize(
    ("model", "head"),
    [
        ("vit_tiny_patch16_224.augreg_in21k", "its head has 21843 outputs"),
        ("vit_small_patch16_224.dino", "it has no head"),
    ],
)
def test_accuracy_needs_a_head_for_the_data(run: Run, data: Path, tmp_path: Path, model: str, head: str) -> None:
    code, out, err = run(*command(tmp_path, model, "--only", "accuracy"))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert f"{head}, and there are 1000 classes" in err
    code, out, err = run(*command(tmp_path, model, "--only", "macs,accuracy"))
    table = json.loads(out)
    assert code == 0
    assert f"tokbench: {model} cannot be evaluated on these data: {head}" in err
    assert [row["status"] for row in table] == ["ok", "ok"]
    assert all(row["gmacs"] and row["top1"] is None and head in row["remarks"] for row in table)


def test_an_image_that_can_be_read_by_now_is_measured(run: Run, data: Path, tmp_path: Path) -> None:
    image = data / "n01440764" / "000.png"
    for number in range(100):  # so that one in a hundred may be unreadable
        (data / "n01440764" / f"more{number}.png").write_bytes(image.read_bytes())
    whole = command(tmp_path, MODEL, "--only", "accuracy")
    good = image.read_bytes()
    image.write_bytes(b"no picture")
    assert "unreadable image n01440764/000.png" in run(*whole)[2]
    assert set(pd.read_parquet(tmp_path / "results/imagenet/table.parquet")["images"]) == {139}
    image.write_bytes(good)
    code, _, err = run(*whole)
    assert code == 0
    assert "unreadable" not in err
    assert set(pd.read_parquet(tmp_path / "results/imagenet/table.parquet")["images"]) == {140}


def test_rows_of_an_earlier_comparison_do_not_leave_the_table_silently(run: Run) -> None:
    measured = ["--only", "macs", "--keep", "0.5", "--json"]
    assert run("compare", "--methods", "tome", *measured)[2] == ""
    code, _, err = run("compare", "--methods", "grid_pooling", *measured)
    assert code == 0
    assert "1 row of an earlier comparison (stages(at=3-6-9) at keep 0.5: tome) is no longer in it" in err
    assert "for one table of both add --methods tome,grid_pooling, for two tables" in err
    assert run("compare", "--methods", "grid_pooling,tome", *measured)[2] == ""


def test_what_an_earlier_table_held_is_named_with_the_options_for_one_table(run: Run) -> None:
    measured = ["compare", "--methods", "score_pruning", "--only", "macs", "--json"]
    assert run(*measured, "--schedule", "budget(0.8,0.6)")[2] == ""
    err = run(*measured, "--schedule", "budget(0.6),every_block", "--keep", "0.9,0.8")[2]
    assert "1 row of an earlier comparison (budget(0.8): score_pruning) is no longer in it" in err
    assert "add --schedule 'budget(0.8),budget(0.6),every_block', for two tables" in err
    err = run(*measured, "--at", "3", "--keep", "0.5")[2]
    assert "(budget(0.6), every_block at keep 0.9, every_block at keep 0.8: score_pruning) are no longer in it" in err
    assert "add --schedule 'budget(0.6),every_block,stages(at=3)' --keep 0.9,0.8,0.5, for two tables" in err
    err = run(*measured, "--at", "2", "--keep", "0.5", "--site", "after_block")[2]
    assert err.rstrip().endswith("the measurements are kept: choose another folder with --out DIR to have two tables")


def test_a_method_that_cannot_act_in_a_model_is_skipped_among_others_and_refused_alone(run: Run) -> None:
    no_class_token = ["imagenet", "--models", "test_vit2", "--at", "1,3", "--keep", "0.5", "--only", "macs"]
    no_class_token += ["--weights", "random", "--json"]
    code, out, _ = run("compare", *no_class_token, "--methods", "evit,tome")
    assert code == 0
    status = {row["method"]: (row["status"], row["reason"]) for row in json.loads(out)}
    assert status["tome"][0] == "ok"
    assert status["evit"][0] == "skipped"
    assert "class token" in status["evit"][1]
    code, out, err = run("compare", *no_class_token, "--methods", "evit")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "class token" in err


def test_fresh_moves_the_records_aside_even_where_the_directory_is_damaged(run: Run, tmp_path: Path) -> None:
    measured = ["compare", "--methods", "tome", "--only", "macs", "--keep", "0.5", "--json", "--out", "r"]
    _, first, _ = run(*measured)
    for content in ('{"schema": 1}', '{"schema": 99}', "{", ""):
        (tmp_path / "r/plan.json").write_text(content)
        records = (tmp_path / "r/records.jsonl").read_bytes()
        code, out, err = run(*measured, "--fresh")
        assert (code, out) == (0, first)
        moved = Path(err.rpartition(" ")[2].strip())
        assert moved.read_bytes() == records


def test_an_image_whose_reading_failed_for_a_while_is_tried_again(run: Run, data: Path, tmp_path: Path) -> None:
    whole = command(tmp_path, MODEL, "--only", "accuracy")
    _, first, _ = run(*whole)
    store = Store(tmp_path / "results/imagenet")
    images = Results(store.directory).plan.images
    assert images is not None
    for (kind, key), record in store.all().items():
        if kind == "accuracy":
            store.add(kind, key, {"outcomes": "?" + record["outcomes"][1:]})
    store.add(UNREADABLE_IMAGE, f"{images.identity}/n01440764/000.png", {"reason": "the disk was away"})
    _, again, err = run(*whole)
    assert again == first
    assert "unreadable" not in err
