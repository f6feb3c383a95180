"""Every method compiles as one graph and says the same compiled, but for the adaptive ones.

How long a batch's longest image is only the host can say, and the shapes that follow depend on it.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
import torch

from tokbench import DownsampledViT, Schedule, create
from tokbench.registry import discover

METHODS = {name: cls for name, cls in discover()[0].items() if not cls.adaptive}


def choices() -> Iterator[Any]:
    """Each method as it is, and with each alternative that it offers by name."""
    for name, cls in METHODS.items():
        yield pytest.param(name, {}, id=name)
        hints = get_type_hints(cls.__init__)
        for parameter, how in inspect.signature(cls).parameters.items():
            hint = hints[parameter]
            for value in get_args(hint) if get_origin(hint) is Literal else ():
                if value != how.default and not create(name, **{parameter: value}).adaptive:
                    yield pytest.param(name, {parameter: value}, id=f"{name}({parameter}={value})")


@pytest.mark.parametrize(("name", "params"), list(choices()))
def test_a_method_compiles_without_a_graph_break(name: str, params: dict[str, Any], tiny_vit: Callable[..., Any]):
    torch.manual_seed(0)
    model = DownsampledViT(tiny_vit(depth=1), create(name, **params), Schedule.stages(0.7, at=(0,))).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    torch.compiler.reset()
    with torch.inference_mode():
        compiled = torch.compile(model, fullgraph=True, dynamic=False, backend="eager")
        assert torch.equal(compiled(images), model(images))
