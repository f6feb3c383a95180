"""`tokbench check --against GIT_REF`: plugins in a repository of their own, changed on purpose."""

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from tokbench.check.against import compare_versions
from tokbench.registry import create, discover, load_apart, load_file, method_class
from tokbench.schedule import Schedule
from tokbench.stats.times import Verdict
from tokbench.vit.backbone import DownsampledViT

Run = Callable[..., tuple[int, str, str]]
Json = dict[str, Any]

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

# The base of all versions below. Every test needs its own `{name}`, as methods stay registered in the process.
BASE = '''
import torch

from tokbench import Context, Downsampler, Tokens, register


@register("{name}")
class Kept(Downsampler):
    """Keep the tokens of the largest norm."""

    def __init__(self, power: int = 2) -> None:
        """Choose the norm.

        Args:
            power: The norm's.
        """
        super().__init__()
        self.power = power

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        norm = tokens.patches.float().norm(dim=2, p=self.power)
        return tokens.select(norm.topk(keep).indices.sort().values)
'''
FORWARD = "        norm = tokens"
QUICK = ("--models", "digits_deit", "--keep", "0.5", "--limit", "40", "--device", "cpu", "--seconds", "0.1")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository, untouched by the user's own settings; `run` works in the same folder."""
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    # Timing is tested separately; here it would be noise.
    (tmp_path / "tokbench.toml").write_text(
        '[defaults]\nonly = ["macs", "accuracy"]\n[plugins]\npaths = ["own"]\n', encoding="utf-8"
    )
    (tmp_path / "own").mkdir()
    git(tmp_path, "init", "--quiet")
    return tmp_path


@pytest.fixture
def check(run: Run, repository: Path) -> Callable[..., tuple[int, Json]]:
    """Check against HEAD; gives the exit code and what `--json` prints."""

    def checked(*flags: str, ref: str = "HEAD") -> tuple[int, Json]:
        code, out, err = run("check", "--against", ref, *QUICK, "--json", *flags)
        assert err == ""
        return code, json.loads(out)

    return checked


def git(folder: Path, *arguments: str) -> None:
    author = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *author, *arguments], cwd=folder, check=True)


def commit(repository: Path, **plugins: str) -> None:
    for name, text in plugins.items():
        write(repository, name, text)
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--allow-empty", "--message", "a version")


def write(repository: Path, name: str, text: str) -> None:
    (repository / "own" / f"{name}.py").write_text(text.replace("{name}", name), encoding="utf-8")


def outcomes(report: Json) -> dict[str, str]:
    return {finding["column"]: finding["outcome"] for finding in report["findings"]}


def test_unchanged_files_are_not_measured(check: Callable[..., Any], repository: Path) -> None:
    commit(repository, same_bytes=BASE)
    code, report = check()
    assert code == 0
    assert report["rows"] == []
    assert "unchanged since HEAD, not measured: same_bytes.py" in report["notes"]


def test_whitespace_changes_are_measured_and_give_no_findings(check: Callable[..., Any], repository: Path) -> None:
    commit(repository, only_spaces=BASE, not_touched=BASE)
    write(repository, "only_spaces", BASE + "\n\n# A comment.\n")
    code, report = check("--keep", "0.5,0.3")
    assert (code, report["findings"]) == (0, [])
    assert [(row["method"], row["keep"]) for row in report["rows"]] == [("only_spaces", 0.5), ("only_spaces", 0.3)]


@pytest.mark.parametrize("schedule", ["budget(0.8)", "published", "every_block(r=3)"])
def test_both_versions_use_the_schedule_of_the_suite(
    check: Callable[..., Any], repository: Path, schedule: str
) -> None:
    name = f"scheduled_{schedule.partition('(')[0]}"
    text = BASE.replace("    def __init__", '    schedule = "every_block"\n\n    def __init__')
    (repository / "tokbench.toml").write_text(
        f'[defaults]\nonly = ["macs", "accuracy"]\nschedule = "{schedule}"\n[plugins]\npaths = ["own"]\n'
        "[suites.embedded]\nkeep = [0.9]\n"
    )
    commit(repository, **{name: text})
    write(repository, name, f"{text}# changed\n")
    code, report = check()
    assert (code, report["findings"]) == (0, [])
    (row,) = report["rows"]
    assert row["schedule"].startswith("every_block" if schedule == "published" else schedule)


