"""Comparisons of the user's own weights: what their rows say, and what they are not compared with."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
import timm
import torch
from timm.models import save_for_hf

from tokbench import load_model
from tokbench.config import Config
from tokbench.errors import UserError
from tokbench.model_names import file_stem
from tokbench.published.claims import beside
from tokbench.run.cells import cells_of
from tokbench.run.plan import plan_of
from tokbench.run.prepare import Prepared, prepare
from tokbench.suite import Suite

Run = Callable[..., tuple[int, str, str]]


def prepared(**settings: object) -> Prepared:
    suite = Suite.model_validate(
        {"methods": ["tome"], "only": ["macs"], "baselines": ["none"], "batch_size": [1], "device": "cpu", **settings}
    )
    return prepare(cells_of(suite, Config(), ["tome"]), suite)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small model that timm has saved, with the names of its classes."""
    torch.manual_seed(0)
    vit = timm.create_model("test_vit", num_classes=3, depth=4)
    save_for_hf(vit, str(tmp_path / "my model"), {"label_names": ["x", "y", "z"]}, safe_serialization=True)
    return tmp_path / "my model"


def test_rows_say_what_was_done_to_the_weights(run: Run, tmp_path: Path) -> None:
    own = load_model("digits_deit").vit.state_dict()
    torch.save({"model": own, "model_ema": own}, tmp_path / "a.pth")
    given = ("--weights", str(tmp_path / "a.pth"), "--only", "macs", "--baselines", "none", "--plan")
    code, printed, error = run("compare", "--methods", "tome", *given, "--json")
    assert code == 0, error
    remarks = [row["remarks"] for row in json.loads(printed)["cells"]]
    assert all("model_ema, a moving average (EMA); --no-ema takes its model" in str(remark) for remark in remarks)
    code, printed, error = run("compare", "--methods", "tome", *given, "--no-ema", "--json")
    assert not any("EMA" in str(row["remarks"]) for row in json.loads(printed)["cells"])


def test_each_model_gets_its_own_file(tmp_path: Path) -> None:
    for name, shift in (("digits_deit", 1.0), ("digits_deit_16", 2.0)):
        state = load_model(name).vit.state_dict()
        torch.save({**state, "head.bias": torch.full((10,), shift)}, tmp_path / f"{name}.pth")
    names = ["digits_deit", "digits_deit_16", "digits_deit_32"]
    weights = ",".join(f"{name}={tmp_path / name}.pth" for name in names[:2])
    models = prepared(models=names, weights=weights).models
    assert [float(models[name].vit.head.bias[0]) for name in names[:2]] == [1.0, 2.0]
    assert models["digits_deit_32"].identity == load_model("digits_deit_32").identity
    with pytest.raises(UserError, match="--weights is one model's, and 3 are compared: name each one's"):
        prepared(models=names, weights=str(tmp_path / "digits_deit.pth"))


def test_images_of_another_size_reach_the_plan() -> None:
    given = {"models": ["test_vit"], "methods": ["none"], "weights": "random", "baselines": ["auto"]}
    large, small = (prepared(**given, img_size=size) for size in (None, 96))
    sizes = [row.cell.variant.img_size for row in small.rows if row.cell.variant.img_size]
    assert sizes == [80, 64]  # of 96, in patches of 16
    assert small.models["test_vit"].identity != large.models["test_vit"].identity
    assert not set(small.rows[0].keys.values()) & set(large.rows[0].keys.values())


def test_other_heads_and_sizes_are_not_set_beside_published_numbers(tmp_path: Path) -> None:
    name = "deit_tiny_patch16_224"
    torch.save(timm.create_model(name, num_classes=3).state_dict(), tmp_path / "x.pth")
    known = {}
    cases: dict[str, dict[str, object]] = {
        "timm's": {"weights": "random"},
        "other head": {"weights": str(tmp_path / "x.pth")},
        "other size": {"weights": "random", "img_size": 64},
    }
    for case, settings in cases.items():
        plan = plan_of(prepared(models=[name], methods=["none"], **settings))
        measured = {"gmacs": 1.0, "top1": 70.0, "images": 50_000, "status": "ok"}
        rows = pd.DataFrame([{**asdict(row.id), **measured} for row in plan.rows])
        known[case] = (plan.models[name], len(beside(rows, plan)))
    assert known.pop("timm's")[1] > 0
    assert known == {
        "other head": ("deit_tiny_patch16_224.fb_in1k with 3 classes", 0),
        "other size": ("deit_tiny_patch16_224.fb_in1k at 64 pixels", 0),
    }


def test_a_folder_is_a_model(run: Run, folder: Path, tmp_path: Path) -> None:
    model = f"local-dir:{folder}"
    read = load_model(model)
    assert (read.classes, read.class_names) == (3, ("x", "y", "z"))
    code, printed, error = run(
        "compare", "latency", "--models", model, "--methods", "tome,sinkhorn", "--only", "macs", "--dtype", "fp32",
        "--mode", "eager", "--batch-size", "1", "--device", "cpu", "--schedule", "stages(at=1-2)", "--json",
    )  # fmt: skip
    assert code == 0, error
    assert {row["model"] for row in json.loads(printed)} == {model}
    other = tmp_path / "again"
    shutil.copytree(folder, other)
    config = json.loads((other / "config.json").read_text())
    config["pretrained_cfg"]["mean"] = [0.1, 0.2, 0.3]
    (other / "config.json").write_text(json.dumps(config))
    assert load_model(f"local-dir:{other}").identity != read.identity


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("local-dir:nowhere", "nowhere is no folder with a config.json.*--models NAME --weights nowhere"),
        ("local-dir:", "names no place"),
        ("hf-hub:", "names no place"),
        ("user/name", "write hf-hub:user/name .* or local-dir:user/name"),
    ],
)
def test_a_model_without_a_place_is_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_model(name)


def test_a_config_of_neither_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"neither timm's nor transformers'.*--models NAME --weights"):
        load_model(f"local-dir:{tmp_path}")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json cannot be read"):
        load_model(f"local-dir:{tmp_path}")
    (tmp_path / "config.json").write_text('{"architecture": "no_such_model"}')
    with pytest.raises(UserError, match="cannot be built"):
        load_model(f"local-dir:{tmp_path}")


HUB = """
import sys
from tokbench import load_model
from tokbench.errors import UserError
for name in sys.argv[1:]:
    try:
        print(load_model(name).class_names)
    except UserError as error:
        print(error)
"""


def test_a_repository_is_read_from_the_hubs_cache_without_a_network(folder: Path, tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--user--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(folder, repository / "snapshots" / ("0" * 40))

    printed = subprocess.run(
        [sys.executable, "-c", HUB, "hf-hub:user/name", "hf-hub:user/absent"],
        env={**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    assert printed[0] == "('x', 'y', 'z')"
    assert printed[1].startswith("hf-hub:user/absent cannot be downloaded")
    assert "copy the repository to this machine and name its folder: --models local-dir:FOLDER" in printed[1]
    assert len(printed) == 2


def test_names_of_files_are_safe_and_distinct() -> None:
    assert file_stem("deit_tiny_patch16_224.fb_in1k") == "deit_tiny_patch16_224.fb_in1k"
    stems = {file_stem(name) for name in ("hf-hub:a/b", "hf-hub:a_b", "hf-hub:a:b", "local-dir:../../x", "local-dir:x")}
    assert len(stems) == 5
    assert not any("/" in stem or stem.startswith(".") for stem in stems)
