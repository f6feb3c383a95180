"""From a training script to a table with one command: a ViT of three made-up classes, saved as people save it."""

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_data_config
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn import functional as F

Run = Callable[..., tuple[int, str, str]]

CLASSES = ("checks", "stripes across", "stripes down")
SIDE, PER_CLASS, STEPS = 64, 20, 60
MODEL = "test_vit"


def pattern(kind: str, rng: np.random.Generator) -> np.ndarray:
    """A noisy black-and-white pattern of random width and phase, (SIDE, SIDE, 3) uint8."""
    width, (dy, dx) = rng.integers(5, 11), rng.integers(0, 20, 2)
    y, x = ((np.arange(SIDE)[:, None] + dy) // width) % 2, ((np.arange(SIDE)[None] + dx) // width) % 2
    grey = {"stripes across": y + 0 * x, "stripes down": x + 0 * y, "checks": (x + y) % 2}[kind]
    noisy = 60 + 140 * grey[..., None] + rng.normal(0, 30, (SIDE, SIDE, 3))
    return noisy.clip(0, 255).astype(np.uint8)


def trained() -> tuple[nn.Module, nn.Module]:
    """A ViT after a short training, and the moving average of its weights."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    vit = timm.create_model(MODEL, num_classes=3, img_size=SIDE)
    ema = ModelEmaV3(vit, decay=0.9)
    optimizer = torch.optim.AdamW(vit.parameters(), lr=1e-3)
    for _ in range(STEPS):
        labels = torch.from_numpy(rng.integers(0, 3, 32))
        images = torch.from_numpy(np.stack([pattern(CLASSES[label], rng) for label in labels]))
        x = images.permute(0, 3, 1, 2) / 255 * 2 - 1  # the model's mean and deviation are 0.5
        optimizer.zero_grad()
        F.cross_entropy(vit(x), labels).backward()
        optimizer.step()
        ema.update(vit)
    return vit.eval(), ema.module.eval()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the checkpoint of a training and a folder of validation images."""
    root = tmp_path_factory.mktemp("project")
    vit, ema = trained()
    checkpoint = {
        "epoch": 3,
        "model": {f"module.{name}": value for name, value in vit.state_dict().items()},
        "model_ema": {f"module.{name}": value for name, value in ema.state_dict().items()},
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]},
        "args": argparse.Namespace(model=MODEL, lr=1e-3, epochs=3),
    }
    torch.save(checkpoint, root / "checkpoint.pth")
    rng = np.random.default_rng(1)
    for name in CLASSES:
        (root / "photos" / name).mkdir(parents=True)
        for number in range(PER_CLASS):
            Image.fromarray(pattern(name, rng)).save(root / "photos" / name / f"{number:02}.png")
    return root


def accuracy(project: Path, weights: str) -> float:
    """Top-1 in percent by a loop of our own: timm's model and transform, class by class in sorted order."""
    vit = timm.create_model(MODEL, num_classes=3, img_size=SIDE).eval()
    saved = torch.load(project / "checkpoint.pth", weights_only=False)[weights]
    vit.load_state_dict({name.removeprefix("module."): value for name, value in saved.items()})
    transform = create_transform(**{**resolve_data_config({}, model=vit), "input_size": (3, SIDE, SIDE)})
    correct = 0
    for label, folder in enumerate(sorted((project / "photos").iterdir())):
        for file in sorted(folder.iterdir()):
            with Image.open(file) as image, torch.inference_mode():
                correct += int(vit(transform(image.convert("RGB"))[None]).argmax()) == label
    return 100 * correct / (3 * PER_CLASS)


def compared(run: Run, project: Path, *more: str) -> tuple[pd.DataFrame, str]:
    code, printed, error = run(
        *("compare", "imagenet", "--data", str(project / "photos"), "--models", MODEL, "--img-size", str(SIDE)),
        *("--weights", str(project / "checkpoint.pth"), "--methods", "tome,score_pruning(score=cls)", "--keep", "0.7"),
        *("--at", "2,4"),
        *("--only", "macs,accuracy,agreement", "--baselines", "none", "--out", "out", *more),
    )
    assert code == 0, error
    return pd.read_parquet("out/table.parquet").set_index("method"), printed + error


def test_one_command_in_an_empty_folder_gives_the_table(
    run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    table, printed = compared(run, project)
    averaged = accuracy(project, "model_ema")
    assert averaged > 90
    assert table.loc["none", "top1"] == pytest.approx(averaged)
    assert set(table["status"]) == {"ok"}
    assert (table.loc[["tome", "score_pruning"], "top1"] > 60).all()
    assert table["remarks"].str.contains("moving average").all()
    assert "Published" not in printed
    plan = json.loads(Path("out/plan.json").read_text())
    assert plan["images"]["classes"] == 3


def test_the_trained_weights_themselves_on_request(
    run: Run, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    table, _ = compared(run, project, "--no-ema", "--methods", "none")
    assert table.loc["none", "top1"] == pytest.approx(accuracy(project, "model"))


def test_the_model_after_training_is_not_the_average(project: Path):
    """Else the tests above could not tell them apart."""
    saved = torch.load(project / "checkpoint.pth", weights_only=False)
    assert not torch.equal(saved["model"]["module.head.weight"], saved["model_ema"]["module.head.weight"])
