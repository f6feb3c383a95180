"""Rotary positions: kept tokens keep exactly their own, merged ones follow the rule that was chosen."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from timm.layers import RotaryEmbeddingCat, apply_keep_indices_nlc
from timm.models.eva import Eva
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toy_methods import Toy, images

import tokbench
from tokbench import Context, DownsampledViT, Downsampler, Schedule, Tokens
from tokbench.errors import UserError
from tokbench.names import POSITIONS
from tokbench.vit.adapters import rotary

TABLES: dict[str, dict[str, Any]] = {
    "cat": {"rope_type": "cat", "rope_temperature": 100.0},
    "cat, resized": {"rope_type": "cat", "ref_feat_shape": 7, "rope_grid_offset": 0.5},
    "cat, columns first": {"rope_type": "cat", "rope_grid_indexing": "xy"},
    "cat, halves": {"rope_type": "cat", "rope_rotate_half": True},
    "mixed": {"rope_type": "mixed", "rope_grid_indexing": "xy", "attn_type": "rope"},
    "mixed, rows first": {"rope_type": "mixed", "rope_grid_indexing": "ij", "attn_type": "rope"},
    "dinov3": {"rope_type": "dinov3", "attn_type": "rope", "rope_rotate_half": True, "rope_temperature": 100.0},
    "dinov3, pairs": {"rope_type": "dinov3"},
    "mrope": {"rope_type": "mrope", "attn_type": "rope", "rope_mrope_section": (2, 3, 3)},
}


def eva(table: str = "cat", **changes: Any) -> Eva:
    """A model of 4 blocks over 3 x 5 patches, whose every parameter is random."""
    torch.manual_seed(0)
    vit = Eva(
        img_size=(24, 40),
        patch_size=8,
        embed_dim=32,
        depth=4,
        num_heads=2,
        num_classes=10,
        global_pool="token",
        use_abs_pos_emb=False,
        use_rot_pos_emb=True,
        **{**TABLES[table], **changes},
    )
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return vit.eval()


@pytest.mark.parametrize("changes", [{"in_pixels": True}, {"in_pixels": False, "grid_type": "centered"}])
def test_a_table_whose_angles_are_unknown_is_refused(changes: dict[str, Any]):
    vit = eva()
    vit.rope = RotaryEmbeddingCat(16, feat_shape=[3, 5], **changes)
    with pytest.raises(UserError, match="rotary positions are of an unknown kind"):
        DownsampledViT(vit)


def photographs(batch: int = 2) -> Tensor:
    return images(batch, 40)[:, :, :24]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("table", TABLES)
def test_rows_at_the_patches_are_the_model_s_own_table(table: str, dynamic: bool):
    vit = eva(table, dynamic_img_size=dynamic)
    own = rotary.rotary_table(vit, (3, 5)).detach()
    place = rotary.coordinates(vit.rope, (3, 5))[None]
    for depth in range(4):
        of_block = own[depth] if own.ndim == 4 else own[None]
        assert torch.allclose(rotary.rows_at(vit.rope, place, depth)[0], of_block, atol=2e-5)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("table", TABLES)
def test_kept_tokens_keep_exactly_their_rows(table: str, position: str):
    """As in a loop over timm's blocks that drops the same patches from the tokens and from the table."""
    vit = eva(table)
    keep = torch.tensor([[0, 3, 4, 9, 14], [1, 2, 7, 8, 13]])

    class Fixed(Downsampler):
        def forward(self, tokens: Tokens, count: int, context: Context) -> Tokens:
            return tokens.select(keep)

    method = Fixed()
    with torch.no_grad():
        model = DownsampledViT(vit, method, Schedule.explicit((5,), (1,)), site="after_block", position=position)
        x, _ = vit._pos_embed(vit.patch_embed(photographs()))
        own = rotary.rotary_table(vit, (3, 5))
        for depth, block in enumerate(vit.blocks):
            rows = own[depth] if own.ndim == 4 else own
            if depth > 1:
                rows = apply_keep_indices_nlc(x, rows, keep)
                rows = rows if own.ndim == 4 else rows[:, None]
            x = block(x, rope=rows)
            if depth == 1:
                x = torch.cat([x[:, :1], x[:, 1:].gather(1, keep[..., None].expand(-1, -1, 32))], dim=1)
        assert torch.equal(model(photographs()), vit.forward_head(vit.norm(x)))


