"""Classification by nearest neighbours, against votes counted one by one."""

import math
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data.config import resolve_data_config
from timm.data.transforms_factory import create_transform

import tokbench

SMALL = "test_vit"
CLASSES = ("n01440764", "n01443537", "n02123045")
COMMAND = [
    "compare", "imagenet", "--data", "val", "--train", "train", "--weights", "weights.safetensors", "--models", SMALL,
    "--at", "1", "--methods", "tome", "--keep", "0.3", "--baselines", "none", "--workers", "0", "--only", "macs",
]  # fmt: skip


def write_pictures(folder: Path, count: int, seed: int) -> None:
    """Noise with a tint that depends on the class."""
    noise = np.random.default_rng(seed)
    for number in range(count):
        kind = number % len(CLASSES)
        pixels = noise.integers(0, 200, (6, 6, 3))
        pixels[..., kind] += 18
        file = folder / CLASSES[kind] / f"{number:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).resize((180, 180)).save(file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_pictures(tmp_path / "train", 75, seed=0)
    write_pictures(tmp_path / "val", 30, seed=1)
    torch.manual_seed(0)
    vit = timm.create_model(SMALL, pretrained=False, num_classes=0)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(torch.randn(parameter.shape), alpha=0.1)
    head = timm.create_model(SMALL, pretrained=False).state_dict()
    save_file({**head, **vit.state_dict()}, tmp_path / "weights.safetensors")
    return tmp_path


@torch.inference_mode()
def features(vit, model, folder: Path) -> list[tuple[np.ndarray, str]]:
    transform = create_transform(**resolve_data_config({}, model=vit))
    files = sorted(folder.rglob("*.png"), key=lambda file: file.relative_to(folder).as_posix())
    return [(model(transform(Image.open(file))[None])[0].double().numpy(), file.parent.name) for file in files]


def right_answers(train, val) -> int:
    """20 neighbours by cosine similarity, each with a vote of exp(similarity / 0.07)."""
    right = 0
    for query, label in val:
        similar = sorted(
            ((float(query @ f / math.sqrt((query @ query) * (f @ f))), kind) for f, kind in train), reverse=True
        )
        votes: Counter[str] = Counter()
        for similarity, kind in similar[:20]:
            votes[kind] += math.exp(similarity / 0.07)
        right += votes.most_common(1)[0][0] == label
    return right


def test_it_counts_the_votes_of_the_twenty_nearest(run, folder):
    assert run(*COMMAND)[0] == 0
    table = pd.read_parquet(folder / "results/imagenet/table.parquet").set_index("method")
    vit = timm.create_model(SMALL, pretrained=False)
    vit.load_state_dict(load_file(folder / "weights.safetensors"))
    vit.reset_classifier(0)
    vit.eval()
    reduced = tokbench.reduce(vit, "tome", keep=0.3, schedule="stages(at=1)")
    for name, model in {"none": vit, "tome": reduced}.items():
        right = right_answers(features(vit, model, folder / "train"), features(vit, model, folder / "val"))
        assert 5 < right < 30
        assert table.loc[name, "knn"] == pytest.approx(100 * right / 30)
    assert table.loc["tome", "delta_knn"] == pytest.approx(table.loc["tome", "knn"] - table.loc["none", "knn"])


def test_the_training_images_need_labels(run, folder):
    for file in list((folder / "train").rglob("*.png")):
        file.rename(folder / "train" / f"{file.parent.name[-3:]}{file.name}")
    code, _, err = run(*COMMAND)
    assert code == 2
    assert "--train: cannot read a class from" in err
