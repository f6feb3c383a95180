"""Calibrated methods in a comparison: where their constants come from, where they are kept, and what is said of it."""

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load

import tokbench
from tokbench.embedded.canvases import digits
from tokbench.embedded.images import calibration_set
from tokbench.measure.sample_images import decoded
from tokbench.run.calibration import Calibration

Run = Callable[..., tuple[int, str, str]]
QUICK = ("--methods=dtome,tome", "--limit=100", "--only=macs,accuracy")
KEEP = "--keep=0.7"


def compared(run: Run, *options: str) -> pd.DataFrame:
    code, printed, said = run("compare", *QUICK, "--out=out", *options)
    assert code == 0, (printed, said)
    return tokbench.load("out").table.set_index("method")


def constants_in(folder: Path) -> tuple[dict[str, torch.Tensor], dict]:
    (tensors,) = folder.glob("checkpoints/*.safetensors")
    return load(tensors.read_bytes()), json.loads(tensors.with_suffix(".json").read_text())


def test_rows_are_calibrated_on_images_that_are_not_measured(run: Run) -> None:
    table = compared(run, KEEP)
    assert table.loc["dtome", "regime"] == "calibrated"
    assert table.loc["tome", "regime"] == "off-the-shelf"
    assert table.loc["dtome", "status"] == "ok"
    assert table.loc["dtome", "remarks"] == "calibrated on 512 images (training digits)"
    assert table.loc["tome", "remarks"] == ""
    constants, about = constants_in(Path("out"))
    images = calibration_set().head(512)
    assert about["data"] == {"name": "training digits", "images": 512, "identity": images.identity}
    assert (about["method"], about["model"], about["regime"]) == ("dtome", "digits_deit", "calibrated")

    # The same by the Python API.
    vit = tokbench.load_model("digits_deit").vit
    model = tokbench.reduce(vit, "dtome", 0.7)
    tokbench.calibrate(model, [batch.images for batch in decoded(vit, images)])
    assert model.downsampler is not None
    torch.testing.assert_close(model.downsampler.state_dict()["_extra_state"], constants["downsampler._extra_state"])


def test_training_digits_are_not_the_held_out_ones() -> None:
    train, held_out = ({digit.tobytes() for digit in digits(part).images} for part in ("train", "held_out"))
    assert train.isdisjoint(held_out)
    assert len(calibration_set()) == 797
    assert Calibration(calibration_set(), calibration_set().head(10)).shared == 10


def test_constants_are_kept_and_read_again(run: Run) -> None:
    compared(run, KEEP)
    before, about = constants_in(Path("out"))
    compared(run, "--keep=0.7,0.6")
    files = sorted(Path("out/checkpoints").glob("*.json"))
    assert len(files) == 2
    same = next(file for file in files if about["key"][:8] in file.name)
    assert json.loads(same.read_text()) == about  # date included
    # A damaged file is made again, with the same constants.
    path = same.with_suffix(".safetensors")
    path.write_bytes(path.read_bytes()[:-8] + bytes(8))
    compared(run, "--keep=0.7,0.6")
    assert torch.equal(load(path.read_bytes())["downsampler._extra_state"], before["downsampler._extra_state"])


def test_a_budget_is_met_with_the_constants_of_its_keep(run: Run) -> None:
    table = compared(run, "--schedule=budget(0.8)")
    plain = tokbench.load("out").table["gmacs"].max()
    assert table.loc["dtome", "gmacs"] == pytest.approx(0.8 * plain, rel=0.01)
    _, about = constants_in(Path("out"))
    assert about["keep"] == table.loc["dtome", "keep"]
    again = compared(run, "--schedule=budget(0.8)")
    assert again.loc["dtome", "keep"] == table.loc["dtome", "keep"]


def test_a_part_of_the_data_is_set_apart(run: Run) -> None:
    table = compared(run, KEEP, "--set-apart=0.3", "--limit=1000")
    images = int(table.loc["dtome", "images"])
    _, about = constants_in(Path("out"))
    assert images + about["data"]["images"] == 1000
    assert 600 < images < 800
    assert table.loc["tome", "images"] == images  # all rows are measured on the same images


