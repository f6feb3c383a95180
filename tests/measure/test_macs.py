"""MACs against reference values; unknown operators are errors."""

import pytest
import timm
import torch
from torch import Tensor

from tokbench import Context, DownsampledViT, Downsampler, Schedule, Tokens, create
from tokbench.measure.ledger import count_tokens
from tokbench.measure.macs import count_macs
from tokbench.measure.operators import CountError

IMAGE = torch.zeros(1, 3, 224, 224)


def vit(name: str, **settings: object) -> torch.nn.Module:
    return timm.create_model(name, pretrained=False, **settings).eval()


@pytest.mark.parametrize(
    ("name", "gmacs"),
    [("deit_tiny_patch16_224", 1.2537), ("deit_small_patch16_224", 4.5989), ("deit_base_patch16_224", 17.5638)],
)
@pytest.mark.parametrize("fused", [True, False])
def test_plain_deits_have_the_reference_macs_with_any_kernel(name: str, gmacs: float, fused: bool) -> None:
    model = vit(name)
    for block in model.blocks:
        block.attn.fused_attn = fused
    macs = count_macs(DownsampledViT(model), IMAGE)
    assert macs.total / 1e9 == pytest.approx(gmacs, abs=5e-5)
    assert macs.method == 0


@pytest.mark.parametrize(
    ("site", "gmacs"), [("before_block", 2.895), ("after_attention", 2.997), ("after_block", 3.148)]
)
def test_class_token_pruning_has_the_reference_macs_at_each_site(site: str, gmacs: float) -> None:
    method = create("score_pruning", score="cls")
    macs = count_macs(DownsampledViT(vit("deit_small_patch16_224"), method, Schedule.stages(0.7), site=site), IMAGE)
    assert (macs.total - macs.method) / 1e9 == pytest.approx(gmacs, abs=5e-4)
    assert macs.ledger.leaving == (196,) * 3 + (138,) * 3 + (97,) * 3 + (68,) * 3


def test_cost_of_class_token_row_and_of_column_sums() -> None:
    model = vit("deit_small_patch16_224")
    row = count_macs(DownsampledViT(model, create("score_pruning", score="cls"), Schedule.stages(0.7)), IMAGE).method
    sums = count_macs(DownsampledViT(model, create("score_pruning"), Schedule.stages(0.7)), IMAGE).method
    lengths = (197, 139, 98)
    assert row == sum(n * 384 + 6 * (n - 1) for n in lengths)
    assert sums == sum(n * n * 384 + 6 * n * (n - 1) for n in lengths)


def test_clustering_is_counted() -> None:
    n, k, dim, iterations = 196, 98, 384, 5
    model = vit("deit_small_patch16_224")
    method = create("token_pooling", algorithm="kmeans", weighted=False, init="farthest", iterations=iterations)
    counted = count_macs(DownsampledViT(model, method, Schedule.explicit((k,), at=(3,))), IMAGE).method
    products = 2 * n * n * dim  # the distances, once for the start and once for the clustering
    sums = (iterations - 1) * n * n + n * dim
    assert counted == pytest.approx(products + sums, rel=0.02)
    assert counted > products + sums


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("deit_small_distilled_patch16_224", {}),
        ("deit3_small_patch16_224", {}),
        ("vit_small_patch14_reg4_dinov2", {"img_size": 224}),
        ("vit_small_patch14_dinov2", {"img_size": 224}),
        ("vit_tiny_patch16_224", {"global_pool": "avg"}),
        ("vit_giant_patch14_dinov2", {"img_size": 28, "depth": 2}),  # SwiGLU
    ],
)
def test_trace_and_closed_form_agree_on_other_vits(name: str, settings: dict[str, object]) -> None:
    model = vit(name, **settings)
    image = torch.zeros(1, 3, *model.patch_embed.img_size)
    method = create("random_selection")
    count_macs(DownsampledViT(model, method, Schedule.stages(0.5, at=(1,))), image)  # raises if they disagree


class Formulation(Downsampler):
    """Drops tokens after one of several formulations of the same distance, or an unknown operator."""

    def __init__(self, work: str) -> None:
        super().__init__()
        self.work = work

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        patches = tokens.patches
        index = torch.arange(keep).expand(len(patches), keep)
        used: Tensor
        if self.work == "cdist":
            used = torch.cdist(patches, patches[:, :keep])
        elif self.work == "baddbmm":
            used = torch.baddbmm(torch.zeros(1), patches, patches[:, :keep].mT)
        elif self.work == "einsum":
            used = torch.einsum("bnd,bkd->bnk", patches, patches[:, :keep])
        elif self.work == "broadcast":
            used = (patches[:, :, None] - patches[:, None, :keep]).square().sum(dim=3)
        else:
            used = torch.special.bessel_j0(patches)
        return tokens.replace(patches=patches + 0 * used.sum()).select(index)


@pytest.mark.parametrize("work", ["cdist", "baddbmm", "einsum", "broadcast"])
def test_distance_has_the_same_macs_in_every_formulation(work: str) -> None:
    n, k, dim = 196, 98, 192
    model = DownsampledViT(vit("deit_tiny_patch16_224"), Formulation(work), Schedule.explicit((k,), at=(3,)))
    assert count_macs(model, IMAGE).method == pytest.approx(n * k * dim, rel=0.01)


def test_unknown_operator_is_an_error_that_names_it() -> None:
    model = DownsampledViT(vit("deit_tiny_patch16_224"), Formulation("bessel"), Schedule.stages(0.5))
    with pytest.raises(CountError, match="special_bessel_j0"):
        count_macs(model, IMAGE)


def test_backbone_that_differs_from_the_closed_form_is_an_error() -> None:
    class Doubled(torch.nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + 0 * super().forward(x)

    model = vit("deit_tiny_patch16_224")
    old = model.blocks[0].attn.proj
    model.blocks[0].attn.proj = Doubled(old.in_features, old.out_features)
    with pytest.raises(CountError, match="closed form"):
        count_macs(DownsampledViT(model), IMAGE)


def test_tokens_are_counted_at_the_modules_that_read_them() -> None:
    model = DownsampledViT(vit("deit_tiny_patch16_224"), create("random_selection"), Schedule.stages(0.5))
    ledger = count_tokens(model, IMAGE)
    assert ledger.attention == (197,) * 4 + (99,) * 3 + (50,) * 3 + (26,) * 2
    assert ledger.mlp == (197,) * 3 + (99,) * 3 + (50,) * 3 + (26,) * 3
    assert ledger.leaving == (196,) * 3 + (98,) * 3 + (49,) * 3 + (25,) * 3


def test_masking_tokens_does_not_reduce_macs() -> None:
    class Masks(Downsampler):
        """Sets tokens to zero instead of removing them."""

        def count(self, keep: int, n_patches: int, depth: int, layout: tuple[int, int] | None) -> int:
            return n_patches

        def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
            mask = (torch.arange(tokens.n_patches) < keep)[:, None]
            return tokens.replace(patches=tokens.patches * mask)

    plain = vit("deit_tiny_patch16_224")
    masked = count_macs(DownsampledViT(plain, Masks(), Schedule.stages(0.5)), IMAGE)
    assert masked.total == count_macs(DownsampledViT(plain), IMAGE).total
    assert set(masked.ledger.leaving) == {196}
