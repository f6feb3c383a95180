"""Accuracy, analyses and counts are the same on the simulated GPU as on a CPU."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tokbench import DownsampledViT, Schedule, create
from tokbench.conformance.simulated_gpu import simulated_gpu
from tokbench.data.loading import Batch
from tokbench.data.preprocessing import Preprocessing
from tokbench.measure.answers import evaluate
from tokbench.measure.ledger import count_tokens
from tokbench.measure.redundancy import Reconstruction, Spectra, measure_reconstruction, measure_spectra
from tokbench.measure.shared_blocks import SharedBlocks

PIXELS = torch.randint(0, 256, (6, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
BATCHES = [Batch(PIXELS[i : i + 3], torch.arange(i, i + 3), torch.arange(i, i + 3)) for i in (0, 3)]
IDS = torch.arange(6)
PREPROCESSING = Preprocessing(lambda image: torch.empty(0), (3, 32, 32), (0.5,) * 3, (0.2,) * 3, "")
PROGRAM = Path(__file__).parents[2] / "benchmarks" / "kernel_launches.py"
SCHEDULE = Schedule.stages(0.6, (1, 2))

MakeVit = Callable[..., Any]


def on_both(measure: Callable[[Any], Any], vit: nn.Module) -> tuple[Any, Any]:
    """What a measurement finds for a model on the CPU and on the simulated GPU."""
    with simulated_gpu() as gpu:
        return measure(vit), measure(gpu.to_gpu(vit))


def model_of(vit: Any, name: str) -> DownsampledViT:
    return DownsampledViT(vit, create(name), SCHEDULE).eval()


@pytest.mark.parametrize("room", [2**20, 0], ids=["held", "computed each time"])
def test_each_image_has_the_same_outcome(room: int, tiny_vit: MakeVit):
    def outcomes(vit: Any) -> list[str]:
        plain = DownsampledViT(vit).eval()
        shared = SharedBlocks(plain, IDS, PREPROCESSING, room)
        for batch in BATCHES:
            shared.add(batch)
        models = (model_of(vit, "tome"), model_of(vit, "random_selection"), plain)
        return [evaluate(model, shared, range(6), None).outcomes for model in models]

    on_cpu, on_gpu = on_both(outcomes, tiny_vit(patch_size=4))
    assert on_gpu == on_cpu
    assert len(set(on_cpu)) > 1  # the outcomes depend on the method


def inputs(vit: Any) -> list[Batch]:
    """The batches as a model's input, on its device."""
    weight: Tensor = vit.patch_embed.proj.weight
    return [Batch(PREPROCESSING.normalise(batch.images, weight), batch.index, batch.labels) for batch in BATCHES]


def test_the_reconstruction_error_is_the_same(tiny_vit: MakeVit):
    def stages(vit: Any) -> tuple[Reconstruction, ...]:
        return measure_reconstruction(vit, create("tome"), SCHEDULE, inputs(vit), IDS)

    on_cpu, on_gpu = on_both(stages, tiny_vit(patch_size=4))
    assert [stage.tokens for stage in on_gpu] == [stage.tokens for stage in on_cpu]
    assert [stage.error for stage in on_gpu] == pytest.approx([stage.error for stage in on_cpu])


def test_the_spectra_are_the_same(tiny_vit: MakeVit):
    def spectra(vit: Any) -> Spectra:
        return measure_spectra(vit, inputs(vit))

    on_cpu, on_gpu = on_both(spectra, tiny_vit(patch_size=4))
    assert sum(on_gpu.after, ()) == pytest.approx(sum(on_cpu.after, ()))
    assert sum(on_gpu.before, ()) == pytest.approx(sum(on_cpu.before, ()))


@pytest.mark.parametrize("name", ["tome", "ats"])
def test_the_token_counts_are_the_same(name: str, tiny_vit: MakeVit):
    def ledger(vit: Any) -> Any:
        return count_tokens(model_of(vit, name), PREPROCESSING.normalise(PIXELS, vit.patch_embed.proj.weight))

    on_cpu, on_gpu = on_both(ledger, tiny_vit(patch_size=4))
    assert on_gpu == on_cpu


def test_a_plain_vit_launches_ten_kernels_a_block(tiny_vit: MakeVit):
    # Two norms, qkv, attention, a projection, two layers of the MLP, GELU and two sums; around the blocks the patch
    # embedding, the class token, positions, norm and head.
    program, images = runpy.run_path(str(PROGRAM)), torch.zeros(1, 3, 32, 32)
    for depth in (1, 4):
        vit = tiny_vit(depth=depth)
        assert program["count_launches"](vit, images).total() == 10 * depth + 5


def test_the_program_prints_a_line_per_method(capsys: pytest.CaptureFixture[str]):
    runpy.run_path(str(PROGRAM))["main"](["score_pruning", "tome"])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()[-4:]]
    assert [line[:3] for line in lines[:2]] == [["timm", "125", "1.00"], ["none", "128", "1.02"]]
    assert [line[0] for line in lines[2:]] == ["score_pruning", "tome"]
    assert 128 < int(lines[2][1]) < int(lines[3][1])
