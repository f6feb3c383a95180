"""Parameters of many types through the whole program: command line, toml, table, plan, keys and listing."""

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

Run = Callable[..., tuple[int, str, str]]

PLUGIN = '''
from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tokbench import Context, Downsampler, Tokens, register

if TYPE_CHECKING:
    from collections.abc import Sequence


class How(Enum):
    BEST = "best"
    WORST = "worst"


@register("typed")
class Typed(Downsampler):
    """Keep the tokens of the largest norm."""

    def __init__(
        self,
        at: list[int] = [6, 3],
        file: Path = Path("/tmp/a,b.pt"),
        how: How = How.BEST,
        limit: float = float("inf"),
        names: set[str] = {"b", "a", "c", "none"},
        sizes: dict[str, int] = {"q": 1},
        steps: Sequence[int] = (1, 2),
        seed: int | None = None,
    ) -> None:
        """Set them.

        Args:
            at: A list.
            file: A path.
            how: An Enum.
            limit: A number that JSON does not have.
            names: A set.
            sizes: A dict.
            steps: Only type checkers know what it is.
            seed: A number or none.
        """
        super().__init__()
        types = [type(one) for one in (at, how, limit, names, sizes, steps)]
        if types != [list, How, float, set, dict, tuple] or not isinstance(file, Path):
            raise ValueError(f"not as annotated: {types}")

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        return tokens.select(tokens.patches.float().norm(dim=2).topk(keep).indices.sort().values)
'''
ONLY = ("--keep", "0.5", "--only", "macs", "--plugins", "typed.py", "--out", "x")
DEFAULTS = "at=[6,3],file='/tmp/a,b.pt',how=BEST,limit=inf,names={'none',a,b,c},seed=None,sizes={q:1},steps=[1,2]"


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    file = tmp_path / "typed.py"
    file.write_text(PLUGIN)
    return file


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise ValueError(f"not JSON: {constant}")

    return json.loads(text, parse_constant=refuse)


def test_they_are_measured_and_the_table_says_how_to_measure_them_again(run: Run, plugin: Path, tmp_path: Path) -> None:
    (tmp_path / "tokbench.toml").write_text('[methods.typed]\nnames = ["z"]\nsizes = { k = 2 }\nat = [9]\n')
    written = "typed(at=(3,),file='c,d.pt',how=worst,limit=2,seed=7,steps=[])"
    code, _, err = run("compare", *ONLY, "--methods", f"typed,{written}")
    assert code == 0, err
    table = pd.read_parquet(tmp_path / "x/table.parquet").set_index("method")
    assert list(table.loc["typed", "params"]) == [
        "at=[9],file='/tmp/a,b.pt',how=BEST,limit=inf,names={z},seed=None,sizes={k:2},steps=[1,2]",
        "at=[3],file='c,d.pt',how=WORST,limit=2.0,names={z},seed=7,sizes={k:2},steps=[]",
    ]
    (tmp_path / "tokbench.toml").unlink()
    again = [f"typed({params})" for params in table.loc["typed", "params"]]
    code, out, err = run("compare", *ONLY, "--methods", ",".join(again), "--json")
    assert code == 0
    rows = {row["params"]: row["gmacs"] for row in strict(out)}
    assert rows == dict(zip(table["params"], table["gmacs"], strict=True))


def test_a_parameter_that_cannot_be_one_is_one_line(run: Run, plugin: Path, tmp_path: Path) -> None:
    plugin.write_text(PLUGIN.replace("seed: int | None = None", "seed: torch.Tensor = torch.zeros(1)"))
    code, out, err = run("compare", *ONLY, "--methods", "typed,tome")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "method 'typed': seed cannot be a parameter: Tensor" in err
    code, out, err = run("verify", "typed.py")
    assert code == 1
    assert "declares" in out
    assert "'seed'" in out
    code, out, err = run("list", "methods", "--json", "--plugins", "typed.py")
    assert code == 0
    assert next(one for one in strict(out) if one["name"] == "typed")["parameters"]["seed"] == "<Tensor>"


def test_they_are_listed_in_strict_json(run: Run, plugin: Path) -> None:
    code, out, _ = run("list", "methods", "--json", "--plugins", "typed.py")
    assert code == 0
    assert next(one for one in strict(out) if one["name"] == "typed")["parameters"] == {
        "at": [6, 3],
        "file": "/tmp/a,b.pt",
        "how": "BEST",
        "limit": "inf",
        "names": ["none", "a", "b", "c"],
        "sizes": {"q": 1},
        "steps": [1, 2],
        "seed": None,
    }


def test_they_pass_the_conformance_suite(run: Run, plugin: Path) -> None:
    code, out, _ = run("verify", "typed.py")
    assert code == 0, out


def test_keys_and_table_are_the_same_in_every_process(plugin: Path, tmp_path: Path) -> None:
    plans = []
    for seed in "12":
        command = "-m tokbench compare --methods typed --keep 0.5 --only macs --plugins typed.py --models digits_deit "
        command += f"--baselines none --out {seed}"
        subprocess.run(
            [sys.executable, *shlex.split(command)], cwd=tmp_path, check=True, capture_output=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )  # fmt: skip
        plans.append(strict((tmp_path / seed / "plan.json").read_text()))
    assert plans[0]["rows"] == plans[1]["rows"]
    assert (
        plans[0]["rows"][1]["params"]
        == DEFAULTS
        == ",".join(
            f"{name}={plans[0]['methods']['typed']['defaults'][name]}"
            for name in sorted(plans[0]["rows"][1]["parameters"])
        )
    )
