"""A reduced model does what is expected of any nn.Module: it trains, compiles, copies and saves."""

import copy
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_models import AT, METHODS, images, logits
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import tokbench

MakeViT = Callable[..., VisionTransformer]
TRAINED = [name for name, cls in METHODS.items() if cls.trained]


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
    tokbench.calibrate(model, images(seed=1))
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
