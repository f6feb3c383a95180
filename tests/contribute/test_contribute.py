"""`tokbench contribute`: the copy, what is left out of it, and what is refused."""

import json
import shutil
import socket
from pathlib import Path

import pytest
from contributed_run import edit_json, put

from tokbench.cli import main
from tokbench.contribute.contribute import check, contribute
from tokbench.contribute.privacy import PATTERNS, without_folders
from tokbench.contribute.problem import Name
from tokbench.errors import UserError
from tokbench.results import load
from tokbench.results.plan import PLAN


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """The folder of results of a clone."""
    folder = tmp_path / "results"
    folder.mkdir()
    return folder


def test_results_are_copied_under_machine_and_date(copy: Path, results: Path) -> None:
    edit_json(copy / "environment.json", lambda one: one.update(measured="2026-01-02T03:04:05+00:00"))
    edit_json(copy / PLAN, lambda plan: plan["suite"].update(cache="/home/someone/images/cache"))
    put(copy, "macs", "0" * 24, {"total": 1, "method": 0, "tokens": [1]})  # of an earlier run in the directory
    place, verdict = contribute(copy, results)
    assert verdict.problems == ()
    assert place is not None
    assert place.parent == results / "contributed"
    assert place.name.endswith("-2026-01-02")
    assert json.loads((place / PLAN).read_text())["suite"]["cache"] == "cache"
    assert load(place).table.equals(load(copy).table)
    assert "0" * 24 not in (place / "records.jsonl").read_text()
    assert check(place, results).problems == ()


def test_a_second_copy_of_the_same_times_is_refused(copy: Path, results: Path) -> None:
    first, _ = contribute(copy, results)
    second, verdict = contribute(copy, results)
    assert first is not None
    assert second is None
    assert {problem.name for problem in verdict.problems} == {Name.COPIED_TIMES}
    assert list((results / "contributed").iterdir()) == [first]


def test_the_name_of_the_host_is_refused(copy: Path, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "lab-42.example.org")
    edit_json(copy / PLAN, lambda plan: plan["suite"].update(description="Measured on LAB-42."))
    place, verdict = contribute(copy, results)
    assert place is None
    (problem,) = verdict.problems
    assert problem.name == Name.PRIVATE_TEXT
    assert "plan.json, suite.description" in problem.text


def test_the_command_prints_problems_by_name_and_fails(
    copy: Path, results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (copy / "images.parquet").unlink()
    for options in ([], ["--check"]):
        monkeypatch.setattr("sys.argv", ["tokbench", "contribute", str(copy), "--results", str(results), *options])
        with pytest.raises(SystemExit) as stopped:
            main()
        assert stopped.value.code == 1
        assert "missing-file: images.parquet" in capsys.readouterr().out
    assert list((results / "contributed").iterdir()) == []


def test_outside_of_a_clone_nothing_is_copied(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="run this in a clone of tokbench"):
        contribute(copy, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("text", "private"),
    [
        ("OSError: cannot open /data/imagenet/val/x.JPEG", True),
        ("/home/someone", True),
        (r"C:\Users\someone\run", True),
        ("~/runs/first", True),
        ("ask someone@example.org", True),
        ("host 10.0.0.3 is down", True),
        ("see https://arxiv.org/abs/2110.03860", False),
        ("val/n01440764/x.JPEG, 12 img/s", False),
        ("Linux-6.18.44-fc-v857-x86_64-with-glibc2.36", False),
        ("fvcore 0.1.5.post20221221, driver 570.124.06", False),
        ("hfds/imagenet-1k", False),
        ("stages(at=3-6-9), and/or +- 3.1", False),
    ],
)
def test_private_texts_are_told_from_others(text: str, private: bool) -> None:
    assert any(pattern.search(text) for pattern in PATTERNS.values()) == private


def test_paths_of_the_settings_keep_their_last_part() -> None:
    suite = {
        "data": "/data/imagenet/val/",
        "weights": ["deit_tiny_patch16_224=/home/me/deit.safetensors", "vit=random"],
        "train": "hfds/imagenet-1k",
        "calibration": "embedded",
        "labels": r"D:\lists\labels.csv",
        "seconds": 0.5,
    }
    assert without_folders({"suite": suite, "rows": []}) == {
        "rows": [],
        "suite": {
            "data": "val",
            "weights": ("deit_tiny_patch16_224=deit.safetensors", "vit=random"),
            "train": "hfds/imagenet-1k",
            "calibration": "embedded",
            "labels": "labels.csv",
            "seconds": 0.5,
        },
    }


def test_the_page_explains_every_name() -> None:
    page = (Path(__file__).parents[2] / "docs/contributing-results.md").read_text(encoding="utf-8")
    assert [name for name in Name if f"| `{name}` |" not in page] == []


def test_a_copy_holds_all_files_of_the_run(copy: Path, results: Path) -> None:
    place, _ = contribute(copy, results)
    assert place is not None
    assert {file.name for file in place.iterdir()} == {file.name for file in copy.iterdir()}
    shutil.rmtree(place)
