"""Single files of weights: read without running code from them; what is no state dict is refused in one line."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import stat
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tokbench.errors import UserError, escaped

VIT, METHOD = "vit.", "downsampler."  # prefixes of the keys in the state dict of a DownsampledViT
PREFIXES = re.compile(r"^(?:(?:_orig_mod|module|model|backbone)\.)*")  # of compiled, parallel and wrapped models
FLOATS = {torch.float16, torch.bfloat16, torch.float32, torch.float64}
OTHERS = {torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.complex64, torch.complex128}
SHOWN = 300  # characters of a text from a file

WANTED = "--weights must name a .safetensors, .pth, .pt or .bin file, or a folder with one"

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80"  # with which files begin that were saved before archives
_OTHER_LIBRARIES = {
    ".npz": "NumPy",
    ".npy": "NumPy",
    ".h5": "Keras",
    ".msgpack": "Flax",
    ".onnx": "ONNX",
    ".gguf": "GGUF",
}
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def load_object(path: Path) -> Any:
    """What a file holds, without running code from it: tensors, containers, numbers and namespaces.

    Args:
        path: A `.safetensors` file, or one that `torch.save` has written.

    Raises:
        UserError: The file does not exist, cannot be read, or holds anything else.
    """
    shown = one_line(str(path))
    file_size(path)
    try:
        return _load(path)
    # Given other bytes than a pickle, the unpickler may raise any error.
    except Exception as error:
        cause, fix = _explain(error)
        raise UserError(f"{shown} cannot be read as weights ({one_line(cause)}): {fix}") from None


def plain_state(state: object, path: Path) -> dict[str, Tensor]:
    """A state dict out of a file, checked and as float32.

    Args:
        state: What should be named tensors.
        path: The file.

    Returns:
        The weights by name, without the prefixes that all names have from wrapping the model.

    Raises:
        UserError: It holds anything but dense tensors.
    """
    fault = _fault(state, file_size(path))
    if fault or not isinstance(state, dict):
        raise UserError(f"{one_line(str(path))} holds no state dict ({fault}): give a file of named tensors of a ViT")
    return without_shared_prefix({key: _plain(value) for key, value in state.items()})


def without_shared_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the prefixes that all names have from wrapping the model."""
    shared = os.path.commonprefix(list(state))  # noqa: RUF071  (of names, not of paths)
    prefix = PREFIXES.findall(shared)[0]
    return {key.removeprefix(prefix): value for key, value in state.items()}