def test_more_compute_is_a_regression(check: Callable[..., Any], repository: Path) -> None:
    commit(repository, more_compute=BASE)
    write(repository, "more_compute", BASE.replace(FORWARD, f"        tokens.patches @ tokens.patches.mT\n{FORWARD}"))
    code, report = check()
    assert code == 1
    assert outcomes(report) == {"gmacs": "regressed", "gmacs_method": "moved"}


@pytest.mark.parametrize("back", [False, True])
def test_changed_counts_are_findings(check: Callable[..., Any], repository: Path, back: bool) -> None:
    fewer = BASE.replace("topk(keep)", "topk(keep - 1)").replace(
        "    def forward(",
        "    def count(self, keep, n_patches, depth, layout):\n        return keep - 1\n\n    def forward(",
    )
    before, after = (fewer, BASE) if back else (BASE, fewer)
    commit(repository, **{f"other_counts_{back}": before})
    write(repository, f"other_counts_{back}", after)
    code, report = check()
    found = {column: outcome for column, outcome in outcomes(report).items() if column != "top1"}
    if back:
        assert code == 1
        assert found["gmacs"] == found["tokens_per_block"] == "regressed"
    else:
        assert (found["gmacs"], found["tokens_per_block"]) == ("improved", "moved")


def test_lost_images_are_a_regression_and_gained_ones_an_improvement(
    check: Callable[..., Any], repository: Path
) -> None:
    worse = BASE.replace("norm.topk", "(-norm).topk")
    commit(repository, there=BASE, and_back=worse)
    write(repository, "there", worse)
    write(repository, "and_back", BASE)
    code, report = check()
    found = {finding["row"]["method"]: finding for finding in report["findings"] if finding["column"] == "top1"}
    assert code == 1
    assert {finding["outcome"] for finding in found.values()} == {"regressed", "improved"}
    for finding in found.values():
        assert (finding["outcome"] == "regressed") == (finding["new"] < finding["old"])
    assert (found["there"]["old"], found["there"]["new"]) == (found["and_back"]["new"], found["and_back"]["old"])


def test_a_changed_default_is_compared(check: Callable[..., Any], repository: Path) -> None:
    commit(repository, other_default=BASE)
    write(repository, "other_default", BASE.replace("power: int = 2", "power: int = 1"))
    _, report = check("--limit", "100")
    assert "top1" in outcomes(report)
    # Both versions get a parameter that is given explicitly.
    code, report = check("--methods", "other_default(power=3)")
    assert (code, report["findings"]) == (0, [])
    assert [row["params"] for row in report["rows"]] == ["power=3"]


def test_a_version_that_raises_is_a_regression_unless_the_old_one_did_too(
    check: Callable[..., Any], repository: Path
) -> None:
    raising = BASE.replace(FORWARD, f"        raise RuntimeError('50 % ::broken')\n{FORWARD}")
    commit(repository, raises=BASE, recovers=raising, raises_still=raising)
    for name, text in {"raises": raising, "recovers": BASE, "raises_still": f"{raising}# still\n"}.items():
        write(repository, name, text)
    code, report = check()
    assert code == 1
    assert {finding["row"]["method"]: finding["outcome"] for finding in report["findings"]} == {
        "raises": "regressed",
        "recovers": "improved",
        "raises_still": "moved",
    }
    assert [(f["column"], f["note"]) for f in report["findings"] if f["outcome"] == "regressed"] == [
        ("status", "RuntimeError: 50 % ::broken")
    ]


def test_a_broken_import_is_a_regression(check: Callable[..., Any], repository: Path) -> None:
    broken = "import nothing_of_this_name\n"
    commit(repository, breaks=BASE, repaired=broken)
    write(repository, "breaks", broken)
    write(repository, "repaired", BASE)
    code, report = check()
    assert code == 1
    assert outcomes(report) == {"import": "regressed"}
    assert "breaks.py cannot be imported: ModuleNotFoundError" in report["findings"][0]["note"]
    assert any("the old version of repaired.py cannot be imported" in note for note in report["notes"])


