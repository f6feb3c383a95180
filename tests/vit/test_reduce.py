"""`tokbench.reduce` against models put together by hand, and everything an nn.Module is expected to do."""

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from small_models import AT, METHODS, logits, weights_of
from timm.models.vision_transformer import VisionTransformer
from torch import nn

import tokbench
from tokbench import (
    Context,
    DownsampledViT,
    Downsampler,
    Schedule,
    Tokens,
    count_macs,
    create,
    solve_budget,
)
from tokbench.errors import UserError
from tokbench.measure.macs import spread_of_macs
from tokbench.vit.supported import UnsupportedModelError

MakeViT = Callable[..., VisionTransformer]


class Halves(Downsampler):
    """Keep the first tokens; not registered."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        return tokens.select(torch.arange(keep, device=tokens.x.device).expand(tokens.x.shape[0], keep))


# What is built


@pytest.mark.parametrize(
    ("arguments", "options", "method", "schedule"),
    [
        (("tome",), {}, ("tome", {}), Schedule.stages(0.7)),
        (("tome", 0.5), {"schedule": AT}, ("tome", {}), Schedule.stages(0.5, (1, 2))),
        (
            ("token_pooling(algorithm=kmeans)", 0.5),
            {},
            ("token_pooling", {"algorithm": "kmeans"}),
            Schedule.stages(0.5),
        ),
        (
            ("token_pooling", 0.5),
            {"algorithm": "kmeans"},
            ("token_pooling", {"algorithm": "kmeans"}),
            Schedule.stages(0.5),
        ),
        (
            ("token_pooling(algorithm=kmeans)", 0.5),
            {"iterations": 2},
            ("token_pooling", {"algorithm": "kmeans", "iterations": 2}),
            Schedule.stages(0.5),
        ),
        (("random_selection", 0.5), {"seed": 3}, ("random_selection", {}), Schedule.stages(0.5)),
        (("score_pruning", 0.5), {"site": "after_block"}, ("score_pruning", {}), Schedule.stages(0.5)),
        (("tome",), {"schedule": "every_block(r=1)"}, ("tome", {}), Schedule.every_block(r=1)),
        (("tome", None), {"schedule": "every_block(r=1)"}, ("tome", {}), Schedule.every_block(r=1)),
        (("tome", 0.9), {"schedule": "every_block"}, ("tome", {}), Schedule.every_block(0.9)),
        (("tome",), {"schedule": "explicit(counts=9-5,at=2-7)"}, ("tome", {}), Schedule.explicit((9, 5), (2, 7))),
        (("tome",), {"schedule": Schedule.stages(0.5, (4,))}, ("tome", {}), Schedule.stages(0.5, (4,))),
        (("tome",), {"schedule": "published"}, ("tome", {}), Schedule.parse(METHODS["tome"].schedule or "")),
        (("evit", 0.5), {"schedule": "published"}, ("evit", {}), Schedule.stages(0.5)),
    ],
)
def test_it_is_the_model_that_one_would_put_together(
    arguments: tuple[Any, ...],
    options: dict[str, Any],
    method: tuple[str, dict[str, Any]],
    schedule: Schedule,
    tiny_vit: MakeViT,
) -> None:
    name, params = method
    vit = tiny_vit(depth=12)
    expected = DownsampledViT(
        vit, create(name, **params), schedule, site=options.get("site"), seed=options.get("seed", 0)
    )
    model = tokbench.reduce(vit, *arguments, **options)
    assert isinstance(model, DownsampledViT)
    assert (model.depths, model.counts, model.site) == (expected.depths, expected.counts, expected.site)
    assert model.schedule == schedule
    assert torch.equal(logits(model), logits(expected))
    assert not torch.equal(logits(model), logits(vit))


def test_a_method_of_ones_own_need_not_be_registered(tiny_vit: MakeViT) -> None:
    vit, method = tiny_vit(), Halves()
    model = tokbench.reduce(vit, method, 0.5, schedule=AT)
    assert model.downsampler is method
    assert torch.equal(logits(model), logits(DownsampledViT(vit, Halves(), Schedule.stages(0.5, (1, 2)))))


def test_keep_one_is_the_plain_model(tiny_vit: MakeViT) -> None:
    vit = tiny_vit()
    assert torch.equal(logits(tokbench.reduce(vit, "tome", 1, schedule=AT)), logits(vit))


def test_a_budget_is_met(tiny_vit: MakeViT) -> None:
    vit = tiny_vit(depth=12, embed_dim=48, img_size=64).train()
    before = weights_of(vit)
    model = tokbench.reduce(vit, "random_selection", schedule="budget(0.6,at=2-5)")
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in vit.state_dict().items())
    assert model.depths == (2, 5)
    assert model.schedule is not None
    assert model.schedule.keep == solve_budget(vit, "random_selection", 0.6, at=(2, 5))
    image = torch.zeros(1, 3, 64, 64)
    plain = count_macs(DownsampledViT(vit).eval(), image).total
    assert count_macs(model.eval(), image).total == pytest.approx(0.6 * plain, rel=0.01)


def test_a_budget_leaves_a_method_with_weights_as_it_is(tiny_vit: MakeViT) -> None:
    vit = tiny_vit(depth=12, embed_dim=48, img_size=64)
    model = tokbench.reduce(vit, "dtem", schedule="stages(at=2-5)")
    assert model.downsampler is not None
    before = weights_of(model.downsampler)
    solve_budget(vit, model.downsampler, 0.8, at=(2, 5))
    assert all(torch.equal(value, before[name]) for name, value in model.downsampler.state_dict().items())


def test_an_adaptive_method_gets_its_budget_on_the_images_given(tiny_vit: MakeViT) -> None:
    vit = tiny_vit(depth=12, embed_dim=48, img_size=64)
    batch = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    for call in (
        lambda: solve_budget(vit, "ats", 0.8),
        lambda: tokbench.reduce(vit, "ats", schedule="budget(0.8)"),
    ):
        with pytest.raises(UserError, match=r"'ats' is adaptive.*solve_budget\(\.\.\., images=\.\.\.\)"):
            call()
    keep = solve_budget(vit, "ats", 0.5, images=batch)
    model = tokbench.reduce(vit, "ats", keep)
    plain = count_macs(DownsampledViT(vit), batch[:1]).total
    assert spread_of_macs(model, [batch]).total == pytest.approx(0.5 * plain, rel=0.01)


# User errors


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("tomme",), {}, r"unknown method 'tomme': did you mean 'tome'\?"),
        (("tome(",), {}, "expected name or name"),
        (("token_pooling(kmeans)",), {}, r"name its parameters, as in token_pooling\(parameter=value\)"),
        (("token_pooling(algorithm=kmean)",), {}, "method 'token_pooling': algorithm: "),
        (("tome",), {"iterations": 3}, "method 'tome' has no parameter 'iterations'"),
        (("token_pooling(iterations=3)",), {"iterations": 4}, "parameter 'iterations' is given twice"),
        ((Halves(),), {"iterations": 4}, "iterations: an existing Halves takes no parameters"),
        ((Halves,), {}, "a method is a name, as in 'tome', or a Downsampler; got <class"),
        (("tome", 0), {}, r"keep 0.0 is outside \(0, 1\]"),
        (("tome", 1.5), {}, r"keep 1.5 is outside \(0, 1\]"),
        (("tome", float("nan")), {}, r"outside \(0, 1\]"),
        (("tome", "most"), {}, "keep: input should be a valid number"),
        (("tome", None), {}, "schedule 'stages' needs a keep"),
        (("tome",), {"schedule": "stage"}, "unknown schedule 'stage': did you mean 'stages'"),
        (("tome",), {"schedule": "stages(at=3-9-12)"}, "depth 12 is outside the model"),
        (
            ("tome", 0.5),
            {"schedule": "every_block(r=1)"},
            "already fixes the token counts; drop keep",
        ),
        (("tome", 0.5), {"schedule": "budget(0.7)"}, r"'budget\(0.7\)' already fixes the token counts; drop keep=0.5"),
        (("tome", 0.5), {"schedule": Schedule.stages(0.9)}, "already fixes the token counts; drop keep=0.5"),
        (("tome",), {"schedule": "budget(7)"}, "budget"),
        (("tome",), {"schedule": 3}, "a schedule is a text"),
        (("tome",), {"schedule": "budget(0.05)"}, "no keep comes within 1% of the budget 0.05"),
        (("tome",), {"site": "inside"}, "cannot act inside; its sites are"),
    ],
)
def test_a_user_error_is_one_line(
    arguments: tuple[Any, ...], options: dict[str, Any], message: str, tiny_vit: MakeViT
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        tokbench.reduce(tiny_vit(depth=12), *arguments, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [lambda: timm.create_model("resnet18"), lambda: nn.Linear(2, 2), lambda: "vit"])
def test_an_unsupported_model_is_refused(make: Callable[[], Any]) -> None:
    for call in (lambda: tokbench.reduce(make(), "tome"), lambda: solve_budget(make(), "tome", 0.7)):
        with pytest.raises(
            UnsupportedModelError, match="is not supported: it is not a timm VisionTransformer"
        ) as caught:
            call()
        assert "\n" not in str(caught.value)
