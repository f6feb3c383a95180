"""A GPU that is simulated on the CPU, with numbers: its tensors say that they are on `cuda:0`.

Code that asks for a tensor's device takes its branches for GPUs. Each operator is carried out on the CPU tensors that
the simulated ones hold, so its results can be compared with the CPU's. As on a GPU, tensors of different devices cannot
be mixed. What the host would wait for is recorded, and so are the kernels that would be launched (`kernel_launches`).

Underneath, a simulated tensor is one of torch's meta tensors, for which torch asks no driver. While the simulation is
active, `cuda` as a device means `meta` to torch, and `meta` is the simulated GPU.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from sys import _getframe
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from tokbench.conformance.host_sync import FROM_NUMBERS, waits_in_call, waits_in_operator
from tokbench.conformance.kernel_launches import launches_of
from tokbench.measure import dispatch
from tokbench.measure.dispatch import base_name

GPU = torch.device("cuda", 0)
META = torch.device("meta")

COPIES = frozenset({"_to_copy", "copy"})  # between devices, too
KEPT_WHOLE = frozenset({"aten::scaled_dot_product_attention"})  # one kernel on a GPU, several operators on meta
MACHINERY = (str(Path(torch.__file__).parent), __file__, dispatch.__file__)  # between a method and an operator

COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd

T = TypeVar("T", bound=Tensor | nn.Module)


class MixedDevicesError(RuntimeError):
    """An operator was given tensors of the GPU and of the CPU."""


class NotSimulatedError(RuntimeError):
    """An operator works on a GPU, but not on the simulated one."""


@dataclass(frozen=True)
class Wait:
    """A place where the host waits for the GPU.

    Attributes:
        cause: As it appears in the code, with what to write instead.
        file: The file of the code.
        line: Its line.
        function: The name of its function.
    """

    cause: str
    file: str
    line: int
    function: str


OnWait = Callable[[Wait], None]


class GpuTensor(Tensor):
    """A tensor of the simulated GPU.

    Attributes:
        numbers: A CPU tensor of the same shape and strides, with its values.
    """

    numbers: Tensor

    @staticmethod
    def __new__(cls, numbers: Tensor) -> GpuTensor:
        """A tensor that holds a CPU tensor."""
        made = Tensor._make_wrapper_subclass(
            cls,
            numbers.shape,
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=META,
        )
        made.numbers = numbers
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    device = property(lambda self: GPU)
    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)
    is_meta = property(lambda self: False)

    def get_device(self) -> int:
        """The GPU's number."""
        return 0

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        """The values, with the device."""
        return f"{self.numbers!r} on {GPU}"

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Refuse: operators are carried out by `SimulatedGpu`."""
        raise RuntimeError(f"{func} was called on a tensor of a simulated GPU after the simulation's end")


class SimulatedGpu(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Carries out operators.

    Attributes:
        waits: Where the host would wait for the GPU.
        launches: The kernels that would be launched at least, by operator.
        on_wait: Called at each wait; it may raise an error there. By default it records the wait in `waits`.
    """

    def __init__(self) -> None:
        """Start with no waits and no launches."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.waits: list[Wait] = []
        self.launches: Counter[str] = Counter()
        self.on_wait: OnWait = self.waits.append

    def to_gpu(self, what: T) -> T:
        """A tensor on the GPU with the same values, or a copy of a module with its parameters and buffers on the GPU.

        This is neither a wait nor a launch.
        """
        if isinstance(what, Tensor):
            return cast(T, GpuTensor(what.detach().clone()))
        module = copy.deepcopy(what)
        for part in module.modules():
            for name, weight in part._parameters.items():
                if weight is not None:
                    part._parameters[name] = nn.Parameter(GpuTensor(weight.data), requires_grad=False)
            for name, buffer in part._buffers.items():
                if buffer is not None:
                    part._buffers[name] = GpuTensor(buffer)
        return module

    def wait(self, cause: str) -> None:
        """Tell of a wait in the code that is running."""
        self.on_wait(_wait_here(cause))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operator."""
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        there = [tensor for tensor in tensors if isinstance(tensor, GpuTensor)]
        wanted = next((leaf for leaf in leaves if isinstance(leaf, torch.device)), None)
        goes_there = bool(there) if wanted is None else wanted == META
        if not there and not goes_there:
            return func(*args, **kwargs)
        if _is_composite(func):
            with self:
                return func._op_dk(COMPOSITE, *args, **kwargs)
        if torch.Tag.inplace_view in func.tags:
            raise NotSimulatedError(f"{func} changes a tensor's shape in place")
        self._check_devices(func, tensors, there, goes_there)
        cause = waits_in_operator(func, args, kwargs)
        if cause:
            self.wait(cause)
        result = func(*tree_map(_on_cpu, args), **tree_map(_on_cpu, kwargs))
        self.launches.update(launches_of(func, args, kwargs, result))
        if not goes_there:
            return result
        given = {id(tensor.numbers): tensor for tensor in there}

        def on_gpu(leaf: Any) -> Any:
            """A result on the GPU; the argument itself where an operator changed it in place."""
            return (given[id(leaf)] if id(leaf) in given else GpuTensor(leaf)) if isinstance(leaf, Tensor) else leaf

        return tree_map(on_gpu, result)

    def _check_devices(self, func: Any, tensors: list[Tensor], there: list[GpuTensor], goes_there: bool) -> None:
        elsewhere = [tensor for tensor in tensors if not isinstance(tensor, GpuTensor)]
        if base_name(func) in COPIES:
            if elsewhere or not goes_there:
                self.wait("a copy between CPU and GPU; compute on the tokens' device")
            return
        mixed = next((tensor for tensor in elsewhere if tensor.dim()), None)  # numbers may come from the CPU
        if there and mixed is not None:
            raise MixedDevicesError(
                f"{base_name(func)} of tensors on {GPU} and of one on cpu, of shape {tuple(mixed.shape)}"
            )