def test_a_row_says_if_it_was_calibrated_on_measured_images(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    write_noise(folder, 12)
    options = ("imagenet", f"--data={folder}", "--models=vit_tiny_patch16_224", "--weights=random", "--workers=0")
    code, _, said = run(
        "compare", *options, f"--calibration={folder}", "--methods=dtome", "--keep=0.5", "--only=macs", "--out=out"
    )
    assert code == 0, said
    table = tokbench.load("out").table.set_index("method")
    assert table.loc["dtome", "remarks"] == "calibrated on 12 images (synsets), 12 of which are measured as well"
    assert "WARNING: dtome: calibrated on 12 images (synsets), 12 of which are measured as well" in said


def write_noise(folder: Path, count: int) -> None:
    from PIL import Image

    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for number in range(count):
        pixels = torch.randint(256, (32, 32, 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"n01440764_{number}.png")


def test_without_images_the_rows_are_skipped_with_the_way_out(run: Run) -> None:
    code, printed, _ = run(
        "compare", "latency", "--models=vit_tiny_patch16_224", "--methods=dtome,tome", "--keep=0.5", "--dtype=fp32",
        "--only=macs", "--mode=eager", "--batch-size=1", "--out=out",
    )  # fmt: skip
    assert code == 0
    assert "needs images to calibrate on" in printed
    assert "--calibration" in printed
    assert "--set-apart 0.2" in printed


def test_calibration_images_must_be_readable(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "photographs"
    write_noise(folder, 12)
    (folder / "n01440764_3.png").write_bytes(b"no image")
    options = ("imagenet", "--models=vit_tiny_patch16_224", "--weights=random", "--workers=0", "--only=macs")
    code, _, said = run("compare", *options, "--methods=dtome", "--keep=0.5", f"--calibration={folder}", "--out=out")
    assert code == 2
    assert "1 of 12 images cannot be read, more than 1 %: n01440764_3.png" in said


@pytest.mark.parametrize(
    ("options", "model"),
    [
        (("--calibration=embedded", "imagenet", "--weights=random", "--models=vit_tiny_patch16_224"), "vit_tiny"),
        (("--calibration=photographs", "--models=digits_deit"), "digits_deit"),
    ],
)
def test_a_model_must_be_able_to_read_them(run: Run, options: tuple[str, ...], model: str) -> None:
    code, _, said = run("compare", *options, "--methods=dtome", "--only=macs", "--out=out")
    assert code == 2
    assert f"model '{model}" in said
    assert "cannot read the images of --calibration" in said


def test_each_of_several_models_has_its_own_constants(run: Run) -> None:
    table = compared(run, KEEP, "--models=digits_deit,digits_deit_16", "--dtype=bf16", "--methods=dtome")
    assert (table.loc["dtome", "status"] == "ok").all()
    found = {
        json.loads(file.read_text())["model"]: load(file.with_suffix(".safetensors").read_bytes())
        for file in Path("out/checkpoints").glob("*.json")
    }
    assert set(found) == {"digits_deit", "digits_deit_16"}
    one, other = (state["downsampler._extra_state"] for state in found.values())
    assert not torch.allclose(one, other)
    for name, state in found.items():
        vit = tokbench.load_model(name).vit
        model = tokbench.reduce(vit, "dtome", 0.7)
        tokbench.calibrate(model, [batch.images for batch in decoded(vit, calibration_set().head(512))])
        torch.testing.assert_close(model.downsampler.state_dict()["_extra_state"], state["downsampler._extra_state"])


def test_a_method_that_decides_itself_is_measured_with_one_keep_and_no_budget(run: Run) -> None:
    code, _, said = run(
        "compare", "--methods=rajni,tome", "--keep=0.7,0.5", "--schedule=stages,budget(0.8)", "--only=macs", "--out=out"
    )
    assert code == 0, said
    table = tokbench.load("out").table
    rajni = table[table["method"] == "rajni"]
    assert rajni["status"].tolist() == ["ok", "skipped"]
    assert "decides itself how many tokens stay" in rajni["remarks"].iloc[0]
    assert "meets no budget" in rajni["reason"].iloc[1]
    assert len(table[table["method"] == "tome"]) == 3


def test_both_or_nothing_to_set_apart_are_errors(run: Run) -> None:
    assert "give one of the two" in run("compare", *QUICK, "--set-apart=0.2", "--calibration=embedded")[2]
    code, _, said = run("compare", "latency", "--set-apart=0.2", "--models=vit_tiny_patch16_224", "--methods=tome")
    assert code == 2
    assert "--set-apart takes a part of --data, which is missing" in said
