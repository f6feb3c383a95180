"""Triton's kernels compile for each kind of GPU, and their tiles fit into its shared memory; no GPU is needed."""

import itertools
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tokbench.conformance.simulated_gpu import simulated_gpu
from tokbench.vit.attention import WIDEST, _kernel_runs

NEEDS_TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="Triton comes with torch's CUDA builds only")
TYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}

# Bytes of shared memory that one program may use, by architecture (CUDA's and AMD's guides).
SHARED: dict[int | str, int] = {80: 166_912, 86: 101_376, 89: 101_376, 90: 232_448, "gfx942": 65_536}


def compiled(name: str, dtype: torch.dtype, architecture: int | str) -> Any:
    """One kernel for the widest heads, biased and padded, with aligned pointers and strides as in a model."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from tokbench.vit import kernels

    kernel = getattr(kernels, name)
    pointers = dict.fromkeys(("q", "k", "bias"), f"*{TYPES[dtype]}") | {"lse": "*fp32", "sums": "*fp32", "valid": "*i1"}
    constants = {"BLOCK": kernels.BLOCK, "WIDTH": triton.next_power_of_2(WIDEST[dtype])}
    types = {**pointers, "scale": "fp32", **dict.fromkeys(constants, "constexpr")}
    signature = {argument: types.get(argument, "i32") for argument in kernel.arg_names}
    multiples = ("width", "q_b", "q_h", "q_n", "k_b", "k_h", "k_n")  # of 16
    aligned = [place for place, one in enumerate(signature) if one in pointers or one in multiples]
    source = ASTSource(kernel, signature, constants, {(place,): [["tt.divisibility", 16]] for place in aligned})
    if isinstance(architecture, str):
        return triton.compile(source, target=GPUTarget("hip", architecture, 64))
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32))


@NEEDS_TRITON
@pytest.mark.parametrize(
    ("dtype", "architecture"),
    list(itertools.product(WIDEST, SHARED)),
    ids=lambda value: TYPES.get(value) or (f"sm_{value}" if isinstance(value, int) else value),
)
def test_the_kernels_compile_and_fit(
    dtype: torch.dtype, architecture: int | str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    for name in ("_log_sum_exps", "_column_sums"):
        made = compiled(name, dtype, architecture)
        assert {"cubin", "hsaco"} & set(made.asm)
        assert 0 < made.metadata.shared <= SHARED[architecture]


@pytest.mark.parametrize(
    ("dtype", "width", "used"),
    [
        *[(dtype, widest, True) for dtype, widest in WIDEST.items()],
        *[(dtype, widest + 1, False) for dtype, widest in WIDEST.items()],
        (torch.float64, 64, False),
    ],
)
def test_wider_heads_take_the_plain_version(
    dtype: torch.dtype, width: int, used: bool, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr("tokbench.vit.attention._has_triton", lambda: True)
    with simulated_gpu() as gpu:
        q: Tensor = gpu.to_gpu(torch.zeros(1, 2, 3, width, dtype=dtype))
        assert _kernel_runs(q) is used
    assert _kernel_runs(torch.zeros(1, 2, 3, width, dtype=dtype)) is False
