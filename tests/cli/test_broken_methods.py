"""A broken method fails its own rows and no others."""

from collections.abc import Callable
from pathlib import Path

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
