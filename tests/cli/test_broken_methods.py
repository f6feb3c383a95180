"""A broken method fails its own rows and no others, whatever it does to the process or to the other rows."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

Run = Callable[..., tuple[int, str, str]]

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
        "compare", "--limit", "40", "--keep", "0.5", "--methods", methods, "--plugins", "mine.py,worse.py",
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
    assert "returned Tensor, expected Tokens" in table.loc["shape", "reason"]
    assert "returned 33 patch tokens, count() says 32" in table.loc["count", "reason"]
    assert "layer 7" in table.loc["setup", "reason"]
    assert table.loc[["none", "grid_pooling"], ["gmacs", "top1"]].notna().all().all()
    assert "out of ideas [/] <script>" in out


HOSTILE_METHODS = '''
import gc, os, sys
import timm.layers.mlp
import torch
from timm.models.vision_transformer import VisionTransformer
from tokbench import Context, Downsampler, Tokens, register
from tokbench.errors import UserError


class Unspeakable(Exception):
    def __str__(self):
        raise ValueError


def raises(error):
    raise error


def fuse():
    for one in gc.get_objects():
        if type(one) is VisionTransformer:
            one.head.weight.data.zero_()


def patch():
    timm.layers.mlp.Mlp.forward = lambda self, x: x


def method(name, act, phase="forward"):
    def act_in(wanted):
        if wanted == phase:
            act()

    class Hostile(Downsampler):
        """Keeps the first."""

        def __init__(self) -> None:
            super().__init__()
            act_in("init")

        def setup(self, geometry):
            act_in("setup")

        def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
            act_in("forward")
            return tokens.select(torch.arange(keep).expand(len(tokens.x), keep))

    Hostile.__qualname__ = name
    register(name)(Hostile)


method("exits", lambda: sys.exit(0))
method("speechless", lambda: raises(Unspeakable()))
method("closes_generators", lambda: raises(GeneratorExit()))
method("user_error", lambda: raises(UserError("mine")))
method("moves", lambda: os.chdir("/"))
method("fuses", fuse)
method("fuses_in_setup", fuse, "setup")
method("patches", patch)
method("patches_in_init", patch, "init")
method("double", lambda: torch.set_default_dtype(torch.float64))
method("fails_in_init", lambda: raises(KeyError("layer 7")), "init")
'''

HOSTILE = {
    "exits": "SystemExit: 0",
    "speechless": "Unspeakable",
    "closes_generators": "GeneratorExit",
    "user_error": "UserError: mine",
    "moves": "changed the working directory",
    "fuses": "changed head.weight of the plain model",
    "fuses_in_setup": "changed head.weight of the plain model",
    "patches": "changed timm.layers.mlp.Mlp.forward",
    "patches_in_init": "changed timm.layers.mlp.Mlp.forward",
    "double": "changed torch's default dtype",
    "fails_in_init": "layer 7",
}

COMMAND = ["--limit", "40", "--keep", "0.5", "--only", "macs,accuracy", "--json"]


def rows(out: str) -> dict[str, Any]:
    return {row["method"]: row for row in json.loads(out)}


def test_nothing_a_method_does_reaches_the_other_rows(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HOSTILE_METHODS)
    _, out, _ = run("compare", "--methods", "grid_pooling", *COMMAND, "--out", "alone")
    alone = rows(out)
    methods = ",".join([*HOSTILE, "grid_pooling"])
    code, out, said = run("compare", "--methods", methods, *COMMAND, "--plugins", "mine.py", "--out", "together")
    assert code == 1, said
    together = rows(out)
    for method, reason in HOSTILE.items():
        assert (together[method]["status"], reason in together[method]["reason"]) == ("failed", True), together[method]
    for method, row in alone.items():
        assert {name: together[method][name] for name in row} == row
    before = (tmp_path / "together/records.jsonl").read_bytes()
    code, out, _ = run("compare", "--methods", "grid_pooling", *COMMAND, "--out", "together")
    assert (code, rows(out)) == (0, alone)
    assert (tmp_path / "together/records.jsonl").read_bytes() == before


def test_a_method_that_ends_the_process_is_named_and_not_tried_again_until_asked(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HOSTILE_METHODS + 'method("gone", lambda: os._exit(0))\n')
    command = [sys.executable, "-m", "tokbench", "compare", "--methods", "gone,grid_pooling", *COMMAND]
    command += ["--plugins", "mine.py", "--models", "digits_deit", "--baselines", "none", "--out", "x"]

    def started(*more: str) -> tuple[dict[str, Any], str]:
        done = subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        return rows(done.stdout), done.stderr

    first, printed = started()
    assert printed.startswith("tokbench: macs of gone at keep 0.5 in digits_deit")
    assert printed.count("ended the process with exit code 0") == printed.count("\n") == 1
    assert "ended the process with exit code 0; --retry tries it again" in first["gone"]["reason"]
    assert first["grid_pooling"]["status"] == first["none"]["status"] == "ok"
    second, printed = started()
    assert (second, printed) == (first, "")
    _, printed = started("--retry")
    assert printed.count("ended the process with exit code 0") == 1
