"""Published numbers, and what was measured beside them.

`published.csv` has one row for each number that a paper, a repository or timm's tables give. Its `method`, `model`,
`params` and `schedule` are in tokbench's own terms where the source says enough, and empty where it does not; what it
printed stands in `published_as`, `published_model` and `published_keep`. A plugin's own claims come on top.
"""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from tokbench.names import FINE_TUNED, IMG_SIZE, PLAIN
from tokbench.notation import split_parameters
from tokbench.published.timm_accuracy import SAME_WEIGHTS
from tokbench.results.plan import MethodInfo, Plan
from tokbench.rows import ANSWER

FILE_NAME = "published.csv"
PLAIN_REGIME = "plain"
VALIDATION_IMAGES = 50_000  # ImageNet-1k's: published accuracies are of all of them

TEXTS = (
    *("method", "published_as", "params", "model", "published_model", "regime", "training", "schedule"),
    *("published_keep", "read_from", "paper", "source"),
)
NUMBERS = ("keep", "gmacs", "top1", "baseline_top1")
DECIMALS = "decimals"
SETTING = [name for name in ANSWER if name != "seed"]
BESIDE = (
    *(*SETTING, "gmacs", "claimed_gmacs", "top1", "claimed_top1", "difference", "not_comparable"),
    *("published_as", "published_keep", "read_from", "paper", "source", "note"),
)


def load_claims() -> pd.DataFrame:
    """The published numbers that come with tokbench, a row each.

    Returns:
        Accuracies in percent, `gmacs` in billions per image, of which the source prints as many `decimals`, keep in
        (0, 1].
    """
    with importlib.resources.files("tokbench.published").joinpath(FILE_NAME).open(encoding="utf-8") as file:
        claims = pd.read_csv(file, dtype={**dict.fromkeys((*TEXTS, *NUMBERS), "string"), "year": "Int64"})
    return _with_numbers(claims)


def published(methods: Mapping[str, MethodInfo]) -> pd.DataFrame:
    """The published numbers of some methods and of the plain models, those that the methods' classes bring included.

    Args:
        methods: By name.
    """
    claims = load_claims()
    own = [row for name, info in methods.items() for row in _own_claims(name, info)]
    known = claims[claims["method"].isin([*methods, PLAIN])].reset_index(drop=True)
    if not own:
        return known
    written = pd.DataFrame(own).reindex(columns=[name for name in claims.columns if name != DECIMALS])
    texts = dict.fromkeys((*TEXTS, *NUMBERS), "string")
    return pd.concat([known, _with_numbers(written.astype({**texts, "year": "Int64"}))], ignore_index=True)


def public_top1(claims: pd.DataFrame) -> dict[str, float]:
    """The top-1 of the public weights of each model, in percent, from the rows of timm's results among some claims."""
    plain = claims[(claims["method"] == PLAIN) & (claims["model"] == claims["published_model"])]
    return dict(zip(plain["model"], plain["top1"], strict=True))