@pytest.mark.parametrize("table", ["cat", "mixed", "dinov3"])
def test_positions_follow_tokens_that_are_all_kept_but_in_another_order(table: str):
    """As in an adaptive method that finds nothing to merge in any image of the batch."""

    class Reversing(Downsampler):
        adaptive = True

        def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
            backwards = torch.arange(tokens.n_patches).flip(0).expand(tokens.size.shape)
            return dataclasses.replace(tokens.select(backwards), valid=torch.ones_like(tokens.size, dtype=torch.bool))

    vit = eva(table)
    model = DownsampledViT(vit, Reversing(), Schedule.explicit((5,), (1,)))
    with torch.inference_mode():
        assert torch.allclose(model(photographs()), vit(photographs()), atol=1e-5)


@pytest.mark.parametrize("table", TABLES)
def test_rows_are_computed_where_the_tokens_are(table: str):
    """A tensor from another device could not be copied while a CUDA graph is captured."""

    class Devices(TorchDispatchMode):
        def __torch_dispatch__(
            self, operator: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
        ) -> Any:
            result = operator(*args, **(kwargs or {}))
            seen.update(part.device.type for part in tree_leaves((args, result)) if isinstance(part, Tensor))
            return result

    seen: set[str] = set()
    rope = eva(table).rope.to("meta")
    with Devices(), torch.no_grad():
        rotary.rows_at(rope, rotary.coordinates(rope, (3, 5), torch.device("meta"))[None], 0)
    assert seen == {"meta"}


def groups_of_three(tokens: Tokens) -> Tensor:
    """Patches 0-4 and 10 in token 0, patch 5 alone in token 1, 6-9 and 11-13 in token 2; 14 is dropped."""
    owner = torch.tensor([0, 0, 0, 0, 0, 1, 2, 2, 2, 2, 0, 2, 2, 2, -1])
    return owner.expand(tokens.size.shape)


@pytest.mark.parametrize("table", ["cat", "mixed", "dinov3"])
def test_merged_tokens_follow_the_rule(table: str):
    vit = eva(table)
    own = rotary.rotary_table(vit, (3, 5)).detach()
    tokens = Tokens.from_sequence(torch.randn(2, 16, 32), (3, 5)).with_rotary()
    tokens = tokens.merge(groups_of_three(tokens), 3)
    members = {0: [0, 1, 2, 3, 4, 10], 2: [6, 7, 8, 9, 11, 12, 13]}
    for position in POSITIONS:
        rotation = rotary.Rotation.of(vit.rope, own, tokens, position)
        for depth in range(4):
            of_block = own[depth] if own.ndim == 4 else own[None]
            rows = rotation.rows(depth)
            assert rows.shape == (2, len(of_block), 3, 32)
            assert torch.equal(rows[:, :, 1], of_block[:, 5].expand(2, -1, -1))
            for token, patches in members.items():
                if position == "destination":
                    expected = of_block[:, patches[0]]
                elif position == "rotation":
                    expected = of_block[:, patches].double().mean(dim=1)
                elif position == "none":
                    expected = torch.cat([torch.zeros(16), torch.ones(16)]).expand(len(of_block), -1)
                else:
                    expected = torch.stack([row_at(vit, patches, depth, head) for head in range(len(of_block))])
                assert torch.allclose(rows[0, :, token].double(), expected.double(), atol=2e-5)


def row_at(vit: Eva, patches: list[int], depth: int, head: int) -> Tensor:
    """A row at the mean position of patches, number by number from the definitions in the papers."""
    r, c = (sum(f(p) for p in patches) / len(patches) for f in (lambda p: p // 5, lambda p: p % 5))
    angle = []
    for i in range(8):
        if hasattr(vit.rope, "freqs"):  # RoPE-Mixed: x is the column, y the row
            fx, fy = vit.rope.freqs[:, depth, head, i].tolist()
            angle.append(c * fx + r * fy)
        elif hasattr(vit.rope, "periods"):  # DINOv3: patch centres from -1 to 1, periods 100^(i / 4)
            y, x = 2 * (r + 0.5) / 3 - 1, 2 * (c + 0.5) / 5 - 1
            angle.append(2 * math.pi * (y if i < 4 else x) / 100 ** (i % 4 / 4))
        else:  # axial: half of the channels for the row, half for the column, frequencies 100^(-i / 4)
            angle.append((r if i < 4 else c) * 100 ** (-(i % 4) / 4))
    pairs = [*angle, *angle] if getattr(vit.rope, "rotate_half", False) else [a for a in angle for _ in range(2)]
    return torch.tensor([*map(math.sin, pairs), *map(math.cos, pairs)])


@pytest.mark.parametrize("site", ["before_block", "after_attention", "after_block"])
def test_positions_follow_a_second_reduction(site: str):
    """Merging in two steps at the mean gives the rows that merging at once gives."""
    vit = eva()
    own = rotary.rotary_table(vit, (3, 5))
    start = Tokens.from_sequence(torch.randn(1, 16, 32), (3, 5)).with_rotary()
    pairs = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7])[None]
    once = start.merge(pairs // 2, 4)
    twice = start.merge(pairs, 8).merge(torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])[None], 4)
    for position in ("mean", "rotation"):
        one, two = (rotary.Rotation.of(vit.rope, own, tokens, position).rows(0) for tokens in (once, twice))
        assert torch.allclose(one, two, atol=1e-6)
    model = DownsampledViT(vit, Toy("merge"), Schedule.explicit((8, 4), (1, 2)), site=site)
    with torch.inference_mode():
        resumed = model.through(model.embed(photographs()), range(3), torch.arange(2))
        assert torch.equal(
            model.classify(model.through(resumed, range(3, 4), torch.arange(2))), model(photographs(), torch.arange(2))
        )


