"""The command that a researcher runs, on photographs."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

REAL = Path(__file__).parents[3] / "shared" / "real"
MODEL = "deit_tiny_patch16_224"
SMALL = "test_vit"  # of six narrow blocks, for timm's own tests

Run = Callable[..., tuple[int, str, str]]


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the photographs and DeiT-Ti's weights are not at {REAL}")
def test_the_plain_model_gets_what_timm_gets(run: Run, tmp_path: Path) -> None:
    code, out, _ = run(
        "compare", "imagenet", "--data", str(REAL / "val"), "--models", MODEL, "--device", "cpu",
        "--weights", str(REAL / f"{MODEL}.fp16.safetensors"), "--only", "accuracy",
        "--methods", "score_pruning(score=cls)", "--keep", "0.3", "--json",
    )  # fmt: skip
    assert code == 0
    plain, pruned = json.loads(out)
    assert (plain["images"], plain["top1"], plain["top5"]) == (500, 86.6, 98.2)
    answers = pd.read_parquet(tmp_path / "results/imagenet/correctness.parquet")
    counts = answers.astype({"method": str}).groupby("method")[["top1", "top5"]].sum()
    assert counts.loc["none"].tolist() == [433, 491]
    assert pruned["delta_hi"] < 0 < pruned["top1"]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """120 small pictures of two classes, and weights to read them with."""
    noise = np.random.default_rng(0)
    torch.manual_seed(0)  # other weights may be right by chance
    for number in range(120):
        folder = tmp_path / "val" / ("n01440764", "n02102040")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / f"{number:03d}.png")
    save_file(timm.create_model(SMALL, pretrained=False).state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "val"


COMMAND = [
    "compare", "imagenet", "--data", "val", "--weights", "weights.safetensors", "--models", SMALL, "--at", "1",
    "--methods", "random_selection", "--keep", "0.5", "--seeds", "0", "--only", "accuracy", "--workers", "0",
]  # fmt: skip


def test_an_unreadable_image_is_left_out_counted_and_named(run: Run, photographs: Path, tmp_path: Path) -> None:
    (photographs / "n01440764" / "000.png").write_bytes(b"no picture")
    for _ in range(2):  # a second run, which decodes nothing, still tells
        code, _, err = run(*COMMAND)
        assert code == 0
        lines = err.splitlines()
        assert lines[0] == "tokbench: unreadable image n01440764/000.png: not an image"
        assert lines[1].startswith("tokbench: WARNING: test_vit is right on 0 of 119 images")
        assert [" is labelled " in line for line in lines[2:]] == [True] * 3
    table = pd.read_parquet(tmp_path / "results/imagenet/table.parquet")
    assert set(table["images"]) == {119}


def test_more_than_one_in_a_hundred_unreadable_fails_the_run(run: Run, photographs: Path) -> None:
    for number in (0, 2):
        (photographs / "n01440764" / f"{number:03d}.png").write_bytes(b"no picture")
    code, _, err = run(*COMMAND)
    assert code == 2
    assert err.count("\n") == 1
    assert "2 of 120 images cannot be read" in err
    assert "n01440764/000.png" in err
