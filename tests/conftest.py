"""Fixtures shared by several test files."""

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from tokbench import registry
from tokbench.cli import main


def pytest_configure() -> None:
    """Let processes that tests start use one thread, like the tests themselves."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_finish() -> None:
    """Exclude imported modules from garbage collection; each timing collects, and takes half a second with them."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure() -> None:
    """Let the interpreter clean up as usual."""
    gc.unfreeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker("cuda") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Use one thread: for small tensors, more threads are slower, and they change the order of sums."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def isolated_registry() -> Iterator[None]:
    """Forget the methods that a test registers."""
    with registry.isolated():
        yield


@pytest.fixture(scope="session")
def shake() -> Callable[..., nn.Module]:
    """Add noise to every parameter: many start as 0, 1 or 1e-6, which could hide errors."""

    def shaken(model: nn.Module, std: float = 0.05, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=std)
        return model.eval()

    return shaken


@pytest.fixture(scope="session")
def tiny_vit(shake: Callable[..., nn.Module]) -> Callable[..., VisionTransformer]:
    """Make a ViT of 4 blocks and 16 patches with random parameters, the same for the same arguments."""

    def make(std: float = 0.2, **changes: Any) -> VisionTransformer:
        settings: dict[str, Any] = {
            "img_size": 32,
            "patch_size": 8,
            "embed_dim": 32,
            "depth": 4,
            "num_heads": 2,
            "num_classes": 10,
        }
        torch.manual_seed(0)
        return shake(VisionTransformer(**{**settings, **changes}), std)  # type: ignore[return-value]

    return make


@pytest.fixture(scope="session")
def run_interpreted() -> Callable[[str], str]:
    """Run a file in Triton's interpreter, and return what it prints. Triton reads that setting at import."""

    def run(file: str) -> str:
        done = subprocess.run(
            [sys.executable, file],
            env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command in an empty folder; returns its exit code and its output.

    `compare` measures no baselines, and on the digits one model, unless a test asks for more.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)  # the terminal width must not matter

    def ran(*arguments: str) -> tuple[int, str, str]:
        added = []
        if arguments[:1] == ("compare",):
            own_suite = len(arguments) > 1 and not arguments[1].startswith("--")
            given = {one.partition("=")[0] for one in arguments}
            added += [] if "--baselines" in given else ["--baselines=none"]
            added += [] if own_suite or "--models" in given else ["--models=digits_deit"]
        monkeypatch.setattr(sys, "argv", ["tokbench", *arguments, *added])
        with pytest.raises(SystemExit) as exit_:
            main()
        printed = capfd.readouterr()
        return int(exit_.value.code or 0), printed.out, printed.err

    return ran
