"""PPT against plain loops, and its published schedule against its published compute."""

import math
import statistics

import pytest
import timm
import torch
from torch import Tensor

from tokbench import Context, DownsampledViT, Schedule, Tokens, create
from tokbench.errors import UserError
from tokbench.measure.macs import count_macs

HEADS = 2


class Image:
    """Random tokens with their context; the larger `contrast`, the more the scores differ."""

    def __init__(self, seed: int, batch: int, n: int, contrast: list[float]) -> None:
        generator = torch.Generator().manual_seed(seed)

        def draw(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.float64)

        self.n = n
        self.x = draw(batch, n, 3)
        self.keys = draw(batch, n, 4)
        self.values = draw(batch, HEADS, n, 4)
        self.cls = (draw(batch, n) * torch.tensor(contrast, dtype=torch.float64)[:, None]).exp() / 50
        self.size = torch.randint(1, 5, (batch, n), generator=generator).float()

    def reduced(self, keep: int, threshold: float) -> Tokens:
        x = torch.cat([torch.zeros_like(self.x[:, :1]), self.x], dim=1)
        tokens = Tokens.from_sequence(x, (1, self.n)).replace(size=self.size)
        fields = {"keys": self.keys, "values": self.values, "cls_attention": self.cls}
        context = Context(depth=3, depths=(3,), stage=0, noise=torch.zeros(self.size.shape), **fields)
        return create("ppt", threshold=threshold)(tokens, keep, context)

    def scores(self, b: int) -> list[float]:
        raw = []
        for i in range(self.n):
            length = math.sqrt(sum(v * v for head in range(HEADS) for v in self.values[b, head, i].tolist()))
            raw.append(HEADS * self.cls[b, i].item() * length)  # the sum over heads of A[h, class, i], times |v_i|
        return [one / sum(raw) for one in raw]

    def pruned(self, b: int, left: int) -> set[frozenset[int]]:
        score = self.scores(b)
        return {frozenset({i}) for i in sorted(range(self.n), key=lambda i: -score[i])[:left]}

    def pooled(self, b: int, left: int) -> set[frozenset[int]]:
        keys = self.keys[b].tolist()

        def cosine(i: int, j: int) -> float:
            dot = sum(p * q for p, q in zip(keys[i], keys[j], strict=True))
            return dot / math.hypot(*keys[i]) / math.hypot(*keys[j])

        # ToMe's sequence begins with the class token, a source: patches 1, 3, 5, ... are the other sources.
        targets = range(0, self.n, 2)
        best = {i: max(targets, key=lambda j: cosine(i, j)) for i in range(1, self.n, 2)}
        groups = {i: {i} for i in range(self.n)}
        for i in sorted(best, key=lambda i: -cosine(i, best[i]))[: self.n - left]:
            groups[best[i]] |= groups.pop(i)
        return {frozenset(group) for group in groups.values()}


def groups_of(after: Tokens, b: int) -> list[frozenset[int]]:
    owner = after.owner[b].tolist()
    return [frozenset(i for i, k in enumerate(owner) if k == wanted) for wanted in range(after.n_patches)]


@pytest.mark.parametrize(("seed", "n"), [(0, 2), (1, 3), (2, 8), (3, 13)])
def test_each_image_is_pruned_or_pooled_according_to_its_variance(seed: int, n: int):
    image = Image(seed, 4, n, [0.1, 2.0, 0.1, 2.0])
    variance = [statistics.variance(image.scores(b)) for b in range(4)]
    for keep in range(1, n):
        left = max(keep, math.ceil(n / 2))
        for threshold in (0.0, statistics.median(variance), 1.0):
            after = image.reduced(keep, threshold)
            assert after.n_patches == left == create("ppt").count(keep, n, 3, None)
            for b in range(4):
                wanted = image.pooled(b, left) if variance[b] < threshold else image.pruned(b, left)
                groups = groups_of(after, b)
                assert set(groups) == wanted
                for k, group in enumerate(groups):
                    mass = sum(float(image.size[b, i]) for i in group)
                    mean = [
                        sum(float(image.size[b, i]) * image.x[b, i, c].item() for i in group) / mass for c in range(3)
                    ]
                    assert after.patches[b, k].tolist() == pytest.approx(mean)
                    assert float(after.size[b, k]) == mass


def test_one_batch_may_be_pruned_and_pooled():
    image = Image(5, 4, 12, [0.0, 3.0, 0.0, 3.0])
    variance = sorted(statistics.variance(image.scores(b)) for b in range(4))
    after = image.reduced(8, (variance[1] + variance[2]) / 2)
    assert [row.count(-1) for row in after.owner.tolist()] == [0, 4, 0, 4]


def test_pruning_keeps_the_order_and_the_sizes():
    image = Image(6, 2, 10, [1.0, 1.0])
    after = image.reduced(6, 0.0)
    for b in range(2):
        kept = [i for i in range(10) if after.owner[b, i] >= 0]
        assert after.owner[b, kept].tolist() == list(range(6))
        assert torch.equal(after.size[b], image.size[b, kept])


def test_attention_that_underflows_to_zero_is_pooled():
    image = Image(7, 1, 8, [1.0])
    image.cls = torch.zeros_like(image.cls)
    after = image.reduced(6, 7e-5)
    assert after.patches.isfinite().all()
    assert -1 not in after.owner[0].tolist()


def test_deit_s_has_the_published_compute():
    vit = timm.create_model("deit_small_patch16_224", pretrained=False).eval()
    method = create("ppt")
    macs = count_macs(DownsampledViT(vit, method, Schedule.parse(method.schedule)), torch.zeros(1, 3, 224, 224))
    ledger = macs.ledger
    assert ledger.leaving == (196,) * 3 + (146,) * 3 + (96,) * 3 + (48,) * 3
    backbone = macs.total - macs.method
    norms = 384 * (sum(ledger.attention) + sum(ledger.mlp) + ledger.leaving[-1] + 1)
    # The published 2.944 includes LayerNorm, with 1 to 5 operations per element, depending on the counter.
    assert backbone + norms <= 2.944412e9 <= backbone + 5 * norms
    assert macs.method < 0.01e9


def test_a_negative_threshold_is_rejected():
    with pytest.raises(UserError):
        create("ppt", threshold=-1e-5)
