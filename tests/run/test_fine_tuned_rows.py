"""Comparisons of fine-tuned checkpoints: their rows, what these are compared with, and which files are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import tokbench
from tokbench.config import load_config
from tokbench.embedded.canvases import held_out, to_input
from tokbench.embedded.model import load
from tokbench.errors import UserError
from tokbench.kinds.training_gain import GAIN
from tokbench.registry import discover
from tokbench.run.build import build_model
from tokbench.run.cells import cells_of
from tokbench.run.fine_tuned import choose_checkpoints
from tokbench.run.prepare import Prepared, prepare
from tokbench.trained.saved import About, write_trained
from tokbench.vit.backbone import DownsampledViT

PEERS = Path(__file__).parents[2].parent / "shared/peers"
SHAPED_LIKE = "deit_tiny_patch16_224"

Shake = Callable[..., torch.nn.Module]


def write(folder: Path, method: str, keep: float | None, shake: Shake, **changes: object) -> DownsampledViT:
    """A checkpoint of the digits' model with other weights than the pretrained ones."""
    model = DownsampledViT(load()) if method == "none" else tokbench.reduce(load(), method, keep=keep)
    shake(model, 0.004, seed=len(method))
    about = {
        **{"model": "digits_deit", "weights": "abc", "method": method, "params": {}, "keep": keep, "seed": 0},
        **{"schedule": "" if keep is None else "stages(at=3-6-9)", "site": "" if keep is None else model.site},
        **{"position": "mean", "recipe": {"name": "short"}, "data": {"name": "x", "images": 9, "identity": "i"}},
        **{"epochs": 1, "steps": 5, **changes},
    }
    write_trained(model, About(**about), folder / f"{method}.safetensors")  # type: ignore[arg-type]
    return model


@pytest.fixture
def models(tmp_path: Path, shake: Shake) -> dict[str, DownsampledViT]:
    """Checkpoints in the folder `trained`, by method."""
    return {
        method: write(tmp_path / "trained", method, keep, shake)
        for method, keep in (("none", None), ("tome", 0.5), ("dtem", 0.7))
    }


def prepared(checkpoint: str | list[str], **settings: object) -> Prepared:
    given = {"checkpoint": checkpoint, "only": ["macs"], "baselines": ["none"], "device": "cpu", **settings}
    config = load_config()
    suite = choose_checkpoints(config.suite("embedded", {"methods": ["tome", "dtem"], **given}), settings)
    known, _ = discover()
    return prepare(cells_of(suite, config, list(known)), suite)


def test_fine_tuned_rows_stand_beside_the_others(models: dict[str, DownsampledViT], tmp_path: Path) -> None:
    table = tokbench.compare(
        methods=["tome", "dtem"],
        keep=[0.7, 0.5],
        checkpoint=tmp_path / "trained",
        only=["accuracy", "agreement"],
        limit=200,
        accuracy_batch=200,
        baselines="none",
        out=tmp_path / "out",
        progress=False,
    )
    assert table["status"].eq("ok").all()  # dtem off the shelf, which would be skipped, is not there
    tuned = table[table["regime"] == "fine-tuned"].set_index("method")
    assert tuned["keep"].to_dict() == {"none": 1.0, "tome": 0.5, "dtem": 0.7}
    before = table[(table["regime"] == "off-the-shelf") & ((table["keep"] == 0.5) | (table["method"] == "none"))]
    before = before.set_index("method")
    for method in ("tome", "dtem"):
        difference = tuned.loc[method, "top1"] - tuned.loc["none", "top1"]
        assert tuned.loc[method, "delta_top1"] == pytest.approx(difference)
    assert tuned.loc["none", "delta_top1"] == pytest.approx(tuned.loc["none", "top1"] - before.loc["none", "top1"])
    beyond = (tuned.loc["tome", "top1"] - before.loc["tome", "top1"]) - tuned.loc["none", "delta_top1"]
    assert tuned.loc["tome", GAIN] == pytest.approx(beyond)
    assert tuned.loc["tome", f"{GAIN}_lo"] < beyond < tuned.loc["tome", f"{GAIN}_hi"]
    assert pd.isna(tuned.loc["dtem", GAIN])  # there is no dtem without training to compare with


def test_the_weights_of_a_row_are_those_of_its_checkpoint(models: dict[str, DownsampledViT], tmp_path: Path) -> None:
    table = tokbench.compare(
        methods="none",
        checkpoint=tmp_path / "trained",
        only="accuracy",
        baselines="none",
        out=tmp_path / "out",
        progress=False,
    )
    canvases = held_out()
    labels = torch.from_numpy(canvases.labels)
    tuned = table[table["regime"] == "fine-tuned"].set_index("method")["top1"]
    assert len(tuned) == len(models) == 3
    for method, model in models.items():
        with torch.inference_mode():
            expected = (model.eval()(to_input(canvases.images)).argmax(1) == labels).float().mean().item()
        assert tuned[method] == pytest.approx(100 * expected)


