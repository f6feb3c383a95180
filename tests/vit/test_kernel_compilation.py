"""Triton's kernels compile for each kind of GPU, and their tiles fit into its shared memory; no GPU is needed."""

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


ARCHITECTURES = pytest.mark.parametrize(
    "architecture", SHARED, ids=lambda value: f"sm_{value}" if isinstance(value, int) else value
)
STRIDES = ("width", "q_b", "q_h", "q_n", "k_b", "k_h", "k_n", "stride_b", "stride_n")  # multiples of 16 in a model


def require_that_it_fits(
    kernel: Any, types: dict[str, str], constants: dict[str, Any], architecture: int | str
) -> None:
    """Compile a kernel with aligned pointers and strides; arguments without a type are int32."""
    from triton import compile as triton_compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {**types, **dict.fromkeys(constants, "constexpr")}
    signature = {argument: types.get(argument, "i32") for argument in kernel.arg_names}
    assert set(types) <= set(signature)
    aligned = [place for place, (one, kind) in enumerate(signature.items()) if kind[0] == "*" or one in STRIDES]
    source = ASTSource(kernel, signature, constants, {(place,): [["tt.divisibility", 16]] for place in aligned})
    amd = isinstance(architecture, str)
    made = triton_compile(source, target=GPUTarget("hip" if amd else "cuda", architecture, 64 if amd else 32))
    assert ("hsaco" if amd else "cubin") in made.asm
    assert made.metadata.shared <= SHARED[architecture]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@NEEDS_TRITON
@ARCHITECTURES
@pytest.mark.parametrize("dtype", WIDEST, ids=TYPES.get)
def test_the_attention_received_fits_for_the_widest_heads(dtype: torch.dtype, architecture: int | str):
    import triton

    from tokbench.vit import kernels

    constants = {"BLOCK": kernels.BLOCK, "WIDTH": triton.next_power_of_2(WIDEST[dtype])}
    given = {**dict.fromkeys(("q", "k", "bias"), f"*{TYPES[dtype]}"), "lse": "*fp32", "scale": "fp32"}
    require_that_it_fits(kernels._log_sum_exps, {**given, "valid": "*i1"}, constants, architecture)
    require_that_it_fits(kernels._column_sums, {**given, "sums": "*fp32"}, constants, architecture)


@NEEDS_TRITON
@ARCHITECTURES
@pytest.mark.parametrize("dtype", TYPES, ids=TYPES.get)
def test_sums_over_groups_fit(dtype: torch.dtype, architecture: int | str):
    from tokbench import group_kernel

    types = {**dict.fromkeys(("values", "sums"), f"*{TYPES[dtype]}"), "owner": "*i64"}
    constants = {"ROWS": group_kernel.ROWS, "WIDTH": group_kernel.WIDEST}
    require_that_it_fits(group_kernel._group_sums, types, constants, architecture)


@NEEDS_TRITON
@ARCHITECTURES
@pytest.mark.parametrize("seed", ["i32", "i64", "u64"])  # Triton takes the smallest type that holds the number
def test_random_numbers_fit_also_at_depth_one(seed: str, architecture: int | str):
    from tokbench.vit import noise_kernel

    types = {"image_ids": "*i64", "numbers": "*fp32", "seed_state": seed}
    block = {"BLOCK": noise_kernel.BLOCK}
    require_that_it_fits(noise_kernel._uniform, types, block, architecture)
    require_that_it_fits(noise_kernel._uniform, types, {**block, "depth": 1}, architecture)  # Triton makes 1 a constant


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
    monkeypatch.setattr("tokbench.vit.attention.has_triton", lambda: True)
    with simulated_gpu() as gpu:
        q: Tensor = gpu.to_gpu(torch.zeros(1, 2, 3, width, dtype=dtype))
        assert _kernel_runs(q) is used
    assert _kernel_runs(torch.zeros(1, 2, 3, width, dtype=dtype)) is False