def test_new_and_removed_methods_are_listed(check: Callable[..., Any], repository: Path) -> None:
    commit(repository, two=BASE + BASE.replace("{name}", "two_gone").replace("class Kept", "class Gone"))
    write(repository, "two", BASE + BASE.replace("{name}", "two_new").replace("class Kept", "class New"))
    write(repository, "new_file", BASE)
    code, report = check()
    assert code == 0
    assert [row["method"] for row in report["rows"]] == ["two"]
    notes = "\n".join(report["notes"])
    for note in (
        "not in HEAD, nothing to compare with: new_file.py",
        "two_new is new",
        "two_gone was removed from two.py",
    ):
        assert note in notes


def test_only_the_requested_methods_are_measured(check: Callable[..., Any], repository: Path) -> None:
    commit(repository, asked_for=BASE, not_asked_for=BASE)
    for name in ("asked_for", "not_asked_for"):
        write(repository, name, BASE + "# changed\n")
    _, report = check("--methods", "asked_for")
    assert [row["method"] for row in report["rows"]] == ["asked_for"]


def test_an_unknown_commit_is_a_user_error(run: Run, repository: Path) -> None:
    commit(repository, known_file=BASE)
    for ref in ("no_such_branch", "--help", "HEAD~5", ""):
        code, _, err = run("check", f"--against={ref}", *QUICK)
        assert code == 2
        assert f"no commit '{ref}'" in err
        assert err.count("\n") == 1


def test_without_a_repository_there_is_nothing_to_compare(run: Run, tmp_path: Path) -> None:
    (tmp_path / "no_repository.py").write_text(BASE.replace("{name}", "no_repository"))
    code, _, err = run("check", "--against", "HEAD", "--plugins", "no_repository.py", *QUICK)
    assert code == 2
    assert "no_repository.py is not in a git repository" in err
    code, _, err = run("check", "--against", "HEAD", *QUICK)
    assert code == 2
    assert "no plugin" in err


def test_the_old_version_is_not_registered(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for folder, size in ((tmp_path, 2), (tmp_path / "old", 1)):
        text = BASE.replace("{name}", "loaded_apart").replace("power: int = 2", f"power: int = {size}")
        (folder / "loaded_apart.py").write_text(text)
    load_file(tmp_path / "loaded_apart.py")
    now = method_class("loaded_apart")
    before = load_apart(tmp_path / "old" / "loaded_apart.py")
    assert list(before) == ["loaded_apart"]
    assert method_class("loaded_apart") is now
    assert (before["loaded_apart"]().power, create("loaded_apart").power) == (1, 2)  # type: ignore[call-arg]
    (tmp_path / "old" / "broken.py").write_text("raise RuntimeError\n")
    known = set(discover()[0])
    with pytest.raises(RuntimeError):
        load_apart(tmp_path / "old" / "broken.py")
    assert set(discover()[0]) == known


def test_twice_the_work_is_slower_and_half_the_work_is_faster(tiny_vit: Callable[..., VisionTransformer]) -> None:
    model = DownsampledViT(tiny_vit(), create("grid_pooling"), Schedule.stages(0.5, at=(1,))).eval()

    def twice(images: torch.Tensor) -> torch.Tensor:
        model(images)
        return model(images)

    batches = [torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))]
    slower = compare_versions(lambda: model, lambda: twice, batches, seconds=0.15, precision=0.05)
    assert slower.change.speedup.estimate < 0.8
    assert slower.change.verdict is not Verdict.FASTER
    faster = compare_versions(lambda: twice, lambda: model, batches, seconds=0.15, precision=0.05)
    assert faster.change.speedup.estimate > 1.25
    assert faster.change.verdict is not Verdict.SLOWER
    assert slower.floor >= 0


def test_slower_work_is_a_regression_on_the_command_line(check: Callable[..., Any], repository: Path) -> None:
    # Sorting takes no MACs: the counts stay the same, but the time is several times as long.
    slow = BASE.replace(FORWARD, f"        for _ in range(40):\n            tokens.patches.sort(dim=1)\n{FORWARD}")
    commit(repository, slow_work=BASE)
    write(repository, "slow_work", slow)
    toml = repository / "tokbench.toml"
    toml.write_text(toml.read_text().replace('["macs", "accuracy"]', '["macs", "latency"]\nbatch_size = [4]'))
    code, report = check("--seconds", "0.3")
    assert code == 1
    assert outcomes(report) == {"latency_ms": "regressed"}
