"""The simulated GPU: it computes what the CPU computes, refuses what a GPU refuses, and tells of waits and launches."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tokbench.conformance.simulated_gpu import (
    GpuTensor,
    MixedDevicesError,
    NotSimulatedError,
    SimulatedGpu,
    simulated_gpu,
)

NUMBERS = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def gpu() -> Iterator[SimulatedGpu]:
    with simulated_gpu() as gpu:
        yield gpu


@pytest.fixture
def x(gpu: SimulatedGpu) -> Tensor:
    return gpu.to_gpu(NUMBERS)


def numbers(tensor: Tensor) -> Tensor:
    assert isinstance(tensor, GpuTensor)
    return tensor.numbers


# Tensors


def test_a_tensor_says_that_it_is_on_a_gpu(x: Tensor):
    assert x.device == torch.device("cuda", 0)
    assert (x.is_cuda, x.is_cpu, x.is_meta, x.get_device()) == (True, False, False, 0)
    assert (x.shape, x.dtype, x.stride()) == (NUMBERS.shape, NUMBERS.dtype, NUMBERS.stride())
    assert "on cuda:0" in repr(x)


COMPUTED: dict[str, Callable[[Tensor], Tensor]] = {
    "product": lambda x: x @ x.mT,
    "composite": lambda x: F.normalize(x, dim=1) + F.one_hot(x.argmax(dim=1), 8).cumsum(dim=0),
    "two results": lambda x: x.topk(3).values + x.sort(dim=1, descending=True)[1][:, :3],
    "attention": lambda x: F.scaled_dot_product_attention(*[x.view(1, 3, 2, 4).transpose(1, 2)] * 3),
    "view of a view": lambda x: x.t()[2:5].reshape(-1).unflatten(0, (3, 3)),
    "factories": lambda x: x + torch.arange(8, device=x.device) + x.new_full((3, 1), 2) + torch.ones(8, device="cuda"),
    "constants": lambda x: torch.where(x > 0, x, 0.5).masked_fill(x > 1, -torch.inf),
    "in place": lambda x: x.clone().add_(1).mul_(x).clamp_(min=0.1),
    "a part in place": lambda x: _with_part(x.clone()),
    "scattered": lambda x: torch.zeros_like(x).scatter_add_(1, x.argsort(dim=1), x).index_add(0, _zero(x), x[:1]),
    "float64": lambda x: x.double().pow(2).mean(dim=1),
}


def _with_part(x: Tensor) -> Tensor:
    """Write to parts of a tensor, through a view and by an index."""
    part = x[:, 2:4]
    part.fill_(3.0)
    x[:, 0] = part[:, 0] * 2
    return x


def _zero(x: Tensor) -> Tensor:
    return torch.zeros(1, dtype=torch.int64, device=x.device)


@pytest.mark.parametrize("name", [name for name in COMPUTED if name != "factories"])
def test_it_computes_what_the_cpu_computes(name: str, x: Tensor, gpu: SimulatedGpu):
    assert torch.equal(numbers(COMPUTED[name](x)), COMPUTED[name](NUMBERS))
    assert gpu.waits == []


def test_factories_make_tensors_on_it(x: Tensor, gpu: SimulatedGpu):
    expected = NUMBERS + torch.arange(8) + 3
    assert torch.equal(numbers(COMPUTED["factories"](x)), expected)
    assert gpu.waits == []


def test_an_operator_that_writes_returns_the_tensor_that_it_wrote_to(x: Tensor):
    assert x.add_(1) is x
    values, index = torch.empty(3, 2, device="cuda"), torch.empty(3, 2, dtype=torch.int64, device="cuda")
    result = torch.topk(x, 2, out=(values, index))
    assert result[0] is values
    assert torch.equal(numbers(values), (NUMBERS + 1).topk(2).values)


def test_a_copy_to_it_and_back_keeps_the_numbers(x: Tensor):
    for moved in (NUMBERS.to("cuda"), NUMBERS.cuda(), NUMBERS.to(device=torch.device("cuda", 0)), NUMBERS.to(x)):
        assert torch.equal(numbers(moved), NUMBERS)
    for back in (x.cpu(), x.to("cpu"), torch.tensor(x.tolist())):
        assert not back.is_cuda
        assert torch.equal(back, NUMBERS)
    assert float(x.sum()) == float(NUMBERS.sum())


def test_a_module_is_copied_with_its_weights_and_buffers(gpu: SimulatedGpu, x: Tensor):
    module = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8)).eval()
    moved = gpu.to_gpu(module)
    assert all(part.is_cuda for part in (*moved.parameters(), *moved.buffers()))
    assert not any(part.is_cuda for part in (*module.parameters(), *module.buffers()))
    assert torch.equal(numbers(moved(x)), module(NUMBERS))
    assert (gpu.waits, gpu.to_gpu(module)[0].weight.device) == ([], torch.device("cuda", 0))


def test_nothing_remains_of_it():
    with simulated_gpu() as gpu:
        kept = gpu.to_gpu(NUMBERS)
    with pytest.raises(MixedDevicesError), simulated_gpu() as gpu:
        gpu.to_gpu(NUMBERS) + NUMBERS
    assert not torch.is_inference_mode_enabled()
    assert type(torch.tensor([1.0]) + 1) is Tensor
    assert torch.zeros(2, device="meta").is_meta
    with pytest.raises(RuntimeError, match="after the simulation's end"):
        kept + 1


def test_what_is_not_simulated_is_refused_by_name(x: Tensor):
    with pytest.raises(NotSimulatedError, match="unsqueeze_"):
        x.unsqueeze_(0)


# Mixed devices

MIXED: dict[str, Callable[[Tensor], Any]] = {
    "arange": lambda x: x + torch.arange(8),
    "ones": lambda x: x @ torch.ones(8, 2),
    "a table": lambda x: torch.linspace(0, 1, 8)[x.argsort(dim=1)],
    "an index": lambda x: x.gather(1, torch.zeros(3, 2, dtype=torch.int64)),
    "in place": lambda x: torch.zeros(3, 8).add_(x),
    "cat": lambda x: torch.cat([x, torch.zeros(3, 1)], dim=1),
    "where": lambda x: torch.where(x > 0, x, torch.zeros(3, 8)),
    "linear": lambda x: F.linear(x, torch.ones(2, 8)),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, torch.zeros(3, 8)),
    "an empty tensor": lambda x: torch.cat([torch.empty(0, 8), x]),
}


@pytest.mark.parametrize("fault", MIXED)
def test_tensors_of_two_devices_cannot_be_mixed(fault: str, x: Tensor):
    with pytest.raises(MixedDevicesError, match=r"of tensors on cuda:0 and of one on cpu, of shape \("):
        MIXED[fault](x)


def test_a_number_on_the_cpu_is_an_argument_of_a_kernel(x: Tensor, gpu: SimulatedGpu):
    assert torch.equal(numbers(x * torch.tensor(2.0)), NUMBERS * 2)
    assert gpu.waits == []


# Waits

WAITING: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "item": (lambda x: x.sum().item(), ".item()"),
    "int": (lambda x: int(x.sum()), ".item()"),
    "truth": (lambda x: 1 if (x > 0).any() else 0, ".item()"),
    "allclose": (lambda x: torch.allclose(x, x), "torch.allclose()"),
    "equal": (lambda x: torch.equal(x, x), "torch.equal()"),
    "tolist": (lambda x: x.tolist(), ".tolist()"),
    "a mask": (lambda x: x[x > 0], "a boolean mask as an index"),
    "values under a mask": (lambda x: x.index_put_((x[:, 0] > -9,), x[:1].expand(3, 8)), "a boolean mask"),
    "masked_select": (lambda x: x.masked_select(x > 0), "masked_select()"),
    "nonzero": (lambda x: x.nonzero(), "nonzero()"),
    "where with one argument": (lambda x: torch.where(x > 0), "nonzero()"),
    "unique": (lambda x: x.long().unique(), "unique()"),
    "bincount": (lambda x: x.argsort(dim=1).flatten().bincount(), "bincount()"),
    "repeat_interleave": (lambda x: x[0].repeat_interleave(x[0].argsort()), "repeat_interleave() without output_size"),
    "over the CPU": (lambda x: x.cpu().to(x.device), "a copy between CPU and GPU"),
    "from the CPU": (lambda x: torch.arange(3).to(x.device), "a copy between CPU and GPU"),
    "written from the CPU": (lambda x: x.copy_(torch.ones(3, 8)), "a copy between CPU and GPU"),
    "torch.tensor": (lambda x: torch.tensor([1.0, 2.0], device=x.device), "torch.tensor() of Python"),
    "as_tensor": (lambda x: torch.as_tensor([1, 2], device="cuda:0"), "torch.as_tensor() of Python"),
    "new_tensor": (lambda x: x.new_tensor([1, 2]), "torch.new_tensor() of Python"),
    "one place": (lambda x: x[0].__setitem__(0, 3.0), "a Python number assigned to one place"),
    "inverse": (lambda x: torch.linalg.inv(x[:, :3]), "torch.linalg"),
}


@pytest.mark.parametrize("fault", WAITING)
def test_what_the_host_waits_for_is_told_with_its_place(fault: str, x: Tensor, gpu: SimulatedGpu):
    function, cause = WAITING[fault]
    function(x)
    assert gpu.waits
    for wait in gpu.waits:
        assert cause in wait.cause
        assert (wait.file, wait.line, wait.function) == (__file__, function.__code__.co_firstlineno, "<lambda>")


WITHOUT_WAITING: dict[str, Callable[[Tensor], Any]] = {
    "shape": lambda x: [len(x), x.numel(), x.shape[1], x.dim()],
    "several places": lambda x: x[:, 0].__setitem__(slice(None), 0.0),
    "a place from a tensor": lambda x: x.__setitem__((0, 0), x[0, 1]),
    "a number under a mask": lambda x: x.masked_fill_(x > 0, 1.0),
    "a number assigned under a mask": lambda x: x.__setitem__(x > 0, 1.0),
    "an index": lambda x: x[:, x[0].argsort()],
    "repeat_interleave": lambda x: x[0].repeat_interleave(x[0].argsort(), output_size=28),
    "a copy on it": lambda x: x.to("cuda").to(x.device, torch.float16).clone(),
    "computed on the CPU": lambda x: int(torch.arange(3).sum()),
    "inverse": lambda x: torch.linalg.inv_ex(x[:, :3]),
}


@pytest.mark.parametrize("case", WITHOUT_WAITING)
def test_what_the_host_need_not_wait_for_is_no_wait(case: str, x: Tensor, gpu: SimulatedGpu):
    WITHOUT_WAITING[case](x)
    assert gpu.waits == []


def test_numpy_is_refused_as_on_a_gpu(x: Tensor):
    with pytest.raises(TypeError, match="can't convert cuda:0"):
        x.numpy()


def test_the_one_who_watches_may_stop_at_a_wait(x: Tensor, gpu: SimulatedGpu):
    def refuse(wait: Any) -> None:
        raise ValueError(Path(wait.file).name)

    gpu.on_wait = refuse
    with pytest.raises(ValueError, match="test_simulated_gpu"):
        x.sum().item()


# Launches

LAUNCHED: dict[str, tuple[Callable[[Tensor], Any], dict[str, int]]] = {
    "views": (lambda x: x.view(8, 3).t()[1:].unsqueeze(0).expand(2, -1, -1).detach().split(1), {}),
    "nothing to do": (lambda x: (x.contiguous(), x.to(torch.float32), x.reshape(24), torch.empty_like(x), x.shape), {}),
    "a copy in another order": (lambda x: x.t().reshape(24), {"clone": 1}),
    "a layer": (lambda x: F.gelu(F.linear(x, x, x[:, 0])), {"addmm": 1, "gelu": 1}),
    "attention": (COMPUTED["attention"], {"scaled_dot_product_attention": 1}),
    "a sum by index": (lambda x: x.index_put_((_zero(x),), x.new_empty(1, 8), True), {"index_put": 12, "zeros": 1}),
    "writing by index": (lambda x: x.index_put_((_zero(x),), x.new_empty(1, 8)), {"index_put": 1, "zeros": 1}),
    "distances": (lambda x: torch.cdist(x, x), {"_cdist_forward": 12}),
    "the CPU's": (lambda x: torch.ones(3).cumsum(dim=0), {}),
}


@pytest.mark.parametrize("case", LAUNCHED)
def test_launches_are_counted_by_operator(case: str, x: Tensor, gpu: SimulatedGpu):
    function, expected = LAUNCHED[case]
    function(x)
    assert gpu.launches == Counter(expected)
