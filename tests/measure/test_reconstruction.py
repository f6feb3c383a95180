"""Reconstruction errors against the sum in the paper."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from noise_images import batches_of, noise
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tokbench import Context, DownsampledViT, Downsampler, Schedule, Tokens, create
from tokbench.downsampler import DownsamplerError
from tokbench.measure.redundancy import (
    measure_reconstruction,
    reconstruction_error,
)

MakeVit = Callable[..., VisionTransformer]


def error_by_loops(before: Tensor, after: Tensor) -> float:
    f, reduced = before.double().numpy(), after.double().numpy()
    loss = sum(min(float(((one - other) ** 2).sum()) for other in reduced) for one in f)
    return loss / sum(float(((one - f.mean(0)) ** 2).sum()) for one in f)


def test_error_is_the_sum_of_the_paper() -> None:
    before, after = noise(3, 9, 5), noise(3, 4, 5, seed=1)
    expected = [error_by_loops(*pair) for pair in zip(before, after, strict=True)]
    assert reconstruction_error(before, after) == pytest.approx(expected)


def test_padding_represents_no_token() -> None:
    before, after = noise(2, 9, 5), noise(2, 4, 5, seed=1)
    after[1, 2:] = before[1, :2]
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    expected = [error_by_loops(before[0], after[0]), error_by_loops(before[1], after[1, :2])]
    assert reconstruction_error(before, after, valid) == pytest.approx(expected)


def test_error_is_0_with_all_tokens_and_1_with_their_mean() -> None:
    before = noise(3, 12, 6)
    assert reconstruction_error(before, before.flip(1)) == pytest.approx(0, abs=1e-12)
    assert reconstruction_error(before, before.mean(1, keepdim=True)) == pytest.approx(1, rel=1e-6)


def test_error_is_invariant_to_scale_and_shift() -> None:
    before, after = noise(3, 12, 6), noise(3, 4, 6, seed=1)
    moved = reconstruction_error(1e3 * before + 40, 1e3 * after + 40)
    assert moved == pytest.approx(reconstruction_error(before, after), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("random_selection", {}),
        ("token_pooling", {"algorithm": "kmeans"}),
        ("grid_pooling", {}),
        ("evit", {}),
        ("tome", {}),
        ("ats", {}),
        ("dpc_knn", {}),
    ],
)
def test_each_depth_is_measured_independently_of_the_others(
    tiny_vit: MakeVit, name: str, params: dict[str, Any]
) -> None:
    vit, ids = tiny_vit(), torch.tensor([5, 3, 8, 1, 9, 2])
    stages = measure_reconstruction(
        vit, create(name, **params), Schedule.stages(0.5, (1, 3)), batches_of(6), ids, seed=4
    )
    assert [stage.depth for stage in stages] == [1, 3]
    for stage in stages:
        before: list[Tensor] = []
        after: list[Tensor] = []

        def note(
            module: torch.nn.Module,
            given: tuple[Tokens, int, Context],
            made: Tokens,
            before: list[Tensor] = before,
            after: list[Tensor] = after,
        ) -> None:
            before.extend(given[0].patches)
            valid = torch.ones_like(made.size, dtype=torch.bool) if made.valid is None else made.valid
            after.extend(patches[kept] for patches, kept in zip(made.patches, valid, strict=True))

        method = create(name, **params)
        method.register_forward_hook(note)
        model = DownsampledViT(vit, method, Schedule.explicit((8,), (stage.depth,)), seed=4).eval()
        with torch.inference_mode():
            for batch in batches_of(6):
                model(batch.images, ids[batch.index])
        errors = [error_by_loops(*pair) for pair in zip(before, after, strict=True)]
        assert stage.patches == 16
        assert stage.tokens == np.mean([len(kept) for kept in after])
        assert stage.error == pytest.approx(np.mean(errors), rel=1e-5)
        assert stage.error_sd == pytest.approx(np.std(errors, ddof=1), rel=1e-4)


def error_of(vit: VisionTransformer, name: str, **params: Any) -> float:
    ids = torch.arange(8)
    return measure_reconstruction(vit, create(name, **params), Schedule.stages(0.5, (2,)), batches_of(8), ids)[0].error


def test_clustering_reconstructs_better_than_random_selection(tiny_vit: MakeVit) -> None:
    vit = tiny_vit()
    settings = {"weighted": False, "init": "farthest", "iterations": 20}
    means = error_of(vit, "token_pooling", algorithm="kmeans", **settings)
    medoids = error_of(vit, "token_pooling", algorithm="kmedoids", output="medoid", **settings)
    chance = error_of(vit, "random_selection")
    assert 0 < means < medoids < chance < 1


def test_keeping_all_tokens_has_no_error(tiny_vit: MakeVit) -> None:
    stages = measure_reconstruction(
        tiny_vit(), create("evit"), Schedule.stages(1.0, (1, 2)), batches_of(1), torch.arange(1)
    )
    assert [(stage.patches, stage.tokens, stage.error, stage.error_sd) for stage in stages] == [(16, 16, 0, 0)] * 2


class Toy(Downsampler):
    """Keeps the first tokens, `extra` too many, and multiplies them."""

    def __init__(self, extra: int = 0, factor: float = 1.0) -> None:
        super().__init__()
        self.extra, self.factor = extra, factor

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        kept = tokens.select(torch.arange(keep + self.extra).expand(len(tokens.x), -1))
        return kept.replace(patches=kept.patches * self.factor)


@pytest.mark.parametrize(
    ("toy", "message"),
    [(Toy(extra=1), r"returned 9 patch tokens, count\(\) says 8"), (Toy(factor=math.nan), "not finite")],
)
def test_method_that_breaks_its_contract_raises(tiny_vit: MakeVit, toy: Toy, message: str) -> None:
    with pytest.raises(DownsamplerError, match=message):
        measure_reconstruction(tiny_vit(), toy, Schedule.stages(0.5, (1,)), batches_of(2), torch.arange(2))
