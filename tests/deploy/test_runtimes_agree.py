"""A model in a runtime gives the logits of the same model in torch."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from tokbench.deploy.agreement import Difference, compare_outputs
from tokbench.deploy.exporting import export_onnx
from tokbench.deploy.translations import decompositions
from tokbench.errors import NotExportableError
from tokbench.registry import create, discover
from tokbench.schedule import Schedule
from tokbench.token_groups import group_sum
from tokbench.vit.backbone import DownsampledViT

EQUAL = 1e-4  # of logits up to about 1, which another order of sums changes in the last bits


def model(method: str) -> DownsampledViT:
    """A method in a small ViT with random weights."""
    discover([])
    torch.manual_seed(0)
    vit = VisionTransformer(img_size=32, patch_size=4, embed_dim=32, depth=4, num_heads=4, num_classes=10).eval()
    for weight in (vit.head.weight, *(block.attn.qkv.weight for block in vit.blocks)):
        torch.nn.init.normal_(weight, std=0.3)  # timm's are so small that all patches get nearly the same attention
    return DownsampledViT(vit, create(method), Schedule.parse("stages(at=1-2)", 0.7)).eval()


def images() -> torch.Tensor:
    return torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(1))


class OnGpu(torch.nn.Module):
    """Sums and random numbers by the operators that a model on a GPU runs."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        owner = torch.tensor([[0, 2, -1, 2, 1]]).expand(len(values), -1)
        noise = torch.ops.tokbench.uniform(torch.arange(len(values)), STATE, 3, 4)
        return torch.cat([torch.ops.tokbench.group_sum(values, owner, 3).flatten(1), noise], dim=1)


STATE = -5449871474906142233  # what the hash of a seed may be


def test_what_a_gpu_runs_as_one_operator_is_exported_as_several() -> None:
    from tokbench.deploy.onnx_runtime import open_session

    values = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    expected = OnGpu()(values)
    owner = torch.tensor([[0, 2, -1, 2, 1]]).expand(2, -1)
    assert torch.allclose(expected[:, :9], group_sum(values, owner, 3).flatten(1))
    found = open_session(export_onnx(OnGpu(), values), "onnxruntime", values)(values)
    assert torch.allclose(found, expected, atol=1e-6)


# saint sorts equal numbers, dpc_knn writes to a diagonal, in vid_tldr the bias of attention depends on weights.
@pytest.mark.parametrize("method", ["saint", "dpc_knn", "vid_tldr"])
def test_logits_are_the_eager_models(method: str) -> None:
    for package in ("onnxscript", "onnxruntime", "openvino"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    from tokbench.deploy.onnx_runtime import open_session
    from tokbench.deploy.openvino_runtime import open_model, read

    eager, batch = model(method), images()
    exported = export_onnx(eager, batch)
    for forward in (open_session(exported, "onnxruntime", batch), open_model(read(exported))):
        difference = compare_outputs(eager, forward, batch)
        assert difference.top1 == 1
        assert difference.largest < EQUAL


def test_a_model_whose_token_count_depends_on_the_images_is_refused() -> None:
    with pytest.raises(NotExportableError, match="the number of tokens depends on the images"):
        export_onnx(model("ats"), images())


@pytest.mark.parametrize(
    ("shape", "offset", "dims"),
    [((2, 5, 5), 0, (1, 2)), ((2, 5, 7), 1, (1, 2)), ((2, 5, 7), -2, (1, 2)), ((7, 2, 5), 3, (2, 0))],
)
def test_writing_to_a_diagonal_is_torchs(shape: tuple[int, ...], offset: int, dims: tuple[int, int]) -> None:
    x = torch.arange(float(torch.Size(shape).numel())).reshape(shape)
    source = -torch.ones_like(x.diagonal(offset, *dims))
    write = decompositions()[torch.ops.aten.diagonal_scatter.default]
    torch.testing.assert_close(write(x, source, offset, *dims), torch.diagonal_scatter(x, source, offset, *dims))


def test_outputs_are_compared_by_class_and_by_logit() -> None:
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 2.0], [3.0, 0.0]])
    other = logits + torch.tensor([[0.0, 0.0], [1.5, 0.0], [0.0, 0.0], [0.25, 0.0]])
    assert compare_outputs(lambda _: logits, lambda _: other, images()) == Difference(top1=0.75, largest=1.5)
    assert compare_outputs(lambda _: logits, lambda _: logits / 0, images()).largest == float("inf")
