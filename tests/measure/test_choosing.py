"""The share of a model's time that choosing tokens takes: where work is done, not how fast the machine is.

Work is a wait of a known length, long against everything else that the small model does.
"""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tokbench import Context, Downsampler, Schedule, Tokens
from tokbench.measure.choosing import MIN_RUNS, choosing_shares
from tokbench.vit.attention import AttentionProbe, Heads
from tokbench.vit.backbone import DownsampledViT

IMAGES = torch.zeros(2, 3, 32, 32)
DEPTHS = (1, 2)
WAIT = 0.1  # seconds; the model takes a few thousandths

MakeVit = Callable[..., VisionTransformer]


class FirstTokens(Downsampler):
    """Keeps the first tokens, after some work."""

    name = "first_tokens"

    def __init__(self, wait: float = 0.0, needs: frozenset[str] = frozenset()) -> None:
        super().__init__()
        self.wait, self.needs = wait, needs
        self.spent: list[float] = []

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        start = time.perf_counter()
        time.sleep(self.wait)
        after = tokens.select(torch.arange(keep).expand(tokens.size.shape[0], keep))
        self.spent.append(time.perf_counter() - start)
        return after


class SlowProbe(AttentionProbe):
    def forward(self, heads: Heads, n_prefix: int, valid: Tensor | None = None) -> dict[str, Tensor]:
        time.sleep(WAIT)
        return super().forward(heads, n_prefix, valid)


class SlowHead(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        time.sleep(WAIT)
        return x


def model_with(vit: VisionTransformer, method: Downsampler) -> DownsampledViT:
    model = DownsampledViT(vit, method, Schedule.stages(0.5, DEPTHS))
    with torch.inference_mode():
        model(IMAGES)  # the first run of a process takes long
    return model


def test_a_method_that_works_hard_has_nearly_all_of_the_time(tiny_vit: MakeVit) -> None:
    method = FirstTokens(wait=WAIT)
    model = model_with(tiny_vit(), method)
    start = time.perf_counter()
    shares = choosing_shares(model, [IMAGES], 0)
    whole_s = time.perf_counter() - start
    own_s = sum(method.spent[-MIN_RUNS * len(DEPTHS) :])  # by the method's own clock
    assert len(shares) == MIN_RUNS
    assert all(0 < share < 1 for share in shares)
    assert median(shares) > 0.8
    assert median(shares) == pytest.approx(own_s / whole_s, abs=0.1)


def test_a_method_that_does_nothing_has_little_of_it(tiny_vit: MakeVit) -> None:
    vit = tiny_vit(depth=12, embed_dim=192)
    shares = choosing_shares(model_with(vit, FirstTokens()), [IMAGES], 0)
    assert median(shares) < 0.5


def test_work_outside_the_method_is_not_the_methods(tiny_vit: MakeVit) -> None:
    vit = tiny_vit()
    vit.head = SlowHead()
    assert median(choosing_shares(model_with(vit, FirstTokens()), [IMAGES], 0)) < 0.2


def test_what_the_method_reads_from_attention_is_its_own(tiny_vit: MakeVit) -> None:
    for needs, least, most in ((frozenset({"keys"}), 0.8, 1.0), (frozenset[str](), 0.0, 0.8)):
        model = model_with(tiny_vit(), FirstTokens(needs=needs))
        model.probe = SlowProbe(needs)
        assert least < median(choosing_shares(model, [IMAGES], 0)) < most


@pytest.mark.parametrize("keep", [1.0, 0.5])
def test_nothing_is_left_in_the_model(tiny_vit: MakeVit, keep: float) -> None:
    method = FirstTokens()
    model = DownsampledViT(tiny_vit(), method, Schedule.stages(keep, DEPTHS))
    hooks: list[Any] = [part for part in model.modules() if part._forward_hooks or part._forward_pre_hooks]
    shares = choosing_shares(model, [IMAGES], 0)
    assert [part for part in model.modules() if part._forward_hooks or part._forward_pre_hooks] == hooks == []
    assert len(method.spent) == (MIN_RUNS * len(DEPTHS) if keep < 1 else 0)
    assert (sum(shares) == 0) == (keep == 1)


def test_a_method_that_raises_leaves_nothing_either(tiny_vit: MakeVit) -> None:
    model = model_with(tiny_vit(), FirstTokens())
    model.downsampler.wait = -1.0  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="sleep"):
        choosing_shares(model, [IMAGES], 0)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_batches_are_used_in_turn(tiny_vit: MakeVit) -> None:
    seen: list[float] = []
    model = model_with(tiny_vit(), FirstTokens())
    model.register_forward_pre_hook(lambda _, inputs: seen.append(float(inputs[0].mean())))
    choosing_shares(model, [IMAGES, IMAGES + 1], 0)
    assert seen == [0, 1, 0, 1, 0]


def test_runs_go_on_until_the_time_is_over(tiny_vit: MakeVit) -> None:
    assert len(choosing_shares(model_with(tiny_vit(), FirstTokens()), [IMAGES], 1.0)) > MIN_RUNS


def test_the_plain_model_has_none(tiny_vit: MakeVit) -> None:
    assert choosing_shares(DownsampledViT(tiny_vit()), [IMAGES], 0) == ()


@pytest.mark.cuda
def test_shares_on_a_gpu(tiny_vit: MakeVit) -> None:
    class Busy(FirstTokens):
        def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
            product = torch.ones(4096, 4096, device=tokens.x.device)
            for _ in range(20):
                product = product @ product * 1e-4
            return tokens.select(torch.arange(keep, device=tokens.x.device).expand(tokens.size.shape[0], keep))

    images = IMAGES.cuda()
    model = DownsampledViT(tiny_vit().cuda(), Busy(), Schedule.stages(0.5, DEPTHS))
    with torch.inference_mode():
        model(images)
    assert median(choosing_shares(model, [images], 0)) > 0.8
