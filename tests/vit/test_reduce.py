"""`tokbench.reduce` against models put together by hand, and everything an nn.Module is expected to do."""

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import tokbench
from tokbench import (
    Context,
    DownsampledViT,
    Downsampler,
    Schedule,
    Tokens,
    count_macs,
    create,
    load_model,
    solve_budget,
)
from tokbench.errors import UserError
from tokbench.measure.macs import spread_of_macs
from tokbench.registry import discover
from tokbench.vit.backbone import UnsupportedModelError
from tokbench.vit.models import load_method_weights

MakeViT = Callable[..., VisionTransformer]
METHODS = discover()[0]
TRAINED = [name for name, cls in METHODS.items() if cls.trained]
AT = "stages(at=1-2)"
KMEANS = {"algorithm": "kmeans"}


def images(batch: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def logits(model: nn.Module, seed: int = 0) -> Tensor:
    with torch.inference_mode():
        return model(images(seed=seed))


def weights_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


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


# What a module does


def test_parameters_are_shared_unless_the_model_is_copied_first(tiny_vit: MakeViT) -> None:
    vit = tiny_vit()
    assert tokbench.reduce(vit, "tome", schedule=AT).vit is vit
    apart = tokbench.reduce(copy.deepcopy(vit), "tome", schedule=AT)
    before = logits(vit)
    with torch.no_grad():
        for parameter in apart.parameters():
            parameter.add_(1)
    assert torch.equal(logits(vit), before)


@pytest.mark.parametrize("training", [False, True])
def test_it_stays_in_the_mode_of_the_model(training: bool, tiny_vit: MakeViT) -> None:
    model = tokbench.reduce(tiny_vit().train(training), "dtem", schedule=AT)
    assert {module.training for module in model.modules()} == {training}
    model.train(not training)
    assert {module.training for module in model.modules()} == {not training}


def test_a_part_that_is_kept_in_evaluation_mode_stays_in_it(tiny_vit: MakeViT) -> None:
    vit = tiny_vit().train()
    vit.blocks[0].eval()
    model = tokbench.reduce(vit, "tome", schedule=AT)
    assert model.training
    assert not vit.blocks[0].training
    assert vit.blocks[1].training


def test_dropout_acts_in_training_only(tiny_vit: MakeViT) -> None:
    model = tokbench.reduce(tiny_vit(drop_path_rate=0.5), "tome", schedule=AT)
    expected = logits(model)
    torch.manual_seed(1)
    assert not torch.equal(logits(model.train()), expected)
    assert torch.equal(logits(model.eval()), expected)


@pytest.mark.parametrize("name", ["tome", "grid_pooling", *TRAINED])
def test_gradients_reach_the_model_and_the_method(name: str, tiny_vit: MakeViT) -> None:
    torch.manual_seed(0)
    model = tokbench.reduce(tiny_vit().train(), name, 0.5, schedule=AT)
    model(images()).square().sum().backward()
    gradients = {parameter: value.grad for parameter, value in model.named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    assert [parameter for parameter, gradient in gradients.items() if not (gradient != 0).any()] == []
    assert (name in TRAINED) == any(parameter.startswith("downsampler.") for parameter in gradients)


@pytest.mark.parametrize("name", ["grid_pooling", "sinkhorn", "token_learner"])
def test_gradients_are_those_of_finite_differences(name: str, tiny_vit: MakeViT) -> None:
    torch.manual_seed(0)
    model = tokbench.reduce(tiny_vit().double(), name, 0.5, schedule=AT).double()
    x = images().double()
    parameters = list(model.parameters())
    generator = torch.Generator().manual_seed(5)
    direction = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in parameters]
    model(x).square().sum().backward()
    slope = sum(float((p.grad * d).sum()) for p, d in zip(parameters, direction, strict=True) if p.grad is not None)

    def moved(step: float) -> float:
        with torch.no_grad():
            for parameter, d in zip(parameters, direction, strict=True):
                parameter.add_(d, alpha=step)
            value = float(model(x).square().sum())
            for parameter, d in zip(parameters, direction, strict=True):
                parameter.sub_(d, alpha=step)
        return value

    step = 1e-6
    assert (moved(step) - moved(-step)) / (2 * step) == pytest.approx(slope, rel=1e-4)


def test_training_lowers_the_loss(tiny_vit: MakeViT) -> None:
    torch.manual_seed(0)
    model = tokbench.reduce(tiny_vit(std=0.05).train(), "dynamic_vit", 0.5, schedule=AT)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    labels = torch.tensor([1, 2, 3])
    losses = []
    for _ in range(10):
        loss = nn.functional.cross_entropy(model(images()), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_it_compiles_as_one_graph_and_trains_compiled(tiny_vit: MakeViT) -> None:
    model = tokbench.reduce(tiny_vit(depth=2), "tome", 0.5, schedule="stages(at=0)")
    expected = model(images())
    expected.square().sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="aot_eager")
    actual = compiled(images())
    actual.square().sum().backward()
    assert torch.allclose(actual, expected, rtol=1e-5, atol=1e-5)
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.allclose(parameter.grad, gradient, rtol=1e-4, atol=1e-4)


def test_it_can_be_exported(tiny_vit: MakeViT) -> None:
    model = tokbench.reduce(tiny_vit(depth=2), "tome", 0.5, schedule="stages(at=0)")
    exported = torch.export.export(model, (images(),)).module()
    assert torch.allclose(exported(images(seed=1)), model(images(seed=1)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["dtem", "random_selection", "ats"])
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_do_the_same_and_are_independent(
    name: str, copied: Callable[[nn.Module], nn.Module], tiny_vit: MakeViT
) -> None:
    model = tokbench.reduce(tiny_vit(), name, 0.5, schedule=AT, seed=2)
    expected = logits(model)
    other = copied(model)
    assert torch.equal(logits(other), expected)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    assert torch.equal(logits(model), expected)


@pytest.mark.parametrize("name", ["tome", *TRAINED])
def test_a_state_dict_makes_another_the_same(name: str, tiny_vit: MakeViT, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = tokbench.reduce(tiny_vit(), name, 0.5, schedule=AT)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    fresh = tokbench.reduce(tiny_vit(std=0.1), name, 0.5, schedule=AT)
    assert not torch.equal(logits(fresh), logits(model))
    fresh.load_state_dict(torch.load(tmp_path / "model.pth", weights_only=True))
    assert torch.equal(logits(fresh), logits(model))


@pytest.mark.parametrize("name", METHODS)
def test_autocast_trains(name: str, tiny_vit: MakeViT) -> None:
    model = tokbench.reduce(tiny_vit(depth=2).train(), name, 0.5, schedule="stages(at=1)")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(images())
        loss = out.float().square().sum()
    loss.backward()
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(gradient.isfinite().all() for gradient in gradients)


def saved_elements(model: nn.Module) -> int:
    """How many numbers the forward pass keeps for the backward pass."""
    seen = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal seen
        seen += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model(images()).sum()
    return seen


@pytest.mark.parametrize(
    ("name", "site"),
    [("tome", None), ("dynamic_vit", None), ("score_pruning(score=received)", "before_block"), ("ats", None)],
)
def test_gradient_checkpointing_saves_memory_and_changes_nothing(name: str, site: Any, tiny_vit: MakeViT) -> None:
    torch.manual_seed(0)
    model = tokbench.reduce(tiny_vit(drop_path_rate=0.3).train(), name, 0.5, schedule=AT, site=site)

    def gradients() -> Iterator[Tensor]:
        model.zero_grad()
        torch.manual_seed(4)
        model(images()).square().sum().backward()
        return (parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None)

    plainly, kept = list(gradients()), saved_elements(model)
    model.vit.set_grad_checkpointing()
    for expected, actual in zip(plainly, gradients(), strict=True):
        assert torch.allclose(actual, expected, rtol=1e-5, atol=1e-6)
    assert saved_elements(model) < 0.2 * kept


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


# Weights that were saved from it


@pytest.fixture(scope="module")
def digits() -> VisionTransformer:
    return load_model("digits_deit").vit


def trained(vit: VisionTransformer, method: str, keep: float = 0.5) -> DownsampledViT:
    """A model whose every parameter has moved."""
    torch.manual_seed(1)
    model = tokbench.reduce(copy.deepcopy(vit), method, keep)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    return model


def canvas_logits(model: nn.Module) -> Tensor:
    with torch.inference_mode():
        return model(torch.randn(2, 1, 32, 32, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("how", ["pth", "safetensors", "parallel", "checkpoint"])
def test_its_weights_are_read_from_a_file(how: str, digits: VisionTransformer, tmp_path: Path) -> None:
    model = trained(digits, "dtem")
    file = tmp_path / f"model.{'safetensors' if how == 'safetensors' else 'pth'}"
    state = model.state_dict()
    if how == "safetensors":
        save_file(state, file)
    elif how == "parallel":
        torch.save({f"module.{key}": value for key, value in state.items()}, file)
    else:
        torch.save({"model": state} if how == "checkpoint" else state, file)
    pretrained = load_model("digits_deit", str(file))
    assert torch.equal(canvas_logits(pretrained.vit), canvas_logits(model.vit))
    assert pretrained.downsampler.keys() == model.downsampler.state_dict().keys()
    again = tokbench.reduce(pretrained.vit, "dtem", 0.5)
    load_method_weights(again, pretrained.downsampler)
    assert torch.equal(canvas_logits(again), canvas_logits(model))


def test_a_timm_model_reads_them_too(tmp_path: Path) -> None:
    model = trained(load_model("deit_tiny_patch16_224", "random").vit, "tome")
    torch.save(model.state_dict(), tmp_path / "model.pth")
    pretrained = load_model("deit_tiny_patch16_224", tmp_path / "model.pth")
    assert pretrained.downsampler == {}
    state = pretrained.vit.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in model.vit.state_dict().items())


def test_the_method_is_part_of_the_weights_identity(digits: VisionTransformer, tmp_path: Path) -> None:
    model = trained(digits, "dtem")
    torch.save(model.state_dict(), tmp_path / "a.pth")
    torch.save({**model.state_dict(), "downsampler.embeddings.0.bias": torch.ones(64)}, tmp_path / "b.pth")
    torch.save(model.vit.state_dict(), tmp_path / "c.pth")
    identities = {load_model("digits_deit", tmp_path / name).identity for name in ("a.pth", "b.pth", "c.pth")}
    assert len(identities) == 3


def test_methods_without_weights_take_none(digits: VisionTransformer) -> None:
    weights = trained(digits, "dtem").downsampler.state_dict()
    load_method_weights(tokbench.reduce(digits, "tome"), weights)
    load_method_weights(DownsampledViT(digits), weights)
    model = tokbench.reduce(digits, "dtem")
    before = weights_of(model)
    load_method_weights(model, {})
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("dynamic_vit", {}, r"do not fit method 'dynamic_vit' with stages\(at=3-6-9\): missing predictors"),
        ("dtem", {"schedule": "stages(at=3-6)"}, r"with stages\(at=3-6\): unexpected embeddings.2.bias"),
        ("dtem(channels=8)", {}, r"with wrong shape embeddings.0.weight \(64, 48\), expected \(8, 48\)"),
    ],
)
def test_another_methods_weights_are_refused(
    method: str, options: dict[str, Any], message: str, digits: VisionTransformer
) -> None:
    weights = trained(digits, "dtem").downsampler.state_dict()
    with pytest.raises(UserError, match=message) as caught:
        load_method_weights(tokbench.reduce(digits, method, **options), weights)
    assert "\n" not in str(caught.value)


def test_method_keys_beside_those_of_a_plain_model_are_named(digits: VisionTransformer, tmp_path: Path) -> None:
    torch.save({**digits.state_dict(), "downsampler.scale": torch.ones(1)}, tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"unexpected downsampler\.scale"):
        load_model("digits_deit", tmp_path / "x.pth")


def test_the_embedded_model_is_not_drawn_at_random() -> None:
    with pytest.raises(UserError, match="comes with trained weights"):
        load_model("digits_deit", "random")


def test_compare_measures_a_model_that_was_saved(
    digits: VisionTransformer, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    torch.save(trained(digits, "dtem").state_dict(), tmp_path / "model.pth")
    given = ("--weights", str(tmp_path / "model.pth"), "--limit", "10", "--only", "macs,accuracy", "--json")
    code, _, error = run("compare", "--methods", "random_selection", "--keep", "0.5", *given)
    assert code == 0, error
