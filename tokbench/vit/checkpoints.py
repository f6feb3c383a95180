"""Checkpoints: which files of a folder they are, which of the weights in them is meant, and what else they say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from tokbench.errors import UserError
from tokbench.user_files import expanded
from tokbench.vit.weights import WANTED, few, file_size, load_object, one_line, plain_state, without_shared_prefix

AVERAGES = ("state_dict_ema", "model_ema", "ema", "teacher")  # entries of a checkpoint with averaged weights
WRAPPERS = ("model", "state_dict", "module", "student")  # those with the weights themselves
AVERAGED_KEYS = re.compile(r"(?:model_ema|ema_model|ema)\.(?:module\.)?")  # where averages stand among the weights

FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""The names that libraries give a file of weights, the preferred ones first."""

DEEPEST = 4  # wrappers around one another; an odd file may hold itself
INDEX = ".index.json"  # after the name of a file that is saved in parts
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar", ".ckpt")
CONFIG, PREPROCESSING = "config.json", "preprocessor_config.json"
LARGEST_JSON = 2**26  # bytes; a configuration with the names of 20,000 classes has less than 2


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What was read.

    Attributes:
        state: The weights by name, float32.
        class_names: Of the head's outputs, in their order; empty where nothing names them.
        config: The content of `config.json` beside the weights; empty where there is none.
        preprocessing: That of `preprocessor_config.json`.
        remarks: Which of several weights were taken.
    """

    state: dict[str, Tensor]
    class_names: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


def read_checkpoint(given: str | Path, *, ema: bool = True) -> Checkpoint:
    """Read weights from a file, from the index of a file in parts, or from a folder with one of the two.

    Args:
        given: The path.
        ema: Whether to take the moving average of the weights where a checkpoint has both.

    Raises:
        UserError: There are no weights, several that may be meant, or they cannot be read.
    """
    path = _file_in(expanded(str(given)))
    content: Any = {}
    remarks: tuple[str, ...] = ()
    if path.name.endswith(INDEX):
        state = _parts(path)
    else:
        content = load_object(path)
        chosen, remarks = _chosen(content, ema)
        state, more = _without_averages(plain_state(chosen, path), ema)
        remarks = (*remarks, *more)
    config = read_json(path.parent / CONFIG)
    names = _names_in(content) or names_of_config(config)
    preprocessing = read_json(path.parent / PREPROCESSING) if "model_type" in config else {}
    return Checkpoint(state, names, config, preprocessing, remarks)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; empty where there is no file.

    Raises:
        UserError: It is not JSON, or no object.
    """
    if not path.exists():
        return {}
    shown = one_line(str(path))
    try:
        if file_size(path) > LARGEST_JSON:
            raise ValueError("it is too large")
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{shown} cannot be read ({one_line(str(error))}): correct it or remove it") from None
    if not isinstance(content, dict):
        raise UserError(f"{shown} holds no JSON object: correct it or remove it")
    return content


