"""Templates for a new method: a file that passes all checks, and its test."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from tokbench import registry
from tokbench.downsampler import Downsampler
from tokbench.errors import UserError
from tokbench.files import write_atomically
from tokbench.names import Site

Family = Literal["select", "merge", "pool"]

_HEAD = '''"""{title}: in a few lines, the method's mathematics and where it comes from."""

{imports}

@register("{name}")
class {cls}(Downsampler):
    """{about}"""
{site}
'''

_ABOUT: dict[Family, str] = {
    "select": "Keep the tokens of the largest norm.",
    "merge": "Merge each token into the most similar of the K largest.",
    "pool": "Assign each token softly to K slots; each slot becomes a weighted mean.",
}

_IMPORTS: dict[Family, str] = {
    "select": "from tokbench import Context, Downsampler, Tokens, register\n",
    "merge": "import torch\nfrom torch.nn import functional as F\n\n"
    "from tokbench import Context, Downsampler, Tokens, register\n",
    "pool": "import torch\nfrom torch.nn import functional as F\n\n"
    "from tokbench import Context, Downsampler, Tokens, register\n",
}

_BODY: dict[Family, str] = {
    "select": """\
    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        norm = tokens.patches.float().norm(dim=2)  # (B, N), in float32: a sum of squares overflows half precision
        return tokens.select(norm.topk(keep).indices.sort().values)
""",
    "merge": """\
    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        x = tokens.patches.float()  # (B, N, D), in float32: sums of squares overflow half precision
        kept = x.norm(dim=2).topk(keep).indices.sort().values  # (B, K)
        direction = F.normalize(x, dim=2)
        centres = direction.gather(1, kept[..., None].expand(-1, -1, x.shape[2]))
        owner = (direction @ centres.mT).argmax(dim=2)  # (B, N), the group of each token
        # A kept token stays in its own group even if another one is equal, so that no group is empty.
        owner = owner.scatter(1, kept, torch.arange(keep, device=x.device).expand_as(kept))
        return tokens.merge(owner, keep)
""",
    "pool": '''\
    def __init__(self, temperature: float = 0.1) -> None:
        """Choose the sharpness.

        Args:
            temperature: Temperature of the softmax; the lower, the harder the assignment.
        """
        super().__init__()
        self.temperature = temperature

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        x = F.normalize(tokens.patches.float(), dim=2)
        seeds = x[:, torch.arange(keep, device=x.device) * tokens.n_patches // keep]  # (B, K, D), evenly spread
        share = (seeds @ x.mT / self.temperature).softmax(dim=1)  # (B, K, N), sums to 1 over K
        mass = share * tokens.size[:, None]
        size = mass.sum(dim=2)
        return tokens.mix(mass / size[..., None]).replace(size=size)
''',
}

_TEST = '''"""Tests of {name}: tokbench's conformance checks, and an example with a known result."""

from pathlib import Path

import torch

from tokbench import Context, Tokens
from tokbench.conformance import failures
from {name} import {cls}


def test_conformance() -> None:
    assert failures(Path(__file__).with_name("{name}.py")) == []


def test_example() -> None:
    x = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 3.0], [4.0, 0.0], [0.0, 2.0]]])  # a class token and 4 patches
    tokens = Tokens.from_sequence(x, grid=(2, 2))
    # Pass every field that the method declares in needs, for example values=torch.rand(1, 2, 4, 2), (B, H, N, Dh).
    context = Context(depth=3, depths=(3,), stage=0, noise=torch.rand(1, 4))
    after = {cls}()(tokens, 2, context)
{expected}
'''

_EXPECTED: dict[Family, str] = {
    "select": """\
    assert after.owner.tolist() == [[-1, 0, 1, -1]]  # patches 1 and 2 are the largest
    assert after.patches.tolist() == [[[0.0, 3.0], [4.0, 0.0]]]""",
    "merge": """\
    assert after.owner.tolist() == [[1, 0, 1, 0]]  # each with the one of the same direction
    assert after.patches.tolist() == [[[0.0, 2.5], [2.5, 0.0]]]""",
    "pool": """\
    assert after.patches.shape == (1, 2, 2)
    assert torch.allclose(after.size.sum(dim=1), torch.tensor([4.0]))  # no patch is lost""",
}


def write_method(
    name: str, family: Family, site: Site, folder: Path, plugins: Iterable[Path] = ()
) -> tuple[Path, Path]:
    """Write `name.py` and `test_name.py`.

    Args:
        name: The name of the method and of its file.
        family: How the method reduces tokens: by selecting, merging or soft pooling.
        site: Where in a block it acts.
        folder: The folder to write to; created if it does not exist.
        plugins: Files and folders with the user's other methods, whose names are taken.

    Returns:
        The two files.

    Raises:
        UserError: The name is invalid or taken, a file exists already, or the folder is not writable.
    """
    _check_name(name, plugins)
    method, test = folder / f"{name}.py", folder / f"test_{name}.py"
    for path in (method, test):
        if path.exists():
            raise UserError(f"{path} exists: choose another name, or another folder with --out")
    cls = "".join(part.capitalize() for part in name.split("_"))
    declared = "" if site == Downsampler.site else f'\n    site = "{site}"\n'
    title = name.replace("_", " ").capitalize()
    head = _HEAD.format(title=title, name=name, cls=cls, site=declared, about=_ABOUT[family], imports=_IMPORTS[family])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(method, lambda path: path.write_text(head + _BODY[family], encoding="utf-8"))
        text = _TEST.format(name=name, cls=cls, expected=_EXPECTED[family])
        write_atomically(test, lambda path: path.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise UserError(f"cannot write to {folder}: {error.strerror}; name another folder with --out") from None
    return method, test


def _check_name(name: str, plugins: Iterable[Path]) -> None:
    problem = registry.name_problem(name)
    if problem or name.startswith("_"):
        raise UserError(f"invalid method name '{name}': {problem or 'use a Python identifier such as my_method'}")
    known, _ = registry.discover(plugins)
    if name in known:
        raise UserError(f"the method name '{name}' is taken by {registry.source_file(known[name])}: choose another")
    if importlib.util.find_spec(name) is not None:
        raise UserError(f"'{name}' is an installed Python module, which the file would hide: choose another")
