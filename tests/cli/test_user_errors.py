"""A mistake of the user is one line that names its cause and the fix."""

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

Run = Callable[..., tuple[int, str, str]]


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
    "compare --models resnet18 --only macs": "it is not a timm VisionTransformer",
    "compare --models deit_tiny_patch16_224": "go with --data embedded",
    "compare --models deit_tiny_patch16_224 --weights random --only macs": "in the suite latency, without data",
    "compare imagenet": "name them with --data",
    "compare imagenet --data nowhere": "nowhere does not exist",
    "compare imagenet --data empty": "has no images",
    "compare imagenet --data file": "cannot be read as a tar",
    "compare latency --models deit_tiny_patch16_224 --weights nothing.pth": "no weights at nothing.pth",
    "compare latency --models deit_tiny_patch16_224 --weights file": "cannot be read as weights",
    "compare latency --models deit_tiny_patch16_224 --weights wrong.safetensors": "unexpected nonsense",
    "compare latency --weights wrong.safetensors": "one model's",
    "compare imagenet --data . --weights random": "trained weights are needed to measure accuracy",
    "compare --device cuda:99": "--device cpu",
    "compare --device toaster": "auto, cpu, cuda",
    "compare --dtype fp8": "'fp32', 'bf16', 'fp16', 'amp-bf16' or 'amp-fp16'",
    "compare --keep 0": "greater than 0",
    "compare --keep 1.5": "less than or equal to 1",
    "compare --keep much": "valid number",
    "compare --keep ,": "at least 1 item",
    "compare --seeds a": "valid integer",
    "compare --batch-size 0": "greater than 0",
    "compare --limit 0": "greater than or equal to 1",
    "compare --limit many": "--limit",
    "compare --only macs,weight": "choose from macs, latency, throughput, memory, training, energy, accuracy",
    "compare --at 3,99": "depth 99 is outside",
    "compare --at 9,3": "ascending",
    "compare --at 3 --schedule every_block": "one of the two",
    "compare --at 3,x": "expected depths, as in --at 3,6,9",
    "compare --schedule stage": "did you mean 'stages'",
    "compare --schedule 'stages(at=3 6 9)'": "join numbers by hyphens, as in stages(at=3-6-9)\n",
    "compare --keep '0.7 0.5'": "separate items by commas, as in --keep 0.7,0.5\n",
    "compare --methods 'tome evit'": "as in --methods tome,evit\n",
    "compare --keep 0.7 0.5": "as in --keep 0.7,0.5\n",
    "compare --keep 0.7 0.5 0.3": "as in --keep 0.7,0.5,0.3\n",
    "compare --keep=0.7 0.5 --only macs": "as in --keep 0.7,0.5\n",
    "compare --methods tome evit": "unexpected 'evit' after --methods: separate items by commas",
    "compare --models digits_deit deit_tiny_patch16_224": "as in --models digits_deit,deit_tiny_patch16_224\n",
    "compare embedded --methods tome evit": "as in --methods tome,evit\n",
    "check --against HEAD --methods tome evit": "as in --methods tome,evit\n",
    "list claims --methods tome evit": "as in --methods tome,evit\n",
    "compare --keep 0.7 embeded": "unexpected 'embeded'",
    "compare --keep 0.7 embedded --device toaster": "auto, cpu, cuda",
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
    "compare --methods tome --only macs,accuracy --versus evti": "no method 'evti': known: none, tome",
    "compare --methods tome --only macs --versus tome": "this comparison has no accuracies",
    "compare --methods tome,evit --versus tome evit": "as in --versus tome,evit\n",
    "versus nowhere evit": "no results in nowhere",
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
