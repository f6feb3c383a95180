"""Models without weights: by timm's names, those that come with tokbench, and from a repository or a folder."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from tokbench.embedded import model as digits
from tokbench.embedded.images import DATA_CONFIG
from tokbench.errors import UserError, did_you_mean
from tokbench.model_names import FOLDER, HUB, place_of
from tokbench.names import EMBEDDED_MODELS
from tokbench.user_files import expanded
from tokbench.vit import transformers_models
from tokbench.vit.architectures import architecture_names
from tokbench.vit.checkpoints import CONFIG, FILES, INDEX, PREPROCESSING, Checkpoint, read_json
from tokbench.vit.weights import one_line

PREPROCESSED_BY = ("input_size", "mean", "std", "crop_pct", "crop_mode", "interpolation")


def check_name(name: str) -> None:
    """Check that tokbench or timm knows a model, or that its folder exists.

    Raises:
        UserError: This is not so; the message suggests the nearest name.
    """
    place = place_of(name)
    if place is None:
        if name in EMBEDDED_MODELS or timm.is_model(name):
            return
        hint = did_you_mean(name, list(model_names()))
        if "/" in name:
            hint = f"write {HUB}:{name} for a repository of the Hugging Face hub, or {FOLDER}:{name} for a folder"
        raise UserError(f"unknown model '{name}': {hint}")
    source, where = place
    if not where or not where.isprintable():
        raise UserError(f"model {name!r} names no place: write {HUB}:USER/NAME or {FOLDER}:FOLDER")
    if source == FOLDER and not (expanded(where) / CONFIG).is_file():
        raise UserError(
            f"{where} is no folder with a {CONFIG}: give one that timm or transformers has saved, or --models NAME "
            f"--weights {where}"
        )


def model_names() -> tuple[str, ...]:
    """The embedded models and timm's; `load_model` refuses the few that `DownsampledViT` does not support."""
    return (*EMBEDDED_MODELS, *architecture_names())


def build(name: str, img_size: int | None = None) -> nn.Module:
    """A model with random weights, the same each time.

    Args:
        name: One that `check_name` accepts.
        img_size: Height and width of its images in pixels; None takes its own.

    Raises:
        UserError: It cannot be built, or has no such size.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name in EMBEDDED_MODELS:
            vit: nn.Module = digits.build(name)
            vit.pretrained_cfg = DATA_CONFIG  # type: ignore[assignment]
        elif (folder := folder_of(name)) is not None:
            vit = _from_folder(name, folder)
        else:
            vit = timm.create_model(name, pretrained=False)
    return vit if img_size is None else with_size(vit, name, img_size)


def folder_of(name: str) -> Path | None:
    """The folder that holds a model's configuration and weights, for the hub that of its cache; None for other names.

    Raises:
        UserError: It cannot be downloaded.
    """
    place = place_of(name)
    if place is None:
        return None
    source, where = place
    return expanded(where) if source == FOLDER else _downloaded(name, where)


def with_size(vit: Any, name: str, img_size: int) -> Any:
    """The same model for images of another size: timm resamples its position embeddings, and preprocessing follows.

    Args:
        vit: The model, which is changed.
        name: Its name, for the message.
        img_size: Height and width in pixels.

    Raises:
        UserError: The size is no multiple of the patch size.
    """
    patches: Any = getattr(vit, "patch_embed", None)
    if not hasattr(vit, "set_input_size") or not hasattr(patches, "patch_size"):
        raise UserError(f"--img-size {img_size}: {name} has images of one size only")
    patch = max(patches.patch_size)
    if img_size % patch:
        nearest = max(1, round(img_size / patch)) * patch
        raise UserError(
            f"--img-size {img_size}: {name} has patches of {patch} pixels: "
            f"give a multiple of {patch}, such as {nearest}"
        )
    if tuple(patches.img_size) != (img_size, img_size):
        vit.set_input_size(img_size=(img_size, img_size))
    channels = patches.proj.in_channels
    vit.pretrained_cfg = {**vit.pretrained_cfg, "input_size": (channels, img_size, img_size)}
    return vit


def preprocessing_of(vit: Any) -> dict[str, Any]:
    """How images become the model's input, in timm's terms."""
    return {key: vit.pretrained_cfg.get(key) for key in PREPROCESSED_BY}


def settings_of(vit: Any, name: str, img_size: int | None, built: Mapping[str, Any]) -> str:
    """What, besides the weights, makes the model another one than its name says: empty for timm's own.

    Args:
        vit: The model.
        name: Its name.
        img_size: Height and width of its images in pixels; None for its own.
        built: Its `preprocessing_of` before weights were loaded.
    """
    settings: dict[str, Any] = {} if img_size is None else {"img_size": img_size}
    if place_of(name) is not None or preprocessing_of(vit) != built:
        settings["preprocessing"] = preprocessing_of(vit)
    if place_of(name) is not None:
        settings["model"] = [repr(vit), *_unseen(vit)]
    return json.dumps(settings, sort_keys=True, default=str) if settings else ""


def _unseen(vit: Any) -> list[Any]:
    """What changes a model's answers and shows neither in its weights nor in its representation as a text."""
    rope = vars(vit.rope) if getattr(vit, "rope", None) is not None else {}
    rotation = {key: value for key, value in rope.items() if isinstance(value, bool | int | float | str)}
    return [vit.global_pool, [block.attn.num_heads for block in vit.blocks], rotation]