class HostCalls(TorchFunctionMode):
    """Tells a simulated GPU of the calls that no operator tells of, and makes `cuda` the simulated GPU."""

    def __init__(self, gpu: SimulatedGpu) -> None:
        """Of this GPU."""
        super().__init__()
        self.gpu = gpu

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call one of torch's functions."""
        kwargs = dict(kwargs or {})
        if "device" in kwargs:
            kwargs["device"] = _as_meta(kwargs["device"])
        on_gpu = bool(args) and isinstance(args[0], GpuTensor)
        if func is Tensor.cuda:
            return args[0].to(META)
        if func is Tensor.to:
            args = tuple(map(_as_meta, args))
        cause = waits_in_call(func, args, kwargs) if on_gpu or kwargs.get("device") == META else ""
        if cause:
            self.gpu.wait(cause)
        if func in FROM_NUMBERS and kwargs.get("device") == META and not on_gpu:
            return GpuTensor(func(*args, **{**kwargs, "device": "cpu"}))
        if on_gpu and func is Tensor.new_tensor:
            return GpuTensor(args[0].numbers.new_tensor(*args[1:], **kwargs))
        if on_gpu and func is Tensor.tolist:
            return args[0].numbers.tolist()
        if on_gpu and func in (Tensor.numpy, Tensor.__array__):
            raise TypeError(f"can't convert {GPU} device type tensor to numpy")
        return func(*args, **kwargs)


@contextmanager
def simulated_gpu() -> Iterator[SimulatedGpu]:
    """Simulate a GPU inside the `with` block, without gradients. Nothing remains of it afterwards.

    Yields:
        The GPU. Its `to_gpu` moves tensors and modules to it; `numbers` of a result are on the CPU.
    """
    gpu = SimulatedGpu()
    with torch.inference_mode(), HostCalls(gpu), gpu:
        yield gpu


@cache
def _is_composite(func: Any) -> bool:
    """Whether an operator consists of others, which are dispatched one by one."""
    return func._schema.name not in KEPT_WHOLE and torch._C._dispatch_has_kernel_for_dispatch_key(
        func.name(), COMPOSITE
    )


def _on_cpu(leaf: Any) -> Any:
    if isinstance(leaf, torch.device):
        return torch.device("cpu")
    return leaf.numbers if isinstance(leaf, GpuTensor) else leaf


def _as_meta(device: Any) -> Any:
    """META for a device that is a GPU; anything else as it is."""
    is_gpu = isinstance(device, torch.device | str) and str(device).partition(":")[0] == "cuda"
    return META if is_gpu else device


def _wait_here(cause: str) -> Wait:
    """A wait in the innermost function outside of torch and of the simulation."""
    frame = _getframe(1)
    while frame.f_code.co_filename.startswith(MACHINERY) and frame.f_back is not None:
        frame = frame.f_back
    return Wait(cause, frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
