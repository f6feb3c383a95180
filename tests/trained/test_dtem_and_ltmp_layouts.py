"""DTEM's and LTMP's own checkpoints, against their descriptions for one image at a time."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from made_checkpoints import HEADS, WIDTH, State, images, random_vit, saved
from recognised_models import logits, model_of, recognised
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from tokbench.errors import UserError

CHANNELS = 6
THRESHOLDS = [(0.6, 0.05), (0.7, 0.06), (0.5, 0.07), (0.8, 0.08)]  # of merging and pruning, by block

# (depth, what attention reads, keys, importance, tokens after attention, their sizes) -> tokens and sizes
Reduce = Callable[[int, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def run(vit: VisionTransformer, image: Tensor, reduce: Reduce) -> Tensor:
    """Logits of an image (1, 3, H, W), with attention that counts a token with its size."""
    x = torch.cat([vit.cls_token, vit.patch_embed(image)], dim=1)[0] + vit.pos_embed[0]
    size = torch.ones(len(x))
    for depth, block in enumerate(vit.blocks):
        n = len(x)
        read = block.norm1(x)
        q, k, v = block.attn.qkv(read).reshape(n, 3, HEADS, WIDTH // HEADS).permute(1, 2, 0, 3)
        weights = (q @ k.mT / math.sqrt(WIDTH // HEADS)).exp() * size
        attention = weights / weights.sum(dim=2, keepdim=True)
        x = x + block.attn.proj((attention @ v).transpose(0, 1).reshape(n, WIDTH))
        x, size = reduce(depth, read, k.mean(dim=0), attention.mean(dim=(0, 1)), x, size)
        x = x + block.mlp(block.norm2(x))
    return vit.head(vit.norm(x)[:1])


def merged(x: Tensor, size: Tensor, groups: list[list[int]]) -> tuple[Tensor, Tensor]:
    sizes = [size[group].sum() for group in groups]
    means = [(size[group, None] * x[group]).sum(dim=0) / total for group, total in zip(groups, sizes, strict=True)]
    return torch.stack(means), torch.stack(sizes)


def most_similar(features: Tensor) -> dict[int, tuple[float, int]]:
    """For each token at an even position but the class token: its similarity to, and the place of, its best partner."""
    unit = features / features.norm(dim=1, keepdim=True)
    similarity = unit @ unit.T
    odd = list(range(1, len(features), 2))
    return {i: max((similarity[i, j].item(), j) for j in odd) for i in range(2, len(features), 2)}


def dtem_state(vit: VisionTransformer) -> State:
    """As DTEM's code saves it: a layer beside each attention's own, and both once more in one."""
    generator = torch.Generator().manual_seed(4)
    state: State = {}
    for name, value in vit.state_dict().items():
        if ".attn.qkv." not in name:
            state[name] = value
            continue
        layer, kind = name.rsplit(".", 1)
        metric = torch.randn(CHANNELS, *value.shape[1:], generator=generator)
        state |= {f"{layer}.qkv_layer.{kind}": value, f"{layer}.metric_layer.{kind}": metric}
        state[name] = torch.cat([value, metric])
    return {f"module.{name}": value for name, value in state.items()}


def test_dtem_merges_by_the_embedding_of_what_attention_reads(tmp_path: Path):
    vit = random_vit()
    state = dtem_state(vit)
    trained = recognised(saved(tmp_path, state, key="state_dict"))
    assert (trained.method, trained.schedule) == ("dtem", "every_block(r=16)")
    assert "16, the default" in trained.remarks[0]

    def reduce(
        depth: int, read: Tensor, keys: Tensor, importance: Tensor, x: Tensor, size: Tensor
    ) -> tuple[Tensor, Tensor]:
        layer = f"module.blocks.{depth}.attn.qkv.metric_layer"
        best = most_similar(read @ state[f"{layer}.weight"].T + state[f"{layer}.bias"])
        gone = sorted(best, key=lambda i: -best[i][0])[:16]  # at most half of the tokens are sources
        rest = [[i] for i in range(0, len(x), 2) if i not in gone]
        return merged(x, size, rest + [[j] + [i for i in gone if best[i][1] == j] for j in range(1, len(x), 2)])

    with torch.no_grad():
        wanted = torch.cat([run(vit, image[None], reduce) for image in images()])
    torch.testing.assert_close(logits(model_of(trained), images()), wanted, atol=1e-4, rtol=0)
    default = logits(model_of(trained, reads="tokens"), images())
    assert (default - wanted).abs().max() > 1e-2  # what the embedding reads matters


def ltmp_state(vit: VisionTransformer) -> State:
    thresholds = {
        f"blocks.{block}.{kind}_masker.threshold": torch.tensor([value])
        for block, pair in enumerate(THRESHOLDS)
        for kind, value in zip(("merge", "prune"), pair, strict=True)
    }
    return {**vit.state_dict(), **thresholds}


def ltmp_reduce(
    depth: int, read: Tensor, keys: Tensor, importance: Tensor, x: Tensor, size: Tensor
) -> tuple[Tensor, Tensor]:
    theta_m, theta_p = THRESHOLDS[depth]
    best = {i: j for i, (similarity, j) in most_similar(keys).items() if similarity > theta_m}
    groups = [[i] for i in range(0, len(x), 2) if i not in best]
    groups += [[j] + [i for i in best if best[i] == j] for j in range(1, len(x), 2)]
    left = [group for group in groups if 0 in group or max(importance[i] for i in group) > theta_p]
    return merged(x, size, left)


def test_ltmp_merges_and_prunes_as_its_inference_code(tmp_path: Path):
    vit = random_vit()
    trained = recognised(saved(tmp_path, ltmp_state(vit), key="state_dict", model="ltmp_deit_tiny_patch16_224"))
    assert trained.method == "ltmp"
    counts: list[list[int]] = []

    def counted(
        depth: int, read: Tensor, keys: Tensor, importance: Tensor, x: Tensor, size: Tensor
    ) -> tuple[Tensor, Tensor]:
        after, sizes = ltmp_reduce(depth, read, keys, importance, x, size)
        counts[-1].append(len(after) - 1)
        return after, sizes

    wanted = []
    with torch.no_grad():
        for image in images():
            counts.append([])
            wanted.append(run(vit, image[None], counted))
    assert all(16 > first > last >= 1 for first, *_, last in counts)  # otherwise this tests little
    torch.testing.assert_close(logits(model_of(trained), images()), torch.cat(wanted), atol=1e-4, rtol=0)
    default = logits(model_of(trained, variant="default"), images())
    assert (default - torch.cat(wanted)).abs().max() > 1e-2


def test_ltmps_training_keeps_absent_tokens_without_an_influence(tmp_path: Path):
    trained = recognised(
        saved(tmp_path, ltmp_state(random_vit()), key="state_dict", model="ltmp_deit_tiny_patch16_224")
    )
    model = model_of(trained).double()
    with torch.no_grad():
        measured = model.eval()(images().double())
        torch.testing.assert_close(model.train()(images().double()), measured, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("args", "reason"),
    [({}, "do not name a model ltmp_"), ({"model": "ltpm_deit_small_patch16_224"}, "do not name a model ltmp_")],
)
def test_other_thresholds_than_ltmps_are_refused(tmp_path: Path, args: dict[str, str], reason: str):
    with pytest.raises(UserError, match=reason):
        recognised(saved(tmp_path, ltmp_state(random_vit()), key="state_dict", **args))


def test_ltmps_thresholds_alone_are_refused(tmp_path: Path):
    state = {name: value for name, value in ltmp_state(random_vit()).items() if "threshold" in name}
    with pytest.raises(UserError, match="without the model's weights"):
        recognised(saved(tmp_path, state, key="state_dict", model="ltmp_deit_tiny_patch16_224"))