def names_of_config(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the classes in a configuration of transformers or timm, in their order; empty without them."""
    inner = config.get("pretrained_cfg")
    places = [config, inner] if isinstance(inner, Mapping) else [config]
    for place in places:
        for key in ("label_names", "labels", "id2label"):
            names = _in_order(place.get(key))
            # What transformers writes where nobody has named the classes.
            if names and names != tuple(f"LABEL_{number}" for number in range(len(names))):
                return names
    return ()


def _file_in(path: Path) -> Path:
    """The path itself, or the file of weights in a folder."""
    try:
        if not path.is_dir():
            return path
        found = sorted(entry for entry in path.iterdir() if entry.is_file())
    except (OSError, ValueError):  # what is wrong with the path is said when it is opened
        return path
    names = [entry.name for entry in found]
    for name in FILES:
        for wanted in (name, f"{name}{INDEX}"):
            if wanted in names:
                return path / wanted
    files = [entry for entry in found if entry.suffix.lower() in SUFFIXES or entry.name.endswith(INDEX)]
    shown = one_line(str(path))
    if not files:
        raise UserError(f"{shown} is a directory without weights: {WANTED}")
    if len(files) > 1:
        raise UserError(
            f"{shown} has several files that may be the weights: name one of {few([f.name for f in files])}"
        )
    return files[0]


def _parts(index: Path) -> dict[str, Tensor]:
    """The weights in all files that an index names."""
    places = read_json(index).get("weight_map")
    shown = one_line(str(index))
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise UserError(f"{shown} names no files: give the index that was saved with the weights")
    state: dict[str, Tensor] = {}
    for file in dict.fromkeys(places.values()):
        if Path(file).name != file:
            raise UserError(f"{shown} names {one_line(file)}, which is not beside it: put all parts in one folder")
        state.update(plain_state(load_object(index.parent / file), index.parent / file))
    return state


def _chosen(content: Any, ema: bool) -> tuple[Any, tuple[str, ...]]:
    """The entry of a training checkpoint that holds the weights, and what to say of it."""
    if not isinstance(content, dict):
        return content, ()
    averages = [key for key in AVERAGES if isinstance(content.get(key), dict) and content[key]]
    others = [key for key in WRAPPERS if isinstance(content.get(key), dict) and content[key]]
    if averages and (ema or not others):
        other = f"; --no-ema takes its {others[0]}" if others else ""
        remark = f"weights are the checkpoint's {averages[0]}, a moving average (EMA){other}"
        return _unwrapped(content[averages[0]]), (remark,)
    return _unwrapped(content), ()


def _unwrapped(state: Any) -> Any:
    """What stands in the innermost of wrappers around one another."""
    for _ in range(DEEPEST):
        inner = [key for key in WRAPPERS if isinstance(state.get(key), dict)] if isinstance(state, dict) else []
        if not inner:
            break
        state = state[inner[0]]
    return _without_counter(state)


def _without_counter(state: Any) -> Any:
    """Without the count of steps that torch's averaged model keeps beside its weights."""
    return {key: value for key, value in state.items() if key != "n_averaged"} if isinstance(state, dict) else state


def _without_averages(state: dict[str, Tensor], ema: bool) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """One of the two where a state dict holds the weights and their averages, as Lightning's callbacks write them."""
    averages = {key[match.end() :]: value for key, value in state.items() if (match := AVERAGED_KEYS.match(key))}
    others = {key: value for key, value in state.items() if not AVERAGED_KEYS.match(key)}
    if not averages:
        return state, ()
    if others and not ema:
        return without_shared_prefix(others), ()
    other = "; --no-ema takes the others" if others else ""
    return without_shared_prefix(averages), (f"weights are the moving averages (EMA) in the checkpoint{other}",)


def _names_in(content: Any) -> tuple[str, ...]:
    """The names of the classes in a training checkpoint."""
    if not isinstance(content, dict):
        return ()
    for place in (content, content.get("meta")):
        if isinstance(place, dict):
            for key in ("label_names", "class_names", "classes", "CLASSES", "class_to_idx", "id2label"):
                if names := _in_order(place.get(key)):
                    return names
    return ()


def _in_order(given: object) -> tuple[str, ...]:
    """Names out of a list, or out of a dict from names to places or from places to names."""
    if isinstance(given, Sequence) and not isinstance(given, str):
        return tuple(given) if all(isinstance(name, str) for name in given) else ()
    if not isinstance(given, Mapping):
        return ()
    pairs = [(value, key) if isinstance(value, int) else (key, value) for key, value in given.items()]
    try:
        places = {int(place): name for place, name in pairs}
    except (TypeError, ValueError):
        return ()
    if sorted(places) != list(range(len(pairs))) or not all(isinstance(name, str) for name in places.values()):
        return ()
    return tuple(places[place] for place in range(len(places)))
