"""Files that hold no weights for the embedded model, each written by a function."""

import argparse
import gzip
import json
import os
import pickle
import random
import socket
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from tokbench import load_model

Write = Callable[[Path], object]


def state() -> dict[str, Tensor]:
    """The weights of the embedded model."""
    return load_model("digits_deit").vit.state_dict()


def content(value: bytes) -> Write:
    return lambda path: path.write_bytes(value)


def saved(make: Callable[[], Any], **options: Any) -> Write:
    def write(path: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on kinds of tensors that torch calls a prototype or deprecated
            torch.save(make(), path, **options)

    return write


def instead(value: Callable[[Tensor], Any], key: str = "norm.bias") -> Write:
    """Weights with one value replaced."""
    return saved(lambda: {**state(), key: value(state()[key])})


def header(value: object, data: bytes = bytes(64), length: int | None = None) -> Write:
    """A safetensors file with a header of our own."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return content(struct.pack("<Q", len(text) if length is None else length) + text + data)


def entry(dtype: str = "F32", shape: object = (4,), offsets: object = (0, 16)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def cut(part: float) -> Write:
    def write(path: Path) -> None:
        save_file(state(), path) if path.suffix == ".safetensors" else torch.save(state(), path)
        os.truncate(path, int(path.stat().st_size * part))

    return write


def archived(text: bytes) -> Write:
    """An archive of weights whose pickle is replaced."""

    def write(path: Path) -> None:
        torch.save(state(), path)
        rewrite(path, zipfile.ZIP_STORED, {"data.pkl": text})

    return write


def compressed(path: Path) -> None:
    """A small archive that unpacks to 64 MB."""
    torch.save(state(), path)
    rewrite(path, zipfile.ZIP_DEFLATED, {"data/9999": bytes(64_000_000)})


def rewrite(path: Path, compression: int, changes: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    folder = next(iter(entries)).split("/")[0]
    entries |= {f"{folder}/{name}": value for name, value in changes.items()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, value in entries.items():
            archive.writestr(name, value)


def called(function: str, *numbers: int) -> Write:
    """An archive whose pickle calls a function with numbers."""
    module, _, name = function.rpartition(".")
    arguments = b"".join(b"\x8a\x08" + struct.pack("<q", number) for number in numbers)
    return archived(b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + arguments + b"tR.")


def nested(depth: int) -> bytes:
    """A pickle of dicts in dicts, deeper than Python writes them."""
    return b"\x80\x02" + b"}X\x05\0\0\0model" * depth + b"}" + b"s" * depth + b"."


def scripted(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripting is deprecated
        torch.jit.script(nn.Linear(2, 2)).save(str(path))


def listening(path: Path) -> None:
    home = Path.cwd()
    os.chdir(path.parent)  # the address of a socket has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)
    os.chdir(home)


def itself() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["model"] = value["state_dict"] = value
    return value


def quantised(value: Tensor) -> Tensor:
    return torch.quantize_per_tensor(value, 0.1, 0, torch.qint8)


def negative(value: Tensor) -> Tensor:
    return torch.complex(value, value).conj()


RANDOM_BYTES = random.Random(0).randbytes(5000)
BYTES = {
    "empty": b"",
    "text": b"hello\n",
    "text of many lines": b"<html>\n<body>404</body>\n</html>\n" * 50,
    "UTF-16": "weights".encode("utf-16"),
    "zeros": bytes(4096),
    "random": RANDOM_BYTES,
    "gzip": gzip.compress(RANDOM_BYTES),
    "PNG": b"\x89PNG\r\n\x1a\n" + RANDOM_BYTES,
    "LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 22880000\n",
    "start of an archive": b"PK\x03\x04" + RANDOM_BYTES,
    "end of an archive": b"PK\x05\x06" + bytes(18),
    "pickle of protocol 4": pickle.dumps({"a": [1, 2]}, 4),
    "pickle of protocol 2": pickle.dumps({"a": [1, 2]}, 2),
    "pickle of protocol 0": pickle.dumps({"a": [1, 2]}, 0),
    "pickle without an end": b"\x80\x02}",
    "pickle of an empty stack": b"\x80\x02.",
    "pickle of a missing memo": b"\x80\x02h\x05.",
    "pickle of a long string": b"\x80\x02X\xff\xff\xff\xff",
    "start of a tar": b"x.pth".ljust(257, b"\0") + b"ustar\x0000" + bytes(248),
}
PTH: dict[str, Write] = {
    "list": saved(lambda: list(state().values())),
    "list of pairs": saved(lambda: list(state().items())),
    "tensor": saved(lambda: torch.ones(3)),
    "number": saved(lambda: 3),
    "text value": saved(lambda: "weights"),
    "none": saved(lambda: None),
    "empty dict": saved(dict),
    "empty model": saved(lambda: {"model": {}}),
    "list as model": saved(lambda: {"model": [1, 2]}),
    "no tensors": saved(lambda: {"epoch": 3, "line\nbreak": 4}),
    "dict of dicts": saved(lambda: {key: {"value": value} for key, value in state().items()}),
    "numbers as keys": saved(lambda: dict(enumerate(state().values()))),
    "tuples as keys": saved(lambda: {(key,): value for key, value in state().items()}),
    "bytes as keys": saved(lambda: {key.encode(): value for key, value in state().items()}),
    "none as key": saved(lambda: {**state(), None: torch.ones(1)}),
    "line break in a key": saved(lambda: {**state(), "a\nb\u2028c\x1b[31m": torch.ones(1)}),
    "surrogate in a key": saved(lambda: {"vit.x": torch.ones(1), "downsampler.\ud800": torch.ones(1)}),
    "long key": saved(lambda: {**state(), "k" * 1_000_000: torch.ones(1)}),
    "prefix alone": saved(lambda: {"module." * 100_000: torch.ones(1)}),
    "empty key": saved(lambda: {"": torch.ones(1)}),
    "prefix of a part": saved(lambda: {f"{'module.' * (n > 3)}{key}": v for n, (key, v) in enumerate(state().items())}),
    "contains itself": saved(itself),
    "nested": archived(nested(1000)),
    "nested more": archived(nested(100_000)),
    "huge bytes": called("builtins.bytearray", 1 << 60),
    "huge storage": called("torch.storage.UntypedStorage", 1 << 60),
    "huge tensor": called("torch.Tensor", 1 << 30, 1 << 30),
    "call of a rebuilding function": called("torch._utils._rebuild_tensor_v2", 1, 2),
    "exit": called("builtins.exit", 0),
    "blocked module": called("posix._exit", 0),
    "distributed tensor": called("torch.distributed.tensor.DTensor", 0),
    "whole model": saved(lambda: load_model("digits_deit").vit),
    "old format, a list": saved(lambda: [1], _use_new_zipfile_serialization=False),
    "compressed": compressed,
    "TorchScript": scripted,
    "complex": instead(lambda value: value.to(torch.complex64)),
    "conjugate": instead(negative),
    "complex half": instead(lambda value: value.to(torch.complex32)),
    "quantised": instead(quantised),
    "int8": instead(lambda value: value.to(torch.int8)),
    "int64": instead(lambda value: value.to(torch.int64)),
    "uint16": instead(lambda value: value.to(torch.uint16)),
    "bool": instead(lambda value: value > 0),
    "float8": instead(lambda value: value.to(torch.float8_e4m3fn)),
    "sparse": instead(lambda value: value.to_sparse()),
    "compressed rows": instead(lambda value: value.to_sparse_csr(), "head.weight"),
    "meta": instead(lambda value: value.to("meta")),
    "jagged": instead(lambda value: torch.nested.nested_tensor([value, value[:2]])),
    "NaN": instead(lambda value: value * torch.nan),
    "infinite": instead(lambda value: value / 0),
    "beyond float32": instead(lambda value: value.double() + 1e300),
    "no values": instead(lambda value: value[:0]),
    "scalar": instead(lambda value: value.sum()),
    "one more dimension": instead(lambda value: value[None]),
    "expanded": instead(lambda value: value[:1].half().expand(10**6, 10**6)),
    "text for a tensor": instead(lambda value: "norm.bias"),
    "other head": saved(lambda: {**state(), "head.weight": torch.ones(7, 192), "head.bias": torch.ones(7)}),
}
SAFETENSORS: dict[str, Write] = {
    "header of 2^62": header({}, length=1 << 62),
    "header of 2^64 - 1": header({}, length=(1 << 64) - 1),
    "header of 100 MB": header({}, length=100_000_000),
    "no header": header(b"", b""),
    "header is a list": header([1]),
    "header is no JSON": header(b"{'a': 1}"),
    "header is no UTF-8": header(b'{"\xff": 1}'),
    "header nested": header(b'{"a":' * 3000 + b"1" + b"}" * 3000),
    "empty header": header({}, b""),
    "line break in a name": header({"a\nb": entry()}, bytes(16)),
    "overlapping": header({"a": entry(), "b": entry(offsets=(8, 24))}, bytes(24)),
    "past the end": header({"a": entry(offsets=(1 << 40, (1 << 40) + 16))}),
    "negative": header({"a": entry(offsets=(-16, 0))}),
    "backwards": header({"a": entry(offsets=(16, 0))}),
    "hole": header({"a": entry(offsets=(8, 24))}, bytes(24)),
    "more data": header({"a": entry()}, bytes(32)),
    "unknown type": header({"a": entry("F31")}, bytes(16)),
    "huge shape": header({"a": entry(shape=(1 << 33, 1 << 33))}, bytes(16)),
    "negative shape": header({"a": entry(shape=(-4,))}, bytes(16)),
    "text as shape": header({"a": entry(shape="4")}, bytes(16)),
    "float8": header({"a": entry("F8_E4M3", (16,))}, bytes(16)),
    "float4": header({"a": entry("F4", (32,))}, bytes(16)),
    "uint64": header({"a": entry("U64", (2,))}, bytes(16)),
    "NaN": lambda path: save_file({key: value * torch.nan for key, value in state().items()}, path),
    "int": lambda path: save_file({key: value.int() for key, value in state().items()}, path),
}
PLACES: dict[str, Write] = {
    "directory": Path.mkdir,
    "FIFO": os.mkfifo,
    "socket": listening,
    "endless device": lambda path: path.symlink_to("/dev/zero"),
    "empty device": lambda path: path.symlink_to("/dev/null"),
    "broken link": lambda path: path.symlink_to("absent"),
    "link to itself": lambda path: path.symlink_to(path),
    "link to a directory": lambda path: path.symlink_to(path.parent),
    "nothing": lambda path: None,
}
FILES: dict[str, tuple[str, Write]] = {
    **{f"{name}.pth": ("x.pth", content(value)) for name, value in BYTES.items()},
    **{f"{name}.safetensors": ("x.safetensors", content(value)) for name, value in BYTES.items()},
    **{f"cut at {part}.pth": ("x.pth", cut(part)) for part in (0.001, 0.1, 0.5, 0.9, 0.999)},
    **{f"cut at {part}.safetensors": ("x.safetensors", cut(part)) for part in (0.0001, 0.001, 0.1, 0.9, 0.999)},
    **{f"{name}.pth": ("x.pth", write) for name, write in PTH.items()},
    **{f"{name}.safetensors": ("x.safetensors", write) for name, write in SAFETENSORS.items()},
    **{name: ("x.pth", write) for name, write in PLACES.items()},
    "directory.safetensors": ("x.safetensors", Path.mkdir),
    "FIFO.safetensors": ("x.safetensors", os.mkfifo),
    "too long": (f"{'x' * 5000}.pth", lambda path: None),
    "path too long": ("x/" * 5000 + "x.pth", lambda path: None),
    "below a file": ("y.pth/x.pth", lambda path: path.parent.write_bytes(b"")),
    "no UTF-8": ("caf\udce9.pth", saved(state)),
    "no UTF-8 and absent": ("caf\udce9.safetensors", lambda path: None),
    "NUL": ("a\0b.pth", lambda path: None),
    "line break": ("a\nb.pth", lambda path: None),
    "line break, text": ("a\r\nb.pth", content(b"hello")),
    "line break, other head": ("a\u2028b.pth", PTH["other head"]),
    "escape": ("\x1b[31m.safetensors", content(b"hello")),
    "Namespace alone": ("x.pth", saved(lambda: argparse.Namespace(model=state()))),
}
