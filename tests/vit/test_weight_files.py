"""Files of weights: training checkpoints are read, odd ones refused in a line, and no code of theirs is run."""

import argparse
import builtins
import fractions
import os
import pickle
import random
import subprocess
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from odd_weights import FILES, saved, state
from safetensors.torch import save_file
from torch import Tensor, nn

import tokbench
from tokbench import load_model
from tokbench.errors import UserError

MODEL = "digits_deit"


def refusal(path: Path) -> str:
    """The message with which a file is refused: one line that can be written to any terminal."""
    with pytest.raises(UserError) as caught:
        load_model(MODEL, path)
    message = str(caught.value)
    assert message.isprintable()
    assert len(message) < 2500
    return message


@pytest.mark.parametrize("case", FILES)
@pytest.mark.filterwarnings("error")
def test_an_odd_file_is_refused_in_one_line_that_names_it(case: str, tmp_path: Path) -> None:
    name, write = FILES[case]
    write(tmp_path / name)
    message = refusal(tmp_path / name)
    ends = name.encode("ascii", "backslashreplace").decode()[-4:]
    assert str(tmp_path)[:40] in message  # a message may leave out the middle of a long path
    assert ends in message


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_flipped_bytes_never_end_in_another_error(suffix: str, tmp_path: Path) -> None:
    generator = random.Random(0)
    file = tmp_path / f"x.{suffix}"
    save_file(state(), file) if suffix == "safetensors" else torch.save(state(), file)
    whole, refused = file.read_bytes(), []
    for trial in range(40):
        broken = bytearray(whole)
        places = (min(len(whole), 20_000), len(whole))[trial % 2]  # the names and shapes, or anywhere
        for _ in range(1 + trial % 4):
            broken[generator.randrange(places)] = generator.randrange(256)
        file.write_bytes(broken)
        try:
            load_model(MODEL, file)
        except UserError as error:
            refused.append(str(error))
    assert refused
    assert all(message.isprintable() for message in refused)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("whole model.pth", 'VisionTransformer, and nothing but tensors.*torch.save\\(checkpoint\\["model"\\]'),
        ("other head.pth", r"head.weight \(7, 192\), expected \(10, \d+\), head.bias \(7,\), expected \(10,\)"),
        ("NaN.pth", "NaN or infinite weights in norm.bias"),
        ("NaN.safetensors", "NaN or infinite weights in .* more"),
        ("int8.pth", "with wrong type norm.bias int8, expected float32"),
        ("expanded.pth", "norm.bias .* is larger than the file"),
        ("compressed.pth", "a compressed archive"),
        ("TorchScript.pth", "a TorchScript archive"),
        ("empty.pth", "it is empty"),
        ("text.pth", "nothing that torch.save writes"),
        ("pickle of a missing memo.pth", r"KeyError\(5\)"),
        ("pickle without an end.pth", "EOFError"),
        ("cut at 0.5.pth", "a damaged archive"),
        ("empty key.pth", "unexpected '';"),
        ("FIFO", "is a FIFO"),
        ("socket", "is a socket"),
        ("endless device", "is a device"),
        ("directory", "is a directory"),
        ("broken link", "a link to nothing"),
        ("too long", "File name too long"),
        ("no UTF-8", r"caf\\udce9.pth is not UTF-8"),
        ("nothing", "no weights at"),
    ],
)
def test_the_line_tells_the_cause(case: str, words: str, tmp_path: Path) -> None:
    name, write = FILES[case]
    write(tmp_path / name)
    with pytest.raises(UserError, match=words):
        load_model(MODEL, tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_that_must_not_be_read_is_refused(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"x.{suffix}").write_bytes(b"hello")
    (tmp_path / f"x.{suffix}").chmod(0)
    assert "Permission denied" in refusal(tmp_path / f"x.{suffix}")


class Attack:
    """Unpickling this calls a function."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def attacks(target: Path) -> dict[str, Attack]:
    """Ways to create a file."""
    code = f"open({str(target)!r}, 'w')"
    return {
        "Path": Attack(Path.touch, target),
        "open": Attack(open, str(target), "w"),
        "os.system": Attack(os.system, f"touch {target}"),
        "os.open": Attack(os.open, str(target), os.O_CREAT),
        "subprocess": Attack(subprocess.Popen, ["touch", str(target)]),
        "exec": Attack(builtins.exec, code),
        "eval": Attack(builtins.eval, code),
        "torch.save": Attack(torch.save, 1, str(target)),
        "torch.load": Attack(torch.load, str(target)),
    }


WAYS: dict[str, Callable[[Any, Path], object]] = {
    "alone": lambda attack, path: torch.save(attack, path),
    "as an entry": lambda attack, path: torch.save({"model": state(), "attack": attack}, path),
    "among the weights": lambda attack, path: torch.save({**state(), "attack": attack}, path),
    "in the arguments": lambda attack, path: torch.save({"model": state(), "args": argparse.Namespace(x=attack)}, path),
    "in the old format": lambda attack, path: saved(lambda: {"x": attack}, _use_new_zipfile_serialization=False)(path),
    **{
        f"in protocol {protocol}": lambda attack, path, protocol=protocol: path.write_bytes(
            pickle.dumps({"model": attack}, protocol)
        )
        for protocol in range(6)
    },
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_no_code_in_a_file_is_run(way: str, suffix: str, tmp_path: Path) -> None:
    target = tmp_path / "touched"
    for name, attack in attacks(target).items():
        WAYS[way](attack, tmp_path / f"x.{suffix}")
        refusal(tmp_path / f"x.{suffix}")
        assert not target.exists(), name


def test_what_is_in_the_way_is_named(tmp_path: Path) -> None:
    torch.save({"model": state(), "best": fractions.Fraction(1, 3)}, tmp_path / "x.pth")
    assert "it holds fractions.Fraction, and nothing but tensors" in refusal(tmp_path / "x.pth")
    saved(lambda: {"best": fractions.Fraction(1, 3)}, _use_new_zipfile_serialization=False)(tmp_path / "x.pth")
    assert "it holds fractions.Fraction, and nothing but tensors" in refusal(tmp_path / "x.pth")


def checkpoint(**entries: Any) -> dict[str, Any]:
    arguments = argparse.Namespace(model=MODEL, lr=5e-4, betas=(0.9, 0.999), inner=argparse.Namespace(epochs=300))
    return {"epoch": 299, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]}, "args": arguments, **entries}


def prefixed(prefix: str) -> dict[str, Tensor]:
    return OrderedDict((f"{prefix}{key}", value) for key, value in state().items())


def parameters() -> dict[str, Tensor]:
    return {key: nn.Parameter(value) for key, value in state().items()}


READ: dict[str, Callable[[], object]] = {
    "model": lambda: checkpoint(model=state()),
    "state_dict": lambda: checkpoint(state_dict=state()),
    "name and state_dict": lambda: checkpoint(model=MODEL, state_dict=state()),
    "model before state_dict": lambda: checkpoint(model=state(), state_dict={}),
    "Lightning": lambda: checkpoint(state_dict=prefixed("model.")),
    "averaged weights alone": lambda: checkpoint(model_ema=state()),
    "averaged beside it": lambda: checkpoint(model=state(), model_ema=prefixed("module.")),
    "parameters": parameters,
    "double": lambda: {key: value.double() for key, value in state().items()},
    **{
        prefix: lambda prefix=prefix: prefixed(prefix)
        for prefix in ("_orig_mod.", "module.", "model.", "backbone.", "_orig_mod.module.", "module._orig_mod.",
                       "model.backbone.", "module.model.backbone._orig_mod.")
    },
}  # fmt: skip


@pytest.mark.parametrize("case", READ)
@pytest.mark.parametrize("zipped", [True, False])
def test_training_checkpoints_are_read(case: str, zipped: bool, tmp_path: Path) -> None:
    saved(READ[case], _use_new_zipfile_serialization=zipped)(tmp_path / "x.pth")
    read, expected = load_model(MODEL, tmp_path / "x.pth"), load_model(MODEL)
    assert read.identity == expected.identity
    weights = expected.vit.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in read.vit.state_dict().items())


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "model.", "module._orig_mod."])
def test_prefixes_before_a_method_are_removed(prefix: str, tmp_path: Path) -> None:
    model = tokbench.reduce(load_model(MODEL).vit, "dtem", 0.5)
    torch.save(model.state_dict(), tmp_path / "plain.pth")
    wrapped = {f"{prefix}{key}": nn.Parameter(value) for key, value in model.state_dict().items()}
    torch.save(wrapped, tmp_path / "wrapped.pth")
    plain, read = (load_model(MODEL, tmp_path / name) for name in ("plain.pth", "wrapped.pth"))
    assert read.downsampler.keys() == plain.downsampler.keys() == model.downsampler.state_dict().keys()
    assert read.identity == plain.identity


def test_only_a_namespace_is_allowed_and_only_while_reading(tmp_path: Path) -> None:
    torch.save(checkpoint(model=state()), tmp_path / "x.pth")
    load_model(MODEL, tmp_path / "x.pth")
    with pytest.raises(pickle.UnpicklingError, match=r"argparse\.Namespace"):
        torch.load(tmp_path / "x.pth", weights_only=True)


def test_the_suffix_may_be_in_capitals(tmp_path: Path) -> None:
    save_file(state(), tmp_path / "X.SafeTensors")
    assert load_model(MODEL, tmp_path / "X.SafeTensors").identity == load_model(MODEL).identity


@pytest.mark.parametrize(
    ("name", "weights", "classes"),
    [
        ("digits_deit", None, 10),
        ("deit_tiny_patch16_224", "random", 1000),
        ("vit_tiny_patch16_224.augreg_in21k", "random", 21843),
        ("vit_small_patch16_224.dino", "random", 0),
        ("test_vit2", "random", 1000),
    ],
)
def test_classes_are_the_outputs_of_the_head(name: str, weights: str | None, classes: int) -> None:
    model = load_model(name, weights)
    assert model.classes == classes
    outputs = model.vit.head.weight.shape[0] if isinstance(model.vit.head, nn.Linear) else 0
    assert model.classes == outputs
