"""The command line, as a user runs it."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file

TOKBENCH = [sys.executable, "-m", "tokbench"]
QUICK = ["compare", "--limit", "200", "--keep", "0.5", "--seeds", "0,1", "--methods", "grid_pooling,random_selection"]

Run = Callable[..., tuple[int, str, str]]


def test_a_comparison_has_a_row_for_every_cell(run: Run, tmp_path: Path) -> None:
    code, out, err = run(*QUICK, "--out", "results/x")
    assert (code, err) == (0, "")
    table = pd.read_parquet(tmp_path / "results/x/table.parquet")
    assert list(table["method"]) == ["none", "grid_pooling", "random_selection", "random_selection"]
    assert list(table["seed"].astype(object).where(table["seed"].notna(), None)) == [None, None, 0, 1]
    assert set(table["status"]) == {"ok"}
    assert set(table["images"]) == {200}
    assert (table[["gmacs", "latency_ms", "speedup", "top1", "top1_lo", "delta_top1"]].notna()).all().all()
    assert ((table["latency_ms_lo"] <= table["latency_ms"]) & (table["latency_ms"] <= table["latency_ms_hi"])).all()
    plain, *others = table.to_dict("records")
    assert plain["keep"] == 1
    assert plain["delta_top1"] == 0
    assert plain["tokens_per_block"] == " ".join(["64"] * 12)
    for row in others:
        assert row["tokens_per_block"] == " ".join(map(str, [64] * 3 + [32] * 3 + [16] * 3 + [8] * 3))
        assert row["gmacs_saved"] == pytest.approx(100 * (1 - row["gmacs"] / plain["gmacs"]))
    for name in ("grid_pooling", "random_selection", "GMACs", "results/x"):
        assert name in out
    read_back = pd.read_csv(tmp_path / "results/x/table.csv")
    assert list(read_back.columns) == list(table.columns)
    assert read_back["top1"].tolist() == pytest.approx(table["top1"].tolist())


def test_correctness_is_stored_for_each_image(run: Run, tmp_path: Path) -> None:
    run(*QUICK, "--only", "accuracy", "--out", "x")
    table = pd.read_parquet(tmp_path / "x/table.parquet")
    answers = pd.read_parquet(tmp_path / "x/correctness.parquet")
    assert len(answers) == 200 * len(table)
    for row in table.to_dict("records"):
        same_seed = answers["seed"].isna() if pd.isna(row["seed"]) else answers["seed"] == row["seed"]
        own = answers[(answers["method"] == row["method"]) & same_seed]
        assert len(own) == own["image"].nunique() == 200
        assert (100 * own["top1"].mean(), 100 * own["top5"].mean()) == pytest.approx((row["top1"], row["top5"]))


def test_a_second_run_measures_only_what_is_missing(run: Run, tmp_path: Path) -> None:
    def records() -> list[dict[str, str]]:
        return [json.loads(line) for line in (tmp_path / "x/records.jsonl").read_text().splitlines()]

    base = [*QUICK, "--only", "macs,accuracy", "--out", "x"]
    run(*base)
    before, table = records(), (tmp_path / "x/table.csv").read_text()
    run(*base)
    assert records() == before
    assert (tmp_path / "x/table.csv").read_text() == table
    run(*base, "--keep", "0.5,0.25")
    added = records()[len(before) :]
    # One more keep of grid_pooling and of two seeds of random_selection; 200 images are one shard.
    assert sorted(record["kind"] for record in added) == ["accuracy"] * 3 + ["macs"] * 2
    run(*base, "--fresh")
    assert len(records()) == len(before)


def test_json_output_is_only_json(run: Run) -> None:
    code, out, err = run(*QUICK, "--only", "macs", "--out", "x", "--json")
    rows = json.loads(out)
    assert (code, err) == (0, "")
    assert [row["method"] for row in rows] == ["none", "grid_pooling", "random_selection", "random_selection"]


def test_plan_shows_cells_and_time_and_writes_nothing(run: Run, tmp_path: Path) -> None:
    code, out, _ = run(*QUICK, "--plan")
    assert code == 0
    assert "4 cells, about 0:00:" in out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("methods", "token_pooling"),
        ("models", "deit_small_patch16_224"),
        ("suites", "embedded"),
        ("schedules", "every_block"),
    ],
)
def test_lists_are_json_arrays(run: Run, what: str, name: str) -> None:
    code, out, _ = run("list", what, "--json")
    assert code == 0
    assert name in [item["name"] for item in json.loads(out)]


@pytest.fixture
def wrong_files(tmp_path: Path) -> Path:
    """Files and folders for wrong commands."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("hello")
    (tmp_path / "key.toml").write_text("[suites.embedded]\nkeeep = [0.5]\n")
    (tmp_path / "type.toml").write_text("[suites.embedded]\nkeep = 'much'\n")
    (tmp_path / "table.toml").write_text("suits = 3\n")
    (tmp_path / "syntax.toml").write_text("[suites\n")
    (tmp_path / "method.toml").write_text("[methods.token_poling]\niterations = 3\n")
    (tmp_path / "parameter.toml").write_text("[methods.token_pooling]\niteratons = 3\n")
    save_file({"nonsense": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    return tmp_path


MISTAKES = {
    "compare embeded": "did you mean 'embedded'",
    "compare --methods random_selektion": "did you mean 'random_selection'",
    "compare --methods random_selection(": "expected name or name(parameter=value",
    "compare --methods random_selection(3)": "name its parameters",
    "compare --methods score_pruning(scores=cls)": "its parameters are score",
    "compare --methods score_pruning(score=clss)": "'received' or 'cls'",
    "compare --methods token_pooling(iterations=0)": "at least 1",
    "compare --models deit_tiny_patch16_244 --data .": "did you mean 'deit_tiny_patch16_224'",
    "compare --models resnet18 --data empty": "empty",
    "compare --models resnet18 --only macs": "not a timm VisionTransformer",
    "compare --models deit_tiny_patch16_224": "goes with --data embedded",
    "compare imagenet": "name them with --data",
    "compare imagenet --data nowhere": "nowhere does not exist",
    "compare imagenet --data empty": "has no images",
    "compare imagenet --data file": "cannot be read as a tar",
    "compare latency --models deit_tiny_patch16_224 --weights nothing.pth": "no weights at nothing.pth",
    "compare latency --models deit_tiny_patch16_224 --weights file": "cannot be read as weights",
    "compare latency --models deit_tiny_patch16_224 --weights wrong.safetensors": "unexpected nonsense",
    "compare latency --weights wrong.safetensors": "one model's",
    "compare imagenet --data . --weights random": "have learnt nothing",
    "compare --device cuda:99": "--device cpu",
    "compare --device toaster": "auto, cpu, cuda",
    "compare --dtype fp8": "'fp32', 'bf16' or 'fp16'",
    "compare --keep 0": "greater than 0",
    "compare --keep 1.5": "less than or equal to 1",
    "compare --keep much": "valid number",
    "compare --keep ,": "at least 1 item",
    "compare --seeds a": "valid integer",
    "compare --batch-size 0": "greater than 0",
    "compare --limit 0": "greater than or equal to 1",
    "compare --limit many": "--limit",
    "compare --only macs,weight": "'macs', 'latency' or 'accuracy'",
    "compare --at 3,99": "depth 99 is outside",
    "compare --at 9,3": "ascending",
    "compare --at 3 --schedule every_block": "one of the two",
    "compare --at 3,x": "expected depths, as in --at 3,6,9",
    "compare --schedule stage": "did you mean 'stages'",
    "compare --schedule stages(at=3,6,9)": "join numbers by hyphens, as in stages(at=3-6-9)\n",
    "compare --schedule stages(at=[3,6,9],keep=0.5)": "as in stages(at=3-6-9,keep=0.5)\n",
    "compare --schedule explicit(counts=98,49,at=3-6)": "as in explicit(counts=98-49,at=3-6)\n",
    "compare --keep '0.7 0.5'": "separate items by commas, as in --keep 0.7,0.5\n",
    "compare --methods 'tome evit'": "as in --methods tome,evit\n",
    "compare --part 1/2 --ray local": "--part is for independent machines",
    "compare --schedule every_block(r=3) --keep 0.5": "drop --keep",
    "compare --site nowhere": "'before_block'",
    "compare --methods score_pruning --site before_block --at 0": "depth 0 has none",
    "compare --plugins nowhere.py": "no plugin at nowhere.py",
    "compare --config nowhere.toml": "no config file",
    "compare --config key.toml": "did you mean 'keep'",
    "compare --config type.toml": "keep",
    "compare --config table.toml": "did you mean 'suites'",
    "compare --config syntax.toml": "not valid TOML",
    "compare --config method.toml": "did you mean 'token_pooling'",
    "compare --config parameter.toml": "its parameters are",
    "compare --limit 10 --only macs --out file/x": "--out",
    "compare --bogus": "--bogus",
    "compair": "compair",
    "list everything": "methods",
    "list models --claims": "tokbench list claims",
    "list methods --methods tome": "tokbench list claims --methods tome",
    "list claims --methods tone": "did you mean 'tome'",
    "list claims --models DeiTS": "did you mean 'DeiT-S'",
}


@pytest.mark.parametrize("command", MISTAKES)
def test_user_errors_are_one_line_with_exit_code_2(run: Run, wrong_files: Path, command: str) -> None:
    code, out, err = run(*shlex.split(command))
    assert code == 2, err
    assert out == ""
    assert err.startswith("tokbench: ")
    assert err.count("\n") == 1
    assert MISTAKES[command] in err


BROKEN_METHODS = '''
import torch
from tokbench import Context, Downsampler, Tokens, register


@register("raises")
class Raises(Downsampler):
    """Raises."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        raise RuntimeError("out of ideas [/] <script>")


@register("nan")
class NotANumber(Downsampler):
    """Returns NaN."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.select(torch.arange(keep).expand(len(tokens.x), keep))
        return kept.replace(patches=kept.patches * torch.nan)


@register("shape")
class WrongShape(Downsampler):
    """Returns a tensor."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        return tokens.x[:, :keep]


@register("count")
class WrongCount(Downsampler):
    """Leaves one too many."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        return tokens.select(torch.arange(keep + 1).expand(len(tokens.x), keep + 1))


@register("setup")
class BadSetup(Downsampler):
    """Cannot be put into a model."""

    def setup(self, geometry):
        raise KeyError("layer 7")

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        return tokens
'''


def test_a_broken_method_fails_only_its_own_rows(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(BROKEN_METHODS)
    (tmp_path / "worse.py").write_text("import nothing_of_this_name\n")
    methods = "raises,nan,shape,count,setup,grid_pooling"
    code, out, err = run(
        "compare", "--limit", "100", "--keep", "0.5", "--methods", methods, "--plugins", "mine.py,worse.py",
        "--only", "macs,accuracy", "--out", "x",
    )  # fmt: skip
    assert code == 1
    assert "worse.py: ModuleNotFoundError" in err
    table = pd.read_parquet(tmp_path / "x/table.parquet").set_index("method")
    assert table["status"].to_dict() == dict.fromkeys(methods.split(",")[:5], "failed") | {
        "none": "ok",
        "grid_pooling": "ok",
    }
    assert "out of ideas [/] <script> (mine.py:11)" in table.loc["raises", "reason"]
    assert "not finite" in table.loc["nan", "reason"]
    assert "expected Tokens" in table.loc["shape", "reason"]
    assert "returned 33 patch tokens, count() says 32" in table.loc["count", "reason"]
    assert "layer 7" in table.loc["setup", "reason"]
    assert table.loc[["none", "grid_pooling"], ["gmacs", "top1"]].notna().all().all()
    assert "out of ideas [/] <script>" in out


def test_a_killed_and_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    command = [
        *TOKBENCH, "compare", "--limit", "800", "--keep", "0.5,0.25", "--seeds", "0,1",
        "--methods", "grid_pooling,random_selection,score_pruning", "--only", "macs,accuracy",
    ]  # fmt: skip
    subprocess.run([*command, "--out", "whole"], cwd=tmp_path, check=True, capture_output=True)
    records = tmp_path / "killed/records.jsonl"
    with subprocess.Popen([*command, "--out", "killed"], cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and (not records.exists() or records.read_bytes().count(b'"accuracy"') < 4):
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    kept = records.read_bytes()
    finished = kept[: kept.rfind(b"\n") + 1]
    assert not (tmp_path / "killed/table.parquet").exists()
    subprocess.run([*command, "--out", "killed"], cwd=tmp_path, check=True, capture_output=True)
    lines = records.read_bytes()
    assert lines.startswith(finished)
    keys = [(record["kind"], record["key"]) for record in map(json.loads, lines.splitlines())]
    assert len(keys) == len(set(keys))
    whole = [json.loads(line) for line in (tmp_path / "whole/records.jsonl").read_text().splitlines()]
    assert sorted(keys) == sorted((record["kind"], record["key"]) for record in whole)
    for name in ("table.csv", "correctness.parquet"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


def test_ctrl_c_says_how_to_resume(tmp_path: Path) -> None:
    command = [*TOKBENCH, "compare", "--methods", "random_selection", "--out", "x"]
    records = tmp_path / "x/records.jsonl"
    # If the tests run in the background, they ignore SIGINT, and the child process would too.
    default_sigint = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=tmp_path, stderr=pipe, text=True, preexec_fn=default_sigint) as process:
        while process.poll() is None and (not records.exists() or records.stat().st_size == 0):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip().splitlines()[-1].startswith("tokbench: stopped; finished measurements are kept")
    assert "Traceback" not in err


def test_help_does_not_import_torch(tmp_path: Path) -> None:
    program = "import sys, tokbench.cli; print('torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert printed.stdout == "False\n"
    shown = subprocess.run([*TOKBENCH, "compare", "--help"], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert "Example:" in shown.stdout


def test_an_ascii_pipe_gets_the_table(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "80"}
    command = [*TOKBENCH, *QUICK, "--only", "macs,accuracy", "--out", "x"]
    printed = subprocess.run(command, capture_output=True, check=True, cwd=tmp_path, env=environment)
    lines = printed.stdout.decode("ascii").splitlines()
    assert any("random_selection" in line for line in lines)
    assert max(map(len, lines)) <= 80


def test_the_users_config_is_merged_over_the_packaged_one(run: Run, tmp_path: Path) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods/first_tokens.py").write_text(
        "import torch\nfrom tokbench import Downsampler, register\n\n\n"
        '@register("first_tokens")\nclass FirstTokens(Downsampler):\n    """Keep the first ones."""\n\n'
        "    def forward(self, tokens, keep, context):\n"
        "        return tokens.select(torch.arange(keep).expand(len(tokens.x), keep))\n"
    )
    (tmp_path / "tokbench.toml").write_text(
        '[plugins]\npaths = ["methods"]\n\n[methods.score_pruning]\nscore = "cls"\n\n'
        '[suites.mine]\nmodels = ["digits_deit"]\ndata = "embedded"\nlimit = 50\nkeep = [0.5]\n'
        'only = ["macs"]\nmethods = ["first_tokens", "score_pruning"]\n'
    )
    code, out, _ = run("compare", "mine", "--json")
    assert code == 0
    rows = {row["method"]: row for row in json.loads(out)}
    assert set(rows) == {"none", "first_tokens", "score_pruning"}
    assert rows["score_pruning"]["params"] == "score=cls"
    assert (tmp_path / "results/mine/table.parquet").exists()