def test_the_models_are_those_of_the_checkpoints(models: dict[str, DownsampledViT], tmp_path: Path) -> None:
    folder = str(tmp_path / "trained")
    assert set(prepared(folder).models) == {"digits_deit"}
    with pytest.raises(UserError, match="is of the model 'digits_deit', which is not compared"):
        prepared(folder, models=["digits_deit_32"])
    with pytest.raises(UserError, match="is of the model digits_deit, not of 'digits_deit_32'"):
        prepared(f"digits_deit_32={folder}")


def test_of_a_folder_those_are_taken_that_were_asked_for(models: dict[str, DownsampledViT], tmp_path: Path) -> None:
    folder = tmp_path / "trained"

    def methods(**settings: object) -> set[str]:
        rows = prepared(str(folder), **settings).rows
        return {row.cell.variant.method for row in rows if row.cell.variant.regime == "fine-tuned"}

    assert methods(methods=["none"]) == {"none", "tome", "dtem"}
    assert methods(keep=[0.5]) == {"none", "tome"}
    assert methods(schedule=["stages(at=3,6,9)"]) == {"none", "tome", "dtem"}
    assert methods(schedule="every_block") == {"none"}
    with pytest.raises(UserError, match=r"tome\.safetensors was trained at keep 0\.5: add it to --keep"):
        prepared([str(folder / "tome.safetensors")], keep=[0.7])
    with pytest.raises(UserError, match=r"dtem\.safetensors was trained with the schedule stages\(at=3-6-9\): add it"):
        prepared([str(folder / "dtem.safetensors")], schedule="budget(0.7)")


def test_a_checkpoint_of_another_model_in_the_folder_is_left_out(
    models: dict[str, DownsampledViT], tmp_path: Path, shake: Shake
) -> None:
    write(tmp_path / "trained", "evit", 0.7, shake, model="digits_rope")
    found = prepared(str(tmp_path / "trained"), models=["digits_deit"])
    assert {row.cell.variant.method for row in found.rows} == {"none", "tome", "dtem"}


def test_what_does_not_fit_is_refused(models: dict[str, DownsampledViT], tmp_path: Path, shake: Shake) -> None:
    folder = tmp_path / "trained"
    (tmp_path / "twice").mkdir()
    for name in ("tome.safetensors", "tome.json"):
        (tmp_path / "twice" / name).write_bytes((folder / name).read_bytes())
    with pytest.raises(UserError, match="are the same method with the same settings and seed"):
        prepared([str(folder), str(tmp_path / "twice")])
    write(folder, "patch_merger", 0.7, shake)
    about = json.loads((folder / "patch_merger.json").read_text())
    about["about"]["keep"] = 0.5  # whose queries are fewer
    (folder / "patch_merger.json").write_text(json.dumps(about))
    row = next(row for row in prepared(str(folder)).rows if row.cell.variant.method == "patch_merger")
    assert "does not fit method 'patch_merger' with stages(at=3-6-9): with wrong shape" in row.cell.variant.skipped
    (folder / "tome.safetensors").write_bytes((folder / "dtem.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"tome\.safetensors and tome\.json do not belong together"):
        prepared(str(folder))
    (folder / "tome.json").write_text('{"format": "tokbench fine-tuned checkpoint 1"}')
    with pytest.raises(UserError, match=r"tome\.json is damaged \(about: Field required\)"):
        prepared(str(folder))
    with pytest.raises(UserError, match=r"no checkpoint at .*nowhere: name a file or a folder"):
        prepared(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no checkpoints in"):
        prepared(str(tmp_path))
    torch.save(load().state_dict(), tmp_path / "bare.pth")
    with pytest.raises(UserError, match="does not say which method was trained"):
        prepared(str(tmp_path / "bare.pth"))


def test_public_checkpoints_become_rows_with_their_own_plain_model() -> None:
    """Nobody else has a ViT of this width: the plain model of each has the checkpoint's weights."""
    names = ("tokenreduction_evit", "atc_average")
    files = [f"{SHAPED_LIKE}={PEERS / name}.pth" for name in names]
    config = load_config()
    suite = config.suite("imagenet", {"methods": ["tome"], "checkpoint": files, "only": ["macs"], "device": "cpu"})
    suite = choose_checkpoints(suite, {})
    assert suite.models == names
    found = prepare(cells_of(suite, config, ["tome"]), suite)
    images = load_file(PEERS / "images.safetensors")["images"]
    expected = json.loads((PEERS / "expected.json").read_text())
    for name in names:
        plain, tuned = (row for row in found.rows if row.cell.model == name)
        assert plain.cell.variant.method == "none"
        assert "the checkpoint's weights without its method" in plain.remarks[-1]
        with torch.inference_mode():
            logits = build_model(tuned.cell, found.models[name])(images)
        torch.testing.assert_close(logits, torch.tensor(expected[name]["logits"]), atol=1e-4, rtol=0)


def test_the_number_of_heads_has_to_be_known() -> None:
    with pytest.raises(UserError, match="name a model with as many, as in --checkpoint deit_tiny_patch16_224=FILE"):
        prepared(str(PEERS / "tokenreduction_evit.pth"))
