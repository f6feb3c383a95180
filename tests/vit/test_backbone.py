"""The downsampled ViT against timm, bit for bit, and against a simple reference forward pass, image by image."""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from tokbench import Context, DownsampledViT, Downsampler, Geometry, Schedule, Tokens
from tokbench.downsampler import DownsamplerError, UndeclaredFieldError
from tokbench.errors import UserError
from tokbench.vit.backbone import UnsupportedModelError, check_supported

MakeViT = Callable[..., VisionTransformer]
SITES = ("before_block", "after_attention", "after_block")
FIELDS = ("keys", "values", "attention", "cls_attention", "received")
N0, P = 16, 1  # of the tiny ViT


def images(batch: int = 3, size: int = 32, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(seed))


def close(actual: Tensor, expected: Tensor) -> bool:
    return actual.shape == expected.shape and torch.allclose(actual, expected, rtol=1e-5, atol=1e-5)


# Methods to test with


class Toy(Downsampler):
    """Selects or merges by a simple rule, and records its arguments."""

    def __init__(self, kind: str = "select", proportional: bool = False, needs: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.name = f"toy_{kind}"
        self.kind, self.proportional, self.needs = kind, proportional, frozenset(needs)
        self.contexts: list[Context] = []
        self.given: list[Tokens] = []
        self.keeps: list[int] = []
        self.geometries: list[Geometry] = []

    def setup(self, geometry: Geometry) -> None:
        self.geometries.append(geometry)

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        self.contexts.append(context)
        self.given.append(tokens)
        self.keeps.append(keep)
        if self.kind == "merge":  # neighbours, into groups of equal size, as far as possible
            group = torch.arange(tokens.n_patches) * keep // tokens.n_patches
            return tokens.merge(group.expand(tokens.size.shape), keep)
        if self.kind == "noise":
            return tokens.select(context.noise.topk(keep).indices.sort().values)
        return tokens.select(tokens.patches[..., 0].topk(keep).indices.sort().values)


def reduce_plainly(
    kind: str, x: list[Tensor], size: list[float], keep: int, prefix: int
) -> tuple[list[Tensor], list[float]]:
    """The reduction of `Toy`, for one image's list of vectors."""
    patches = x[prefix:]
    if kind == "select":
        best = sorted(range(len(patches)), key=lambda i: -float(patches[i][0]))[:keep]
        return x[:prefix] + [patches[i] for i in sorted(best)], [size[i] for i in sorted(best)]
    merged, sizes = [], []
    for k in range(keep):
        group = [i for i in range(len(patches)) if i * keep // len(patches) == k]
        sizes.append(sum(size[i] for i in group))
        merged.append(sum(size[i] * patches[i] for i in group) / sizes[-1])
    return x[:prefix] + merged, sizes


# The reference forward pass


@dataclasses.dataclass
class Inside:
    """One image's attention in one block, per head."""

    keys: Tensor  # (H, n, Dh)
    values: Tensor  # (H, n, Dh)
    matrix: Tensor  # (H, n, n)


def attend_plainly(attention: nn.Module, x: Tensor, bias: Tensor) -> tuple[Tensor, Inside]:
    """Explicit softmax attention, head by head, of x (n, D) with bias (n) on each key."""
    width, heads = attention.num_heads * attention.head_dim, attention.num_heads
    weight = attention.qkv.weight
    offset = attention.qkv.bias if attention.qkv.bias is not None else weight.new_zeros(3 * width)
    outputs, inside = [], []
    for h in range(heads):
        lines = [
            slice(part * width + h * attention.head_dim, part * width + (h + 1) * attention.head_dim)
            for part in range(3)
        ]
        q, k, v = (x @ weight[line].T + offset[line] for line in lines)
        q, k = attention.q_norm(q), attention.k_norm(k)
        logits = q @ k.T / math.sqrt(attention.head_dim) + bias
        exponentials = (logits - logits.max(dim=1, keepdim=True).values).exp()
        matrix = exponentials / exponentials.sum(dim=1, keepdim=True)
        outputs.append(matrix @ v)
        inside.append((k, v, matrix))
    out = attention.proj(attention.norm(torch.cat(outputs, dim=1)))
    return out, Inside(*(torch.stack(part) for part in zip(*inside, strict=True)))


def run_plainly(
    vit: VisionTransformer, image: Tensor, site: str, keeps: dict[int, int], kind: str, proportional: bool
) -> tuple[Tensor, list[Inside], list[int]]:
    """Logits of one image, each block's attention, and the patch tokens after each block."""
    prefix = vit.num_prefix_tokens
    rows = list(vit.norm_pre(vit._pos_embed(vit.patch_embed(image[None])))[0])
    size = [1.0] * (len(rows) - prefix)
    inside, leaving = [], []
    for depth, block in enumerate(vit.blocks):

        def act(
            here: str, rows: list[Tensor], size: list[float], depth: int = depth
        ) -> tuple[list[Tensor], list[float]]:
            if here == site and depth in keeps and keeps[depth] < len(size):
                return reduce_plainly(kind, rows, size, keeps[depth], prefix)
            return rows, size

        rows, size = act("before_block", rows, size)
        x = torch.stack(rows)
        bias = torch.tensor([0.0] * prefix + [math.log(s) if proportional else 0.0 for s in size], dtype=x.dtype)
        update, seen = attend_plainly(block.attn, block.norm1(x), bias)
        inside.append(seen)
        rows, size = act("after_attention", list(x + block.ls1(update)), size)
        x = torch.stack(rows)
        rows, size = act("after_block", list(x + block.ls2(block.mlp(block.norm2(x)))), size)
        leaving.append(len(size))
    x = vit.norm(torch.stack(rows))
    if vit.global_pool == "avg":
        mass = [1.0] * prefix * vit.pool_include_prefix + size
        x = x[0 if vit.pool_include_prefix else prefix :]
        pooled = sum(m * row for m, row in zip(mass, x, strict=True)) / sum(mass)
    else:
        pooled = x[0]
    return vit.head(vit.fc_norm(pooled)), inside, leaving


# Without a downsampler: bit-identical to timm


REAL: list[tuple[str, dict[str, Any]]] = [
    ("deit_tiny_patch16_224", {}),
    ("deit_small_patch16_224", {}),
    ("deit_base_patch16_224", {}),
    ("deit_tiny_distilled_patch16_224", {}),
    ("deit3_small_patch16_224", {}),
    ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", {}),
    ("vit_small_patch14_reg4_dinov2", {"img_size": 112, "num_classes": 10}),
    ("vit_base_patch32_clip_224", {}),
    ("vit_tiny_patch16_224", {"global_pool": "avg"}),
    ("vit_wee_patch16_reg1_gap_256", {}),
]


# Eager attention is the same code for all models, so the tiny ones are enough.
BOTH_KERNELS = [(*one, True) for one in REAL] + [(*one, False) for one in REAL if "tiny" in one[0]]


@pytest.mark.parametrize(("name", "changes", "fused"), BOTH_KERNELS, ids=lambda value: str(value or ""))
def test_the_plain_models_logits_are_bit_identical_to_timm(name: str, changes: dict[str, Any], fused: bool, shake):
    torch.manual_seed(0)
    vit = shake(timm.create_model(name, pretrained=False, **changes))
    for block in vit.blocks:
        block.attn.fused_attn = fused
    x = images(1 if "base" in name else 2, vit.patch_embed.img_size[0])
    with torch.no_grad():
        expected = vit(x)
        assert torch.equal(DownsampledViT(vit)(x), expected)
        idle = Toy("merge", proportional=True, needs=FIELDS if vit.cls_token is not None else ("received",))
        assert torch.equal(DownsampledViT(vit, idle, Schedule.stages(1))(x), expected)
    assert idle.contexts == []
    assert expected.std() > 0.01  # the model is not degenerate


@pytest.mark.parametrize("site", SITES)
def test_a_method_is_not_called_if_there_is_nothing_to_remove(tiny_vit: MakeViT, site: str):
    vit, method = tiny_vit(), Toy("select")
    model = DownsampledViT(vit, method, Schedule.explicit((16, 99, 9), (1, 2, 3)), site=site)
    with torch.no_grad():
        model(images())
    assert method.keeps == [9]
    assert [context.depth for context in method.contexts] == [3]


def test_the_model_is_shared_and_not_changed(tiny_vit: MakeViT):
    vit = tiny_vit()
    before = {name: value.clone() for name, value in vit.state_dict().items()}
    classes = [type(module) for module in vit.modules()]
    with torch.no_grad():
        expected = vit(images())
        model = DownsampledViT(vit, Toy("merge", True, FIELDS), Schedule.stages(0.5, (1, 2)))
        model(images())
        assert model.vit is vit
        assert torch.equal(vit(images()), expected)
    assert all(torch.equal(value, before[name]) for name, value in vit.state_dict().items())
    assert [type(module) for module in vit.modules()] == classes


# Unsupported models


@pytest.mark.parametrize(
    ("name", "changes", "reason"),
    [
        ("vit_base_patch16_rpn_224", {}, "block 0 is ResPostBlock"),
        ("vit_base_patch16_xp_224", {}, "block 0 is ParallelScalingBlock"),
        ("eva02_tiny_patch14_224", {}, "not a timm VisionTransformer"),
        ("resnet18", {}, "not a timm VisionTransformer"),
        ("vit_base_patch16_siglip_224", {}, "neither class token nor average"),
        ("vit_tiny_patch16_224", {"global_pool": "max"}, "neither class token nor average"),
        ("vit_tiny_patch16_224", {"patch_drop_rate": 0.3}, "drops random patches"),
        ("vit_tiny_r_s16_p8_224", {}, "HybridEmbed"),
    ],
)
def test_unsupported_models_are_rejected_with_the_reason(name: str, changes: dict[str, Any], reason: str):
    with torch.device("meta"):  # the structure alone decides
        model = timm.create_model(name, pretrained=False, **changes)
    for reject in (check_supported, DownsampledViT):
        with pytest.raises(UnsupportedModelError) as caught:
            reject(model)
        assert reason in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_gated_attention_is_rejected(tiny_vit: MakeViT):
    vit = tiny_vit()
    vit.blocks[2].attn.gate = nn.Linear(32, 32)
    with pytest.raises(UnsupportedModelError, match="attention of block 2"):
        DownsampledViT(vit)


# Invalid combinations


def refusal(*arguments, **named) -> str:
    with pytest.raises(UserError) as caught:
        DownsampledViT(*arguments, **named)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_invalid_combinations_are_rejected_in_one_line(tiny_vit: MakeViT):
    vit = tiny_vit()
    stages = Schedule.stages(0.5, (0, 2))
    assert "depth 0" in refusal(vit, Toy(needs=("keys",)), stages, site="before_block")
    assert "depth 4" in refusal(vit, Toy(), Schedule.stages(0.5, (4,)))
    assert "nowhere" in refusal(vit, Toy(), stages, site="nowhere")
    only = Toy()
    only.sites = ("after_block",)
    assert "after_block" in refusal(vit, only, stages, site="after_attention")
    without = tiny_vit(class_token=False, global_pool="avg")
    assert "class token" in refusal(without, Toy(needs=("cls_attention",)), stages)
    DownsampledViT(vit, Toy(), stages, site="before_block")  # depth 0 is allowed, since nothing is read


@pytest.mark.parametrize("given", [{"downsampler": Toy()}, {"schedule": Schedule.stages(0.5)}])
def test_method_and_schedule_must_be_given_together(tiny_vit: MakeViT, given: dict[str, Any]):
    with pytest.raises(ValueError, match="together"):
        DownsampledViT(tiny_vit(), **given)


def test_an_unknown_field_in_needs_is_an_error_of_the_method(tiny_vit: MakeViT):
    with pytest.raises(DownsamplerError, match=r"'queries'.*keys, values"):
        DownsampledViT(tiny_vit(), Toy(needs=("queries",)), Schedule.stages(0.5, (1,)))


# The reduced forward pass


@pytest.mark.parametrize("proportional", [False, True])
@pytest.mark.parametrize("kind", ["select", "merge"])
@pytest.mark.parametrize("site", SITES)
def test_the_reduced_logits_equal_the_reference(tiny_vit: MakeViT, site: str, kind: str, proportional: bool):
    vit, keeps = tiny_vit(), {0: 11, 1: 7, 3: 3}
    model = DownsampledViT(
        vit, Toy(kind, proportional), Schedule.explicit(tuple(keeps.values()), tuple(keeps)), site=site
    )
    with torch.no_grad():
        logits = model(images())
        expected = [run_plainly(vit, image, site, keeps, kind, proportional)[0] for image in images()]
        other = [run_plainly(vit, image, site, {}, kind, proportional)[0] for image in images()]
    assert close(logits, torch.stack(expected))
    assert not close(logits, torch.stack(other))


VARIANTS: list[dict[str, Any]] = [
    {"qk_norm": True},
    {"qkv_bias": False},
    {"init_values": 1e-5},
    {"reg_tokens": 3},
    {"reg_tokens": 2, "class_token": False, "global_pool": "avg"},
    {"global_pool": "avg"},
    {"global_pool": "avg", "pool_include_prefix": True},
    {"class_token": False, "global_pool": "avg"},
    {"global_pool": "token", "fc_norm": True},
    {"pre_norm": True},
    {"scale_attn_norm": True},
    {"scale_mlp_norm": True},
    {"no_embed_class": True},
]


@pytest.mark.parametrize("kind", ["select", "merge"])
@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_the_reduced_logits_equal_the_reference_for_other_models(tiny_vit: MakeViT, changes: dict[str, Any], kind: str):
    vit, keeps = tiny_vit(**changes), {1: 7, 2: 3}
    for fused in (True, False):
        for block in vit.blocks:
            block.attn.fused_attn = fused
        model = DownsampledViT(vit, Toy(kind, True), Schedule.explicit((7, 3), (1, 2)))
        with torch.no_grad():
            expected = [run_plainly(vit, image, "after_attention", keeps, kind, True)[0] for image in images()]
            assert close(model(images()), torch.stack(expected))


def test_the_mlp_receives_only_the_remaining_tokens(tiny_vit: MakeViT):
    vit = tiny_vit(reg_tokens=2)
    for site, attention, mlp in (
        ("before_block", [16, 8, 4, 4], [16, 8, 4, 4]),
        ("after_attention", [16, 16, 8, 4], [16, 8, 4, 4]),
        ("after_block", [16, 16, 8, 4], [16, 16, 8, 4]),
    ):
        seen: dict[str, list[int]] = {"qkv": [], "mlp": []}
        hooks = [
            module.register_forward_hook(lambda _, given, __, into=seen[name]: into.append(given[0].shape[1] - 3))
            for block in vit.blocks
            for name, module in (("qkv", block.attn.qkv), ("mlp", block.mlp))
        ]
        leaving: list[tuple[int, int]] = []
        with torch.no_grad():
            DownsampledViT(vit, Toy(), Schedule.stages(0.5, (1, 2)), site=site)(
                images(), observe=lambda depth, tokens, into=leaving: into.append((depth, tokens.n_patches))
            )
        for hook in hooks:
            hook.remove()
        assert seen == {"qkv": attention, "mlp": mlp}
        assert leaving == [(0, 16), (1, 8), (2, 4), (3, 4)]


def test_setup_receives_the_model_and_the_plan(tiny_vit: MakeViT):
    method = Toy()
    DownsampledViT(tiny_vit(), method, Schedule.stages(0.5, (1, 2)))
    assert method.geometries == [Geometry(dim=32, heads=2, depths=(1, 2), grid=(4, 4), counts=(8, 4))]


def test_a_rectangular_image_keeps_its_grid(tiny_vit: MakeViT):
    vit, method = tiny_vit(img_size=(16, 32)), Toy()
    with torch.no_grad():
        DownsampledViT(vit, method, Schedule.stages(0.5, (1,)))(images()[:, :, :16])
    assert method.given[0].grid == method.given[0].layout == (2, 4)


def test_observed_tokens_record_where_each_patch_is(tiny_vit: MakeViT):
    seen: list[Tokens] = []
    with torch.no_grad():
        DownsampledViT(tiny_vit(), Toy("merge"), Schedule.stages(0.5, (1, 2)))(
            images(), observe=lambda _, tokens: seen.append(tokens)
        )
    assert [tokens.owner[0].tolist() for tokens in seen[1:3]] == [
        [i // 2 for i in range(16)],
        [i // 4 for i in range(16)],
    ]
    assert seen[-1].size.tolist() == [[4.0] * 4] * 3


# The context


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    "needs", [(field,) for field in FIELDS] + [FIELDS, ("cls_attention", "received")], ids="+".join
)
@pytest.mark.parametrize("site", SITES)
def test_the_context_holds_the_attention_that_ran(tiny_vit: MakeViT, site: str, needs: tuple[str, ...], fused: bool):
    vit, keeps = tiny_vit(reg_tokens=1), {1: 9, 2: 5, 3: 2}
    for block in vit.blocks:
        block.attn.fused_attn = fused
    method = Toy("merge", proportional=True, needs=needs)
    with torch.no_grad():
        logits = DownsampledViT(vit, method, Schedule.explicit((9, 5, 2), (1, 2, 3)), site=site)(images())
        plain = [run_plainly(vit, image, site, keeps, "merge", True) for image in images()]
    assert close(logits, torch.stack([one[0] for one in plain]))
    assert [(c.depth, c.depths, c.stage) for c in method.contexts] == [
        (1, (1, 2, 3), 0),
        (2, (1, 2, 3), 1),
        (3, (1, 2, 3), 2),
    ]
    for context, tokens in zip(method.contexts, method.given, strict=True):
        n = tokens.n_patches
        for b in range(3):
            seen = plain[b][1][context.depth - (site == "before_block")]
            heads, queries, _ = seen.matrix.shape
            assert queries == n + 2
            expected = {
                "keys": sum(seen.keys[h, 2:] for h in range(heads)) / heads,
                "values": seen.values[:, 2:],
                "attention": seen.matrix,
                "cls_attention": sum(seen.matrix[h, 0, 2:] for h in range(heads)) / heads,
                "received": sum(seen.matrix[h, q, 2:] for h in range(heads) for q in range(queries)),
            }
            for field in needs:
                assert close(getattr(context, field)[b], expected[field]), field
        for field in set(FIELDS) - set(needs):
            with pytest.raises(
                UndeclaredFieldError,
                match=f"context.{field} is not available.*frozenset.*{field}.*pass {field}=",
            ):
                getattr(context, field)
        assert context.noise.shape == (3, n)


class Calls(TorchFunctionMode):
    """Records the masks in the calls of fused attention."""

    def __init__(self) -> None:
        super().__init__()
        self.masks: list[tuple[int, ...] | None] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is F.scaled_dot_product_attention:
            mask = (kwargs or {}).get("attn_mask")
            self.masks.append(None if mask is None else tuple(mask.shape))
        return function(*args, **(kwargs or {}))


def fused_calls(model: nn.Module) -> list[tuple[int, ...] | None]:
    with torch.no_grad(), Calls() as calls:
        model(images())
    return calls.masks


def test_no_bias_is_added_while_all_sizes_are_one(tiny_vit: MakeViT):
    vit, at = tiny_vit(), Schedule.stages(0.5, (1, 2))
    assert fused_calls(vit) == [None] * 4  # the calls that timm makes
    assert fused_calls(DownsampledViT(vit, Toy("merge"), at)) == [None] * 4
    assert fused_calls(DownsampledViT(vit, Toy("merge", True), at)) == [None, None, (3, 1, 1, 9), (3, 1, 1, 5)]


def test_fused_attention_is_used_unless_the_matrix_is_needed(tiny_vit: MakeViT):
    vit, at = tiny_vit(), Schedule.stages(0.5, (1, 2))
    for field in ("keys", "values", "cls_attention", "received"):
        model = DownsampledViT(vit, Toy(needs=(field,)), at)
        assert fused_calls(model) == [None] * 4
        assert model.attention_kernel == "fused"
    model = DownsampledViT(vit, Toy(needs=("attention",)), at)
    assert len(fused_calls(model)) == 2
    assert model.attention_kernel == "fused+eager"
    for block in vit.blocks:
        block.attn.fused_attn = False
    assert model.attention_kernel == "eager"


def test_the_kernel_is_eager_if_every_block_needs_the_matrix(tiny_vit: MakeViT):
    model = DownsampledViT(tiny_vit(), Toy(needs=("attention",)), Schedule.every_block(r=2))
    assert fused_calls(model) == []
    assert model.attention_kernel == "eager"


def test_the_kernel_is_fused_if_the_method_never_acts(tiny_vit: MakeViT):
    model = DownsampledViT(tiny_vit(), Toy(needs=("attention",)), Schedule.stages(1, (1,)))
    assert fused_calls(model) == [None] * 4
    assert model.attention_kernel == "fused"


@pytest.mark.parametrize("site", SITES)
def test_the_context_is_computed_only_where_the_method_acts(tiny_vit: MakeViT, site: str):
    model = DownsampledViT(tiny_vit(), Toy(needs=FIELDS), Schedule.explicit((9, 9, 4), (1, 2, 3)), site=site)
    computed: list[int] = []
    model.probe.register_forward_hook(lambda _, given, __: computed.append(given[0].q.shape[2]))
    assert len(fused_calls(model)) == 2
    assert computed == [17, 10]


# Randomness depends on the image


def test_an_image_is_reduced_the_same_way_in_any_batch(tiny_vit: MakeViT):
    vit = tiny_vit()
    model = DownsampledViT(vit, Toy("noise"), Schedule.stages(0.5, (1, 2)), seed=3)
    ids = torch.tensor([40, 7, 12345678901, 3])

    def owners(x: Tensor, ids: Tensor | None, model: DownsampledViT = model) -> Tensor:
        seen: list[Tokens] = []
        with torch.no_grad():
            model(x, ids, observe=lambda _, tokens: seen.append(tokens))
        return seen[-1].owner

    x = images(4)
    together = owners(x, ids)
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(owners(x[order], ids[order]), together[order])
    for b in range(4):
        assert torch.equal(owners(x[b : b + 1], ids[b : b + 1])[0], together[b])
    assert len({tuple(row) for row in together.tolist()}) == 4
    assert torch.equal(owners(x, None), owners(x, torch.arange(4)))
    other_seed = DownsampledViT(vit, Toy("noise"), Schedule.stages(0.5, (1, 2)), seed=4)
    assert not torch.equal(owners(x, ids, other_seed), together)


# Counts that differ between images


class Adaptive(Toy):
    """Keeps an image's tokens whose first channel is above the image's mean, or above a threshold.

    At least one stays; at most `keep` where that is the `bound`.
    """

    adaptive = True

    def __init__(self, kind: str = "select", threshold: float | None = None, bound: bool = False, **more: Any) -> None:
        super().__init__(kind, **more)
        self.threshold, self.bound = threshold, bound

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        self.given.append(tokens)
        self.contexts.append(context)
        score = context.received if self.needs else tokens.patches[..., 0]
        valid = torch.ones_like(tokens.size, dtype=torch.bool) if tokens.valid is None else tokens.valid
        threshold = self.threshold
        if threshold is None:
            threshold = (score * valid).sum(dim=1, keepdim=True) / valid.sum(dim=1, keepdim=True)
        score = score.masked_fill(~valid, -torch.inf)
        order = score.argsort(dim=1, descending=True)
        rank = order.argsort(dim=1)
        stays = ((score > threshold) & valid) | (rank == 0)
        if self.bound:
            stays &= rank < keep
        if self.kind == "mask":  # the model does all of the trimming
            return dataclasses.replace(tokens, valid=stays)
        if self.kind == "merge":  # the others are merged into the best token
            place = stays.cumsum(dim=1) - 1
            best = place.gather(1, order[:, :1])
            return dataclasses.replace(
                tokens.merge(torch.where(stays, place, best), int(stays.sum(dim=1).max())),
                valid=torch.arange(int(stays.sum(dim=1).max())) < stays.sum(dim=1, keepdim=True),
            )
        index = stays.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, : int(stays.sum(dim=1).max())]
        return dataclasses.replace(tokens.select(index), valid=stays.gather(1, index))


def together_and_alone(model: DownsampledViT, x: Tensor) -> tuple[list[Tokens], list[list[Tokens]]]:
    """The tokens after each block, in one batch and image by image; asserts that the logits agree."""
    together: list[Tokens] = []
    alone: list[list[Tokens]] = [[] for _ in x]
    with torch.no_grad():
        logits = model(x, observe=lambda _, tokens: together.append(tokens))
        for b, image in enumerate(x):
            one = model(image[None], torch.tensor([b]), observe=lambda _, tokens, into=alone[b]: into.append(tokens))
            assert close(one[0], logits[b])
    return together, alone


@pytest.mark.parametrize("pool", ["token", "avg"])
@pytest.mark.parametrize("kind", ["select", "merge"])
@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("proportional", [False, True])
def test_an_image_has_the_same_logits_alone_and_in_a_batch(
    tiny_vit: MakeViT, kind: str, site: str, proportional: bool, pool: str
):
    model = DownsampledViT(
        tiny_vit(global_pool=pool),
        Adaptive(kind, proportional=proportional),
        Schedule.explicit((2, 1), (1, 2)),
        site=site,
    )
    together, alone = together_and_alone(model, images(4))
    for depth, tokens in enumerate(together):
        counts = [one[depth].n_patches for one in alone]
        assert tokens.n_patches == max(counts)  # trimmed to the longest
        if depth >= 1:
            assert min(counts) < max(counts)
            assert tokens.valid.sum(dim=1).tolist() == counts
        assert all(one[depth].valid is None for one in alone)


def test_padding_owns_no_patches(tiny_vit: MakeViT):
    model = DownsampledViT(tiny_vit(), Adaptive("select"), Schedule.explicit((2, 1), (1, 2)))
    together, alone = together_and_alone(model, images(4))
    for depth, tokens in enumerate(together):
        for b in range(4):
            assert tokens.owner[b].tolist() == alone[b][depth].owner[0].tolist()
            assert tokens.size[b].sum() == alone[b][depth].size.sum()  # padding has size 0


def test_a_method_may_leave_all_trimming_to_the_model(tiny_vit: MakeViT):
    model = DownsampledViT(tiny_vit(), Adaptive("mask"), Schedule.explicit((2, 1), (1, 2)))
    together, alone = together_and_alone(model, images(4))
    assert [tokens.n_patches for tokens in together] == [max(one[d].n_patches for one in alone) for d in range(4)]
    assert together[1].n_patches < N0


def test_padding_sends_no_attention(tiny_vit: MakeViT):
    # At the second reduction the batch has padding, whose queries must not count in `received`.
    method = Adaptive("select", needs=("received",))
    model = DownsampledViT(tiny_vit(), method, Schedule.explicit((2, 1), (1, 3)))
    x = images(4)
    with torch.no_grad():
        model(x)
        together, tokens = method.contexts[-1].received, method.given[-1]
        assert not tokens.valid.all()
        for b in range(4):
            model(x[b : b + 1])
            assert close(together[b, tokens.valid[b]], method.contexts[-1].received[0])


def test_a_fraction_bounds_the_images_count_not_the_batchs(tiny_vit: MakeViT):
    model = DownsampledViT(tiny_vit(), Adaptive("select", -0.5, bound=True), Schedule.stages(0.75, (1, 2)))
    _, alone = together_and_alone(model, images(6))
    assert len({one[1].n_patches for one in alone}) > 1


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_one_image_may_keep_all_tokens_while_another_does_not(tiny_vit: MakeViT, pool: str):
    vit = tiny_vit(global_pool=pool)
    x = images(4)
    with torch.no_grad():
        tokens = DownsampledViT(vit).embed(x)
    lowest = tokens.patches[..., 0].min(dim=1).values
    # All embedded tokens of one image are above the threshold; those of the others are not.
    threshold = float(lowest.sort().values[-2:].mean())
    model = DownsampledViT(vit, Adaptive("select", threshold), Schedule.explicit((1,), (0,)), site="before_block")
    together, alone = together_and_alone(model, x)
    assert together[0].n_patches == N0
    assert sorted(one[0].n_patches == N0 for one in alone) == [False, False, False, True]


# Methods that violate the interface


class Wrong(Downsampler):
    """Returns the given result."""

    def __init__(self, result: Callable[[Tokens, int], Any]) -> None:
        super().__init__()
        self.name = "wrongdoer"
        self.result = result

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        return self.result(tokens, keep)


def first(tokens: Tokens, count: int) -> Tokens:
    return tokens.select(torch.arange(count).expand(tokens.x.shape[0], count))


WRONGS: dict[str, Callable[[Tokens, int], Any]] = {
    "one token more": lambda tokens, keep: first(tokens, keep + 1),
    "one token less": lambda tokens, keep: first(tokens, keep - 1),
    "nothing removed": lambda tokens, keep: tokens,
    "another dtype": lambda tokens, keep: dataclasses.replace(first(tokens, keep), x=first(tokens, keep).x.double()),
    "nothing at all": lambda tokens, keep: None,
    "a tensor": lambda tokens, keep: first(tokens, keep).x,
    "a narrower x": lambda tokens, keep: dataclasses.replace(first(tokens, keep), x=first(tokens, keep).x[..., :-1]),
    "x without prefix": lambda tokens, keep: dataclasses.replace(first(tokens, keep), x=first(tokens, keep).patches),
    "fewer images": lambda tokens, keep: dataclasses.replace(first(tokens, keep), x=first(tokens, keep).x[:1]),
    "owners of fewer patches": lambda tokens, keep: dataclasses.replace(first(tokens, keep), owner=tokens.owner[:, 1:]),
    "sizes of one image": lambda tokens, keep: dataclasses.replace(first(tokens, keep), size=tokens.size[:1, :keep]),
    "sizes of another dtype": lambda tokens, keep: dataclasses.replace(
        first(tokens, keep), size=tokens.size[:, :keep].half()
    ),
    "owners of another dtype": lambda tokens, keep: dataclasses.replace(
        first(tokens, keep), owner=tokens.owner.float()
    ),
    "a mask of another shape": lambda tokens, keep: dataclasses.replace(
        first(tokens, keep), valid=torch.ones(3, keep + 1, dtype=torch.bool)
    ),
    "a mask, though not adaptive": lambda tokens, keep: dataclasses.replace(
        first(tokens, keep), valid=torch.arange(keep).expand(3, keep) < keep - 1
    ),
    "a layout that is not of that count": lambda tokens, keep: dataclasses.replace(first(tokens, keep), layout=(4, 4)),
}


@pytest.mark.parametrize("wrong", list(WRONGS))
def test_a_violation_names_method_and_depth(tiny_vit: MakeViT, wrong: str):
    model = DownsampledViT(tiny_vit(), Wrong(WRONGS[wrong]), Schedule.stages(0.5, (2,)))
    with torch.no_grad(), pytest.raises(DownsamplerError) as caught:
        model(images())
    assert re.search(r"wrongdoer at depth 2: \S", str(caught.value))


def test_an_undeclared_field_is_an_error_with_the_fix(tiny_vit: MakeViT):
    class Curious(Toy):
        def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
            return tokens.select(context.received.topk(keep).indices)

    model = DownsampledViT(tiny_vit(), Curious(needs=("keys",)), Schedule.stages(0.5, (2,)))
    with (
        torch.no_grad(),
        pytest.raises(UndeclaredFieldError, match=r"context\.received .*needs = frozenset\({'received'}\)"),
    ):
        model(images())


# Precision and training


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["select", "merge"])
def test_half_precision_is_close_to_float32(tiny_vit: MakeViT, dtype: torch.dtype, kind: str):
    x = images()
    schedule = Schedule.stages(0.5, (1, 2))
    with torch.no_grad():
        exact = DownsampledViT(tiny_vit(std=0.05), Toy("merge", True, FIELDS), schedule)(x)
        method = Toy(kind, proportional=True, needs=FIELDS)
        logits = DownsampledViT(tiny_vit(std=0.05).to(dtype), method, schedule)(x.to(dtype))
    assert logits.dtype == dtype
    assert logits.isfinite().all()
    for context in method.contexts:
        assert all(getattr(context, field).isfinite().all() for field in FIELDS)
    if kind == "merge":
        assert (logits - exact).abs().max() < 40 * torch.finfo(dtype).eps * exact.abs().max()


def test_gradients_reach_the_pixels_and_every_parameter(tiny_vit: MakeViT):
    vit = tiny_vit()
    x = images().requires_grad_()
    DownsampledViT(vit, Toy("merge", True, FIELDS), Schedule.stages(0.5, (1, 2)))(x).square().sum().backward()
    assert x.grad.isfinite().all()
    assert (x.grad != 0).flatten(1).any(dim=1).all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in vit.parameters())


def test_training_and_evaluation_mode_follow_the_model(tiny_vit: MakeViT):
    vit = tiny_vit().train()
    method = Toy()
    assert DownsampledViT(vit, method, Schedule.stages(0.5, (1,))).training
    assert method.training
    assert not DownsampledViT(vit.eval(), method, Schedule.stages(0.5, (1,))).training
    assert not method.training