def beside(table: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    """The published numbers that say the same of a model as rows of a comparison, each beside what was measured.

    They agree in model, method, parameters, regime, schedule and keep; parameters that a source does not name are
    taken to be the method's defaults. `difference` is measured minus claimed, in points, and missing where
    `not_comparable` says why: a published top-1 is of ImageNet's 50,000 validation images. There is nothing to compare
    where the images are of other classes.

    Args:
        table: The rows of a comparison; seeds count by their mean.
        plan: Its plan, which knows the models' full names and the methods' defaults.

    Returns:
        One row for each pair of a measured setting and a published number, with the columns `BESIDE`.
    """
    if plan.images is not None and plan.images.own_classes:
        return pd.DataFrame(columns=list(BESIDE))
    claims = published({name: plan.methods.get(name, MethodInfo()) for name in table["method"].unique()})
    public = public_top1(claims)
    measured = table[table["status"] == "ok"].groupby(SETTING, sort=False, dropna=False)
    settings = measured.agg({"gmacs": "mean", "top1": "mean", "images": "min"}).reset_index()
    lines = [
        _line(setting, claim, public)
        for setting in settings.to_dict("records")
        for claim in _matching(setting, claims, plan).to_dict("records")
    ]
    return pd.DataFrame(lines, columns=list(BESIDE))


def _with_numbers(written: pd.DataFrame) -> pd.DataFrame:
    """Claims whose numbers are as the source prints them: as numbers, with the decimals of their compute."""
    decimals = written["gmacs"].str.partition(".")[2].str.len().astype("Int64")
    numbers = written.astype(dict.fromkeys(NUMBERS, "float64")).fillna(dict.fromkeys(TEXTS, ""))
    return numbers.assign(**{DECIMALS: decimals})


def _own_claims(name: str, info: MethodInfo) -> list[dict[str, Any]]:
    """A class's claims as rows of the file; what `Claim` has no field for is missing."""
    known = {"method": name, "published_as": name, "paper": info.paper}
    return [
        {**known, **asdict(claim), "model": claim.full_name, "published_model": claim.model} for claim in info.claims
    ]


def _matching(setting: dict[Any, Any], claims: pd.DataFrame, plan: Plan) -> pd.DataFrame:
    untrained = setting["method"] == PLAIN and setting["regime"] != FINE_TUNED
    plain = untrained and f"{IMG_SIZE}=" not in setting["params"]
    same: pd.Series[bool] = (
        (claims["method"] == setting["method"])
        & (claims["model"] == full_name(setting["model"], plan, claims))
        & (claims["regime"] == (PLAIN_REGIME if plain else setting["regime"]))
        & (claims["schedule"] == setting["schedule"])
        & (claims["keep"].isna() if pd.isna(setting["keep"]) else claims["keep"] == setting["keep"])
    )
    found = claims.loc[same]
    return found.loc[[plain or _same_params(setting, params, plan) for params in found["params"]]]


def full_name(model: str, plan: Plan, claims: pd.DataFrame) -> str:
    """A model's name with the tag of its weights; plans of older versions do not have it, but claims may."""
    tagged = {name for name in claims["model"] if name.partition(".")[0] == model}
    return plan.models.get(model, tagged.pop() if len(tagged) == 1 else model)


def _same_params(setting: dict[Any, Any], claimed: str, plan: Plan) -> bool:
    """Whether a claim's parameters, with the defaults for those that it does not name, are the measured ones."""
    info = plan.methods.get(setting["method"], MethodInfo())
    return {**info.defaults, **split_parameters(claimed)} == split_parameters(setting["params"])


def _line(setting: dict[Any, Any], claim: dict[Any, Any], public: dict[str, float]) -> dict[str, Any]:
    obstacle = _obstacle(setting["images"])
    return {
        **setting,
        "claimed_gmacs": claim["gmacs"],
        "claimed_top1": claim["top1"],
        "difference": math.nan if obstacle else setting["top1"] - claim["top1"],
        "not_comparable": obstacle,
        **{name: claim[name] for name in ("published_as", "published_keep", "read_from", "paper", "source")},
        "note": _note(claim, public.get(claim["model"])),
    }


def _obstacle(images: Any) -> str:
    if pd.isna(images):
        return "accuracy was not measured"
    return "" if images == VALIDATION_IMAGES else f"{images} images are not ImageNet's {VALIDATION_IMAGES}"


def _note(claim: dict[Any, Any], public: float | None) -> str:
    """What sets the published number apart from what is measured with the public weights."""
    own = claim["baseline_top1"]
    parts = []
    if public is not None and abs(own - public) > SAME_WEIGHTS:
        parts.append(f"its plain model has {own:g} %, the public weights {public:g} %")
    if claim["training"]:
        parts.append(f"trained: {claim['training']}")
    return "; ".join(parts)
