"""DTEM against plain loops."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from plain_math import at, cosine, noisy

from tokbench import DownsampledViT, Downsampler, Geometry, Schedule, Tokens, create, relaxed_matching
from tokbench.errors import UserError
from tokbench.measure.macs import count_macs

DIM = 6


def made(seed: int = 0, stages: int = 2, choice: str = "hard") -> Downsampler:
    torch.manual_seed(seed)
    method = create("dtem", channels=3, choice=choice)
    method.setup(Geometry(DIM, 2, tuple(range(1, 1 + stages)), (3, 3), (5, 3)[:stages]))
    return method.eval()


def groups(z: list[list[float]], keep: int) -> list[list[int]]:
    """The groups of merged tokens, in the order of the result."""
    sources, targets = range(1, len(z), 2), range(0, len(z), 2)
    best = {i: max(targets, key=lambda j: cosine(z[i], z[j])) for i in sources}
    ranked = sorted(sources, key=lambda i: -cosine(z[i], z[best[i]]))
    merged = ranked[: len(z) - max(keep, len(targets))]
    left = [[i] for i in sources if i not in merged]
    return left + [[j] + [i for i in merged if best[i] == j] for j in targets]


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("n", [2, 3, 8, 9])
def test_the_most_similar_embeddings_are_merged(n: int, stage: int):
    for seed in range(4):
        method = made(seed).double()
        weight = method.embeddings[stage].weight.tolist()
        bias = method.embeddings[stage].bias.tolist()
        size = torch.randint(1, 5, (2, n), generator=torch.Generator().manual_seed(seed)).float()
        tokens = Tokens.from_sequence(noisy(2, 1 + n, DIM, seed=seed).double(), (1, n)).replace(size=size)
        for keep in range(1, n):
            after = method(tokens, keep, at(stage))
            assert after.n_patches == method.count(keep, n, stage, None) == max(keep, math.ceil(n / 2))
            assert after.size.sum(dim=1).tolist() == size.sum(dim=1).tolist()
            for b in range(2):
                x = tokens.patches[b].tolist()
                z = [
                    [
                        sum(w * v for w, v in zip(row, token, strict=True)) + c
                        for row, c in zip(weight, bias, strict=True)
                    ]
                    for token in x
                ]
                for k, group in enumerate(groups(z, keep)):
                    total = sum(size[b, i].item() for i in group)
                    wanted = [sum(size[b, i].item() * x[i][c] for i in group) / total for c in range(DIM)]
                    assert after.patches[b, k].tolist() == pytest.approx(wanted)
                    assert after.size[b, k] == total
                    assert [i for i in range(n) if after.owner[b, i] == k] == sorted(group)


def plain_shares(similarity: list[list[float]], r: int) -> list[list[float]]:
    """The relaxed choice of r pairs, of one image."""
    targets = [sorted(range(len(row)), key=lambda j: -row[j])[:3] for row in similarity]
    logits = {(i, j): similarity[i][j] / 0.1 for i, best in enumerate(targets) for j in best}
    shares = dict.fromkeys(logits, 0.0)
    for _ in range(r):
        total = sum(math.exp(logit / 0.1) for logit in logits.values())
        chosen = {pair: math.exp(logit / 0.1) / total for pair, logit in logits.items()}
        shares = {pair: share + chosen[pair] for pair, share in shares.items()}
        rest = [1 - sum(chosen[i, j] for j in best) for i, best in enumerate(targets)]
        logits = {(i, j): logit + math.log(rest[i]) for (i, j), logit in logits.items()}
    sums = [max(1.0, sum(shares[i, j] for j in best)) for i, best in enumerate(targets)]
    return [[shares.get((i, j), 0.0) / sums[i] for j in range(len(row))] for i, row in enumerate(similarity)]


@pytest.mark.parametrize(("sources", "targets", "r"), [(1, 1, 1), (2, 2, 1), (4, 5, 3), (6, 6, 6)])
def test_the_relaxed_choice_is_that_of_the_formula(sources: int, targets: int, r: int):
    similarity = 0.3 * noisy(3, sources, targets, seed=r).double()
    shares = relaxed_matching(similarity, r, 0.1)
    for b in range(3):
        if (sources, targets) == (1, 1):
            assert shares[b].item() == 1
            continue
        expected = torch.tensor(plain_shares(similarity[b].tolist(), r), dtype=torch.float64)
        torch.testing.assert_close(shares[b], expected)


def test_the_relaxed_choice_has_the_gradient_of_finite_differences():
    similarity = (0.01 * noisy(2, 4, 5, seed=1)).double().requires_grad_()
    # Sums above 1 are divided by a constant, which has no gradient, and are not in this example.
    assert (relaxed_matching(similarity, 2, 0.1).sum(dim=2) < 1).all()
    assert torch.autograd.gradcheck(lambda s: relaxed_matching(s, 2, 0.1), similarity)


def test_training_merges_by_the_shares():
    method = made(seed=1, choice="soft").double().train()
    x = noisy(2, 1 + 9, DIM, seed=1).double()
    after = method.relaxed(Tokens.from_sequence(x, (3, 3)), 6, at(0))
    patches, z = x[:, 1:], method.embeddings[0](x[:, 1:])
    for b in range(2):
        similarity = [[cosine(z[b, i].tolist(), z[b, j].tolist()) for j in range(0, 9, 2)] for i in range(1, 9, 2)]
        shares = plain_shares(similarity, 3)
        mass, means = [1 - sum(row) for row in shares], patches[b, 1::2].tolist()
        for j, target in enumerate(range(0, 9, 2)):
            column = [row[j] for row in shares]
            mass.append(1 + sum(column))
            moved = [sum(a * float(patches[b, 1 + 2 * i, c]) for i, a in enumerate(column)) for c in range(DIM)]
            means.append([(float(patches[b, target, c]) + moved[c]) / mass[-1] for c in range(DIM)])
        gone = sorted(range(4), key=lambda i: mass[i])[:3]
        order = [i for i in range(4) if i not in gone] + list(range(4, 9)) + sorted(gone, key=lambda i: -mass[i])
        torch.testing.assert_close(after.patches[b], torch.tensor(means, dtype=torch.float64)[order])
        weights = (after.size * after.presence)[b].tolist()
        assert weights == pytest.approx([mass[k] for k in order], abs=1e-6)
        assert sum(weights) == pytest.approx(9)
        assert after.presence[b].tolist() == pytest.approx([min(mass[k], 1) for k in order], abs=1e-6)


POOLINGS: list[dict[str, Any]] = [{}, {"global_pool": "avg"}, {"global_pool": "map", "class_token": False}]


@pytest.mark.parametrize("settings", POOLINGS, ids=str)
@pytest.mark.parametrize(("choice", "temperature", "tolerance"), [("hard", 0.1, 1e-9), ("soft", 1e-4, 1e-6)])
def test_training_with_sure_choices_equals_evaluation(
    choice: str, temperature: float, tolerance: float, settings: dict[str, Any], tiny_vit: Callable[..., Any]
):
    torch.manual_seed(0)
    method = create("dtem", choice=choice)
    model = DownsampledViT(tiny_vit(**settings).double(), method, Schedule.every_block(r=3))
    method.temperature = temperature  # so low that the soft choice is hard, too
    leaving: dict[bool, list[int]] = {True: [], False: []}
    pixels = noisy(4, 3, 32, 32, seed=7).double()
    with torch.no_grad():
        trained = model.train()(pixels, observe=lambda _, tokens: leaving[True].append(tokens.n_patches))
        measured = model.eval()(pixels, observe=lambda _, tokens: leaving[False].append(tokens.n_patches))
    assert leaving == {True: [16] * 4, False: [13, 10, 7, 4]}
    torch.testing.assert_close(trained, measured, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("choice", ["hard", "soft"])
def test_training_gives_a_finite_gradient_for_every_weight(choice: str):
    for keep, scale in ((6, 1.0), (5, 1.0), (5, 1e-4), (5, 1e4)):
        method = made(choice=choice).train()
        tokens = Tokens.from_sequence(scale * noisy(3, 10, DIM, seed=1), (3, 3))
        first = method.relaxed(tokens, keep, at(0))
        second = method.relaxed(first, 3, at(1))
        outputs = (first, second)
        sum((output.patches.square().sum(dim=2) * output.presence).sum() for output in outputs).backward()
        for name, parameter in method.named_parameters():
            assert parameter.grad.isfinite().all(), name
            assert scale != 1 or parameter.grad.abs().sum() > 1e-6, name


def test_the_embedding_gives_no_gradient_to_the_backbone():
    method, x = made().train(), noisy(2, 10, DIM, seed=2)
    leaf = x.clone().requires_grad_()
    after = method.relaxed(Tokens.from_sequence(leaf, (3, 3)), 5, at(0))
    assert not torch.autograd.grad(after.presence.sum(), leaf, allow_unused=True)[0]


def test_weights_can_be_saved_and_loaded():
    method, other = made(seed=1), made(seed=2)
    tokens = Tokens.from_sequence(noisy(4, 10, DIM, seed=3), (3, 3))
    assert not torch.equal(method(tokens, 6, at(0)).owner, other(tokens, 6, at(0)).owner)
    other.load_state_dict(method.state_dict())
    assert torch.equal(method(tokens, 6, at(0)).owner, other(tokens, 6, at(0)).owner)


def test_an_image_gives_the_same_result_in_any_batch():
    method, x = made(), noisy(5, 10, DIM, seed=6)
    together = method(Tokens.from_sequence(x, (3, 3)), 6, at(0))
    for b in range(5):
        alone = method(Tokens.from_sequence(x[b : b + 1], (3, 3)), 6, at(0))
        assert torch.equal(alone.owner[0], together.owner[b])


def test_compute_matches_the_paper():
    # arXiv 2412.10569: the abstract's 37.2 % saved on DeiT-S; table 1's 2.35 gmacs, which count some element-wise work.
    vit = timm.create_model("deit_small_patch16_224", pretrained=False).eval()
    plain = 4_598_882_304

    def gmacs(schedule: Schedule) -> float:
        return count_macs(DownsampledViT(vit, create("dtem"), schedule).eval(), torch.zeros(1, 3, 224, 224)).total / 1e9

    published = create("dtem").schedule
    assert published is not None
    assert round(100 * (1 - gmacs(Schedule.parse(published)) / plain * 1e9), 1) == 37.2
    assert gmacs(Schedule.every_block(r=16)) == pytest.approx(2.35, rel=0.015)


def test_invalid_parameters_are_rejected():
    with pytest.raises(UserError, match="channels"):
        create("dtem", channels=0)