def test_keys_are_those_that_attention_uses_and_the_others_are_theirs_before_rotation():
    vit = eva()
    method = Toy(needs=("keys", "keys_unrotated"))
    with torch.no_grad():
        DownsampledViT(vit, method, Schedule.explicit((6,), (0,)))(photographs())
        x, table = vit._pos_embed(vit.patch_embed(photographs()))
        attention, read = vit.blocks[0].attn, vit.blocks[0].norm1(x)
        weight = attention.qkv.weight[32:64]
        keys = (read @ weight.T).unflatten(2, (2, 16)).transpose(1, 2)[:, :, 1:]
        sines, cosines = table.chunk(2, dim=-1)
        turned = torch.stack([-keys[..., 1::2], keys[..., ::2]], dim=-1).flatten(-2)
    context = method.contexts[0]
    assert torch.allclose(context.keys_unrotated, keys.mean(dim=1), atol=1e-5)
    assert torch.allclose(context.keys, (keys * cosines + turned * sines).mean(dim=1), atol=1e-5)
    assert not torch.allclose(context.keys, context.keys_unrotated, atol=1e-2)


def test_without_rotary_positions_the_two_kinds_of_keys_are_equal(tiny_vit):
    method = Toy(needs=("keys", "keys_unrotated"))
    with torch.no_grad():
        DownsampledViT(tiny_vit(), method, Schedule.explicit((6,), (0,)))(images())
    assert torch.equal(method.contexts[0].keys, method.contexts[0].keys_unrotated)


def test_the_rule_changes_the_answer_only_where_tokens_merge():
    vit = eva()
    merging, selecting = (
        [tokbench.reduce(vit, Toy(kind), 0.5, schedule="stages(at=1-2)", position=rule) for rule in POSITIONS]
        for kind in ("merge", "select")
    )
    with torch.inference_mode():
        merged, selected = ([model(photographs()) for model in some] for some in (merging, selecting))
    assert all(torch.equal(one, selected[0]) for one in selected)
    assert all(not torch.equal(a, b) for i, a in enumerate(merged) for b in merged[:i])


def test_an_unknown_rule_is_refused_in_one_line():
    with pytest.raises(UserError, match="position 'middle' is unknown: choose from mean, destination"):
        tokbench.reduce(eva(), "tome", position="middle")


def test_the_rotation_of_random_coordinates_in_training_is_one_for_all_blocks():
    """DINOv3 shifts coordinates in training, once per forward pass."""
    vit = eva("dinov3", rope_shift_coords=0.5).train()
    model = DownsampledViT(vit, Toy("merge"), Schedule.explicit((8,), (1,)), position="destination")
    tokens = model.embed(photographs())
    rotation = model.adapter.rotation(vit, tokens, "destination")
    assert torch.equal(rotation.rows(0), rotation.rows(3))
    model(photographs()).sum().backward()
    assert vit.blocks[0].attn.qkv.weight.grad.isfinite().all()


@pytest.mark.parametrize("table", ["cat", "mixed", "dinov3"])
def test_random_coordinates_in_training_have_no_mean(table: str):
    """Tokens of one patch would be at other coordinates than the merged ones."""
    vit = eva(table, rope_rescale_coords=2.0).train()
    model = DownsampledViT(vit, Toy("merge"), Schedule.explicit((8,), (1,)))
    with pytest.raises(UserError, match="set position='destination' or 'rotation'"):
        model(photographs())
    assert model.eval()(photographs()).isfinite().all()
