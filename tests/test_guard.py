"""What a method changes is found by name and put back."""

import builtins
import copy
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm.layers.mlp
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from tokbench.guard import MethodChangedError, Surroundings, Untouched, check_unchanged

IMAGES = torch.linspace(-1, 1, 2 * 3 * 32 * 32).view(2, 3, 32, 32)


def patch(owner: Any, name: str) -> None:
    setattr(owner, name, lambda *given, **named: None)


PROCESS: dict[str, Callable[[], object]] = {
    "timm.layers.mlp.Mlp.forward": lambda: patch(timm.layers.mlp.Mlp, "forward"),
    "torch.Tensor.topk": lambda: patch(torch.Tensor, "topk"),
    "torch.nn.functional.softmax": lambda: patch(torch.nn.functional, "softmax"),
    "torch.topk": lambda: patch(torch, "topk"),
    "time.perf_counter": lambda: patch(__import__("time"), "perf_counter"),
    "tokbench.tokens.Tokens.select": lambda: patch(__import__("tokbench").Tokens, "select"),
    "torch's default dtype": lambda: torch.set_default_dtype(torch.float64),
    "torch's default device": lambda: torch.set_default_device("meta"),
    "the number of threads": lambda: torch.set_num_threads(2),
    "gradient mode": lambda: torch.set_grad_enabled(False),
    "deterministic algorithms": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "the precision of matrix products": lambda: torch.set_float32_matmul_precision("medium"),
    "the working directory": lambda: os.chdir("/"),
    "the import path": lambda: sys.path.clear(),
    "hooks of all modules": lambda: nn.modules.module.register_module_forward_hook(lambda module, given, out: out * 2),
    "builtins.open": lambda: patch(builtins, "open"),
    "signal handlers": lambda: signal.signal(signal.SIGALRM, signal.SIG_DFL),
}


@pytest.mark.parametrize("what", PROCESS)
def test_a_change_of_the_process_is_named_and_undone(what: str) -> None:
    folder, old = Path.cwd(), signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        before = Surroundings()
        PROCESS[what]()
        assert before.restore() == [what]
        assert before.restore() == []
        assert Path.cwd() == folder
        assert torch.softmax(torch.zeros(2), 0).tolist() == [0.5, 0.5]
        assert torch.zeros(2, 3).topk(2).indices.shape == (2, 2)
    finally:
        signal.signal(signal.SIGALRM, old)


def test_the_code_of_a_function_counts_too() -> None:
    before = Surroundings()
    original = timm.layers.mlp.Mlp.forward.__code__
    timm.layers.mlp.Mlp.forward.__code__ = (lambda self, x: x).__code__
    assert before.restore() == ["timm.layers.mlp.Mlp.forward"]
    assert timm.layers.mlp.Mlp.forward.__code__ is original


MODEL: dict[str, Callable[[VisionTransformer], object]] = {
    "blocks.0.mlp.fc1.weight": lambda vit: vit.blocks[0].mlp.fc1.weight.data.mul_(2),
    "cls_token": lambda vit: vit.cls_token.data.numpy().fill(0),
    "head.weight": lambda vit: vit.head.weight.data.copy_(vit.head.weight.data.flip(0)),  # the same values elsewhere
    "norm.parameters": lambda vit: setattr(vit.norm, "weight", nn.Parameter(torch.zeros_like(vit.norm.weight))),
    "blocks.modules": lambda vit: vit.blocks.__setitem__(0, nn.Identity()),
    "blocks.1.forward_hooks": lambda vit: vit.blocks[1].register_forward_hook(lambda module, given, out: out * 0),
    "blocks.0.attn.forward": lambda vit: setattr(vit.blocks[0].attn, "forward", lambda x, **named: x),
    "blocks.0.attn.scale": lambda vit: setattr(vit.blocks[0].attn, "scale", 3.0),
}


@pytest.mark.parametrize("what", MODEL)
def test_a_change_of_the_model_is_named_and_undone(tiny_vit: Callable[..., VisionTransformer], what: str) -> None:
    vit = tiny_vit().eval()
    answers, weights = vit(IMAGES), copy.deepcopy(vit.state_dict())
    before = Untouched(vit)
    MODEL[what](vit)
    assert before.restore() == [f"{what} of the plain model"]
    assert torch.equal(vit(IMAGES), answers)
    assert all(torch.equal(value, weights[name]) for name, value in vit.state_dict().items())
    assert before.answers_as_before()


def test_a_run_of_the_model_changes_nothing(tiny_vit: Callable[..., VisionTransformer]) -> None:
    vit = tiny_vit().eval()
    surroundings, model = Surroundings(), Untouched(vit)
    vit(IMAGES).sum().backward()
    vit.zero_grad()
    torch.manual_seed(3)
    check_unchanged(surroundings, [model])


def test_what_cannot_be_put_back_is_said(tiny_vit: Callable[..., VisionTransformer]) -> None:
    vit = tiny_vit().eval()
    snapshots = Surroundings(), [Untouched(vit)]
    library = torch.library.Library("aten", "IMPL")
    library.impl("gelu", lambda x, approximate="none": x * 0, "CPU")
    try:
        with pytest.raises(MethodChangedError, match="what the plain model computes") as caught:
            check_unchanged(*snapshots)
        assert not caught.value.restored
    finally:
        library._destroy()