def preprocessed_as(vit: Any, checkpoint: Checkpoint) -> list[str]:
    """Let a model's images be preprocessed as timm's or transformers' configuration beside the weights says.

    Args:
        vit: The model. Its preprocessing is changed, but for the size of its images.
        checkpoint: The weights.

    Returns:
        That this was done, if it changes anything.
    """
    found, file = transformers_models.preprocessing(checkpoint.preprocessing), PREPROCESSING
    saved = checkpoint.config.get("pretrained_cfg")
    if "architecture" in checkpoint.config and isinstance(saved, Mapping):
        found, file = {key: saved[key] for key in PREPROCESSED_BY if key != "input_size" and saved.get(key)}, CONFIG
    own = {key: _as_tuple(vit.pretrained_cfg.get(key)) for key in found}
    changed = {key: _as_tuple(value) for key, value in found.items() if _as_tuple(value) != own[key]}
    if not changed:
        return []
    vit.pretrained_cfg = {**vit.pretrained_cfg, **changed}
    return [f"preprocessing as {file} says"]


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _from_folder(name: str, folder: Path) -> nn.Module:
    config = read_json(folder / CONFIG)
    where = one_line(str(folder))
    try:
        if "architecture" in config:
            # timm reads the sizes and the preprocessing of what it has saved.
            saved: nn.Module = timm.create_model(f"{FOLDER}:{folder}", pretrained=False)
            return saved
        if "model_type" in config:
            vit: Any = transformers_models.create(config)
            patches = vit.patch_embed
            vit.pretrained_cfg = {**vit.pretrained_cfg, "input_size": (patches.proj.in_channels, *patches.img_size)}
            return vit  # type: ignore[no-any-return]
        reason = f"its {CONFIG} is neither timm's nor transformers'"
    # A configuration may hold any value, and the model's class any complaint.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
    raise UserError(f"{name} cannot be built ({one_line(reason)}): give --models NAME --weights {where}")


def _downloaded(name: str, place: str) -> Path:
    """The folder of the hub's cache with a repository's configuration and weights."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # the user need not see each retry
    repository, _, revision = place.partition("@")

    def fetch(file: str) -> Path:
        return Path(hf_hub_download(repository, file, revision=revision or None))

    def fetch_if_there(file: str) -> Path | None:
        try:
            return fetch(file)
        except EntryNotFoundError:
            return None

    try:
        folder = fetch(CONFIG).parent
        fetch_if_there(PREPROCESSING)
        for file in FILES:
            if fetch_if_there(file) is not None:
                return folder
            if (index := fetch_if_there(f"{file}{INDEX}")) is not None:
                for part in dict.fromkeys(map(str, read_json(index).get("weight_map", {}).values())):
                    fetch(part)
                return folder
        reason = "it has no file of weights"
    # The hub's libraries may raise any error of their network stack.
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
    raise UserError(
        f"{name} cannot be downloaded ({one_line(reason)}): connect to the internet, or copy the repository to this "
        f"machine and name its folder: --models {FOLDER}:FOLDER"
    )
