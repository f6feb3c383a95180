"""`tokbench export-model`: files that the runtimes themselves open give the eager model's answers."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tokbench.embedded.model import load
from tokbench.registry import create, discover
from tokbench.schedule import Schedule
from tokbench.vit.backbone import DownsampledViT

Run = Callable[..., tuple[int, str, str]]
Build = Callable[..., DownsampledViT]

SIZE = 3
IMAGES = torch.randn((SIZE, 1, 32, 32), generator=torch.Generator().manual_seed(1))
EQUAL = 1e-4  # of logits up to about 10, which another order of sums changes in the last bits
DIGITS = "digits_deit_16"


def eager(method: str | None, keep: float = 0.5) -> Tensor:
    """What the model answers to `IMAGES`, built by hand."""
    discover([])
    vit = load(DIGITS)
    with torch.inference_mode():
        if method is None:
            return vit.eval()(IMAGES)
        return DownsampledViT(vit, create(method), Schedule.parse("stages(at=3-6-9)", keep)).eval()(IMAGES)


def export(run: Run, method: str, file: str, *options: str) -> str:
    code, out, err = run("export-model", DIGITS, method, file, "--batch-size", str(SIZE), "--keep", "0.5", *options)
    assert (code, err) == (0, "")
    difference = re.search(r"largest difference .*: (\S+)$", out, re.MULTILINE)
    assert difference is not None
    assert float(difference[1]) < EQUAL
    return out


def test_onnx_runtime_opens_the_file(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="tokbench[onnx] is not installed")
    onnxruntime = pytest.importorskip("onnxruntime", reason="tokbench[onnx] is not installed")
    out = export(run, "tome", "tome.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["tome.onnx"]
    assert out.startswith(f"tome.onnx: {(tmp_path / 'tome.onnx').stat().st_size / 2**20:.1f} MiB")
    shown = re.search(r"^load and run it: (.*)$", out, re.MULTILINE)
    assert shown is not None
    found = eval(shown[1], {"onnxruntime": onnxruntime, "images": IMAGES})
    torch.testing.assert_close(torch.from_numpy(found), eager("tome"), atol=EQUAL, rtol=0)


def test_openvino_opens_the_pair_of_files(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="tokbench[onnx] is not installed")
    openvino = pytest.importorskip("openvino", reason="tokbench[openvino] is not installed")
    (tmp_path / "model.xml").write_text("an older one")
    (tmp_path / "model.bin").write_text("its weights")
    out = export(run, "evit", "model.xml", "--format", "openvino")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    # On some CPUs its own choice is bfloat16.
    found = openvino.compile_model("model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(IMAGES.numpy())[0]
    torch.testing.assert_close(torch.from_numpy(found), eager("evit"), atol=EQUAL, rtol=0)
    assert "openvino.compile_model('model.xml', 'CPU')" in out


@pytest.mark.parametrize("method", [None, "evit"])
def test_torch_opens_the_file(run: Run, tmp_path: Path, method: str | None) -> None:
    export(run, method or "none", "model.pt2", "--format", "torch")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]
    found = torch.export.load("model.pt2").module()(IMAGES)
    torch.testing.assert_close(found, eager(method), atol=EQUAL, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([DIGITS, "tome", "x.pt2"], "x.pt2: with --format onnx the file's name must end in .onnx"),
        ([DIGITS, "tome", "no/x.onnx"], "there is no folder no: make it, or choose another file"),
        ([DIGITS, "tome,evit", "x.onnx"], "'tome,evit' is not one method: name one, as in"),
        ([DIGITS, "all", "x.onnx"], "'all' is not one method"),
        ([DIGITS, "tomme", "x.onnx"], "did you mean 'tome'?"),
        (["digits_dei", "tome", "x.onnx"], "digits_dei"),
        ([DIGITS, "tome", "x.onnx", "--keep", "0.7,0.5"], "these settings give 2 models, and one is written"),
        ([DIGITS, "dynamic_vit", "x.onnx"], "needs fine-tuned weights"),
        ([DIGITS, "tome", "x.onnx", "--batch-size", "0"], "--batch-size"),
    ],
)
def test_a_mistake_is_said_in_one_line_and_nothing_is_written(
    run: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    code, out, err = run("export-model", *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_method_that_looks_at_the_images_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(LOOKS)
    arguments = ("export-model", DIGITS, "looks", "x.pt2", "--format", "torch", "--plugins", "mine.py")
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"tokbench: looks at keep 0.7 in {DIGITS}: torch.export cannot record")
    assert "mine.py:" in err
    assert len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".pt2"] == []


LOOKS = '''
import torch
from tokbench import Context, Downsampler, Tokens, register


@register("looks")
class Looks(Downsampler):
    """Chooses between the first and the last tokens by the images."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        n = tokens.patches.shape[1]
        start = 0 if tokens.patches.sum() > 0 else n - keep
        return tokens.select(torch.arange(start, start + keep).expand(len(tokens.x), keep))
'''