def split_method(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Split the state dict of a `DownsampledViT` into that of its ViT and that of its method.

    Any other state dict, which lacks the prefix `vit.`, is returned as it is, with an empty one for the method.
    """
    method = {key.removeprefix(METHOD): value for key, value in state.items() if key.startswith(METHOD)}
    vit = {key: value for key, value in state.items() if not key.startswith(METHOD)}
    if not vit or not all(key.startswith(VIT) for key in vit):
        return state, {}
    return {key.removeprefix(VIT): value for key, value in vit.items()}, method


def misfits(expected: dict[str, Tensor], state: dict[str, Tensor]) -> str:
    """How a state dict differs from the expected one in names, shapes and types; empty where it does not."""
    shared = [key for key in expected if key in state]
    reshaped = [key for key in shared if state[key].shape != expected[key].shape]
    retyped = [key for key in shared if _kind(state[key]) != _kind(expected[key])]
    problems = [
        f"{problem} {few(keys)}"
        for problem, keys in (
            ("missing", sorted(set(expected) - set(state))),
            ("unexpected", sorted(set(state) - set(expected))),
            (
                "with wrong shape",
                [f"{key} {tuple(state[key].shape)}, expected {tuple(expected[key].shape)}" for key in reshaped],
            ),
            (
                "with wrong type",
                [f"{key} {_dtype(state[key])}, expected {_dtype(expected[key])}" for key in retyped],
            ),
        )
        if keys
    ]
    return "; ".join(problems)


def few(keys: list[str], shown: int = 5) -> str:
    """The first keys, and how many more there are."""
    more = f" and {len(keys) - shown} more" if len(keys) > shown else ""
    return f"{', '.join(one_line(key) or repr(key) for key in keys[:shown])}{more}"


def one_line(text: str) -> str:
    """A text from a file, or a file's name, with escapes for what cannot be printed in a line; cut where it is long."""
    cut = text if len(text) <= SHOWN else f"{text[: SHOWN // 2]}...{text[-SHOWN // 2 :]}"
    return escaped(cut)


def file_size(path: Path) -> int:
    """The size of a regular file in bytes, found without opening it, as opening a FIFO would wait.

    Raises:
        UserError: It is no regular file, or there is none.
    """
    shown = one_line(str(path))
    try:
        str(path).encode()
        status = path.stat()
    except FileNotFoundError:
        broken = " (a link to nothing)" if path.is_symlink() else ""
        raise UserError(f"no weights at {shown}{broken}: {WANTED}") from None
    except OSError as error:
        raise UserError(f"no weights at {shown} ({error.strerror}): {WANTED}") from None
    except UnicodeEncodeError:
        raise UserError(f"the name of {shown} is not UTF-8: rename the file of weights") from None
    except ValueError as error:  # a NUL in the name
        raise UserError(f"no weights at {shown} ({error}): {WANTED}") from None
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{shown} is {_KINDS.get(stat.S_IFMT(status.st_mode), 'no regular file')}: {WANTED}")
    return status.st_size


def _load(path: Path) -> Any:
    """What the file holds: tensors, containers and numbers, and of classes only the namespace of command lines."""
    with path.open("rb") as file:
        magic = file.read(len(_ZIP))
    if not magic:
        raise ValueError("it is empty")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return load_file(path)
    if suffix in _OTHER_LIBRARIES:
        raise ValueError(f"it is a file of {_OTHER_LIBRARIES[suffix]}")
    if magic == _ZIP:
        _check_archive(path)
    elif not magic.startswith(_PICKLE):
        raise ValueError("it is nothing that torch.save writes")
    with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
        warnings.simplefilter("ignore")  # on old formats, which are read all the same or refused
        return torch.load(path, map_location="cpu", weights_only=True)


def _check_archive(path: Path) -> None:
    """Refuse an archive that `torch.save` would not write; one that is compressed might fill the memory."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except zipfile.BadZipFile:
        raise ValueError("it is a damaged archive") from None
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise ValueError("it is a compressed archive")
    if any(Path(entry.filename).name == "constants.pkl" for entry in entries):
        raise ValueError("it is a TorchScript archive")


def _explain(error: Exception) -> tuple[str, str]:
    """The cause and the fix for a file that cannot be loaded; torch's own texts are long and advise to run the code."""
    wanted = "give a .safetensors file, or a .pth file of tensors"
    text = str(error)
    if isinstance(error, pickle.UnpicklingError):
        if blocked := re.search(r"GLOBAL (\S+)", text):
            fix = 'save the state dict alone, as by torch.save(checkpoint["model"], "weights.pth")'
            return f"it holds {blocked[1]}, and nothing but tensors is unpickled", fix
        if cause := re.search(r"WeightsUnpickler error:\s*(.+)", text):
            return cause[1], wanted
    if isinstance(error, OSError) and error.strerror:
        return error.strerror, wanted
    if isinstance(error, LookupError) or not text:  # whose text, if any, is but a key
        return repr(error), wanted
    return text.splitlines()[0], wanted


def _fault(state: object, size: int) -> str:
    """What keeps an object, read from a file of so many bytes, from being a state dict; empty where nothing does."""
    if not isinstance(state, dict):
        return f"it is of type {type(state).__name__}"
    if not state:
        return "it is empty"
    for key, value in state.items():
        if not isinstance(key, str) or not key.isprintable():
            return f"a key is {one_line(key) if isinstance(key, str) else f'of type {type(key).__name__}'}"
        if not isinstance(value, Tensor):
            return f"{one_line(key)} is of type {type(value).__name__}"
        if value.is_nested or value.layout != torch.strided or value.device.type != "cpu":
            return f"{one_line(key)} is no dense tensor with data"
        if value.dtype not in FLOATS | OTHERS:
            return f"{one_line(key)} is of type {_dtype(value)}"
        if value.numel() * value.element_size() > size:
            return f"{one_line(key)} {tuple(value.shape)} is larger than the file"
    return ""


def _plain(value: Tensor) -> Tensor:
    """A copy in memory of its own, without gradient; floats of any precision become float32."""
    return torch.empty(value.shape, dtype=_kind(value)).copy_(value.detach())


def _kind(value: Tensor) -> torch.dtype:
    return torch.float32 if value.dtype in FLOATS else value.dtype


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
