"""Every method in a model, at each of its sites and in half precision."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from method_calls import EACH, Variant, noisy

from tokbench import DownsampledViT, Schedule, calibrate, create
from tokbench.errors import UserError
from tokbench.registry import discover


@EACH
def test_every_method_runs_in_a_model_at_each_of_its_sites(variant: Variant, tiny_vit: Callable[..., Any]):
    name, params = variant
    vit, x = tiny_vit(), noisy(3, 3, 32, 32)
    for site in create(name, **params).sites:
        torch.manual_seed(0)
        method = create(name, **params)
        schedule = Schedule.stages(0.5, (1, 2))
        model = DownsampledViT(vit, method, schedule, site=site).eval()
        calibrate(model, noisy(4, 3, 32, 32, seed=5))
        counts: list[int] = []
        pixels = x.clone().requires_grad_()
        logits = model(pixels, observe=lambda _, tokens, into=counts: into.append(tokens.n_patches))
        assert logits.shape == (3, 10)
        assert logits.isfinite().all()
        if not method.adaptive:
            n, layout, plan = 16, (4, 4), []
            for depth in (1, 2):
                keep = -(-n // 2)
                n, layout = method.count(keep, n, depth, layout), method.layout_after(keep, layout)
                plan.append(n)
            assert counts == [16, *plan, plan[-1]]
        logits.square().sum().backward()
        assert pixels.grad.isfinite().all()
        assert (pixels.grad != 0).flatten(1).any(dim=1).all()
        with torch.no_grad():
            assert torch.equal(model(x), model(x))
            for b in range(3):
                alone = model(x[b : b + 1], torch.tensor([b]))
                assert torch.allclose(alone[0], logits[b], rtol=1e-4, atol=1e-4)


@EACH
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_method_runs_in_a_half_precision_model(
    variant: Variant, dtype: torch.dtype, tiny_vit: Callable[..., Any]
):
    name, params = variant
    torch.manual_seed(0)
    model = DownsampledViT(tiny_vit(std=0.05).to(dtype), create(name, **params), Schedule.stages(0.5, (1, 2)))
    calibrate(model, noisy(4, 3, 32, 32, seed=5).to(dtype))
    with torch.no_grad():
        logits = model(noisy(2, 3, 32, 32).to(dtype))
    assert logits.dtype == dtype
    assert logits.isfinite().all()


@pytest.mark.parametrize("name", list(discover()[0]))
def test_every_method_is_described(name: str):
    cls = discover()[0][name]
    assert cls.__doc__
    assert cls.paper is not None
    assert cls.site in cls.sites
    assert len(name.splitlines()) == 1
    assert name.isidentifier()  # so that the command line can name it
    if cls.schedule is not None:
        schedules = []
        for keep in (None, 0.7):
            try:
                schedules.append(Schedule.parse(cls.schedule, keep))
            except UserError:
                continue
        assert len(schedules) == 1
    for parameter in inspect.signature(cls).parameters.values():
        assert parameter.default is not parameter.empty
        assert f"{parameter.name}:" in cls.__init__.__doc__
