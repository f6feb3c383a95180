"""Three classes of one's own, from photographs in folders to fine-tuned rows, and from a model with another head."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest
import timm
import torch

Run = Callable[..., tuple[int, str, str]]

ANIMALS = ("birds", "cats", "dogs")


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Tiny models that timm knows by name."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "data"))
    import own_models

    return own_models


def test_half_of_the_images_trains_and_the_other_half_is_measured(run: Run, models: ModuleType, tmp_path: Path) -> None:
    for number in range(48):
        file = tmp_path / "photographs" / ANIMALS[number % 3] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        models.picture(number).save(file)
    # A model of 12 classes gets a head for three as docs/finetuning.md says.
    name = models.model_of(12)
    vit = timm.create_model(name)
    vit.reset_classifier(3)
    torch.save(vit.state_dict(), tmp_path / "three_classes.pth")
    common = (
        *(
            "imagenet",
            "--models",
            name,
            "--weights",
            "three_classes.pth",
            "--data",
            "photographs",
            "--set-apart",
            "0.5",
        ),
        *("--methods", "evit", "--keep", "0.5", "--schedule", "stages(at=1)", "--device", "cpu", "--workers", "0"),
    )
    code, out, err = run("finetune", *common, "--recipe", "short", "--batch", "8", "--json", "--out", "x")
    assert code == 0, err
    cells = {cell["method"]: cell for cell in json.loads(out)}
    code, _, err = run("compare", *common, "--checkpoint", "x", "--only", "accuracy", "--out", "y")
    assert code == 0, err
    table = pd.read_parquet(tmp_path / "y/table.parquet")
    for regime, when in (("off-the-shelf", "before"), ("fine-tuned", "after")):
        found = table[table["regime"] == regime].set_index("method")["top1"].to_dict()
        assert found == {method: pytest.approx(cell[when]) for method, cell in cells.items()}
    [about] = (json.loads(file.read_text())["about"] for file in (tmp_path / "x/checkpoints").glob("*-none-*.json"))
    measured = json.loads((tmp_path / "y/plan.json").read_text())["images"]["count"]
    assert about["data"]["images"] + measured == 48
