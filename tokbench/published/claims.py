"""Published numbers, and what was measured beside them.

`published.csv` has one row for each number that a paper, a repository or timm's tables give. Its `method`, `model`,
`params` and `schedule` are in tokbench's own terms where the source says enough, and empty where it does not; what it
printed stands in `published_as`, `published_model` and `published_keep`. A plugin's own claims come on top.
"""

from __future__ import annotations

import importlib.resources
import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import pandas as pd

from tokbench.downsampler import Claim
from tokbench.errors import UserError
from tokbench.notation import parameters_text, parse_call
from tokbench.published.timm_accuracy import full_name
from tokbench.registry import bind_parameters, method_class

FILE_NAME = "published.csv"
PLAIN_METHOD = "none"
PLAIN_REGIME = "plain"
VALIDATION_IMAGES = 50_000  # ImageNet-1k's: published accuracies are of all of them

# Two runs of the same weights differ by less (resizing, rounding); a plain model further off has other weights.
SAME_WEIGHTS = 0.1

TEXTS = (
    *("method", "published_as", "params", "model", "published_model", "regime", "training", "schedule"),
    *("published_keep", "read_from", "paper", "source"),
)
NUMBERS = ("keep", "gmacs", "top1", "baseline_top1")
SETTING = ["model", "method", "params", "regime", "site", "schedule", "keep"]
BESIDE = (
    *(*SETTING, "gmacs", "claimed_gmacs", "top1", "claimed_top1", "difference", "not_comparable"),
    *("published_as", "published_keep", "read_from", "paper", "source", "note"),
)


def load_claims() -> pd.DataFrame:
    """The published numbers that come with tokbench, a row each; accuracies in percent, keep in (0, 1]."""
    with importlib.resources.files("tokbench.published").joinpath(FILE_NAME).open(encoding="utf-8") as file:
        claims = pd.read_csv(file, dtype={**dict.fromkeys(TEXTS, "string"), "year": "Int64"})
    return claims.astype(dict.fromkeys(NUMBERS, "float64")).fillna(dict.fromkeys(TEXTS, ""))


def claims_for(method: str) -> tuple[Claim, ...]:
    """What was published about a method, its class's own claims last; gmacs is nan where the source has none.

    Args:
        method: A registered name.

    Raises:
        UserError: There is no such method.
    """
    own = method_class(method).claims
    claims = load_claims()
    rows = claims[claims["method"] == method].to_dict("records")
    return (*(Claim(r["published_model"], r["regime"], r["gmacs"], r["top1"], r["source"]) for r in rows), *own)


def published(methods: Iterable[str]) -> pd.DataFrame:
    """The published numbers of some methods and of the plain models, plugins' own claims included.

    Args:
        methods: Names, of which the unregistered have no claims of their own.
    """
    names = dict.fromkeys([*methods, PLAIN_METHOD])
    claims = load_claims()
    own = [row for name in names for row in _own_claims(name)]
    if not own:
        return claims[claims["method"].isin(names)].reset_index(drop=True)
    added = pd.DataFrame(own).reindex(columns=claims.columns).astype(claims.dtypes).fillna(dict.fromkeys(TEXTS, ""))
    return pd.concat([claims[claims["method"].isin(names)], added], ignore_index=True)


def beside(table: pd.DataFrame) -> pd.DataFrame:
    """The published numbers that say the same of a model as rows of a comparison, each beside what was measured.

    They agree in model, method, parameters, regime, schedule and keep; parameters that a source does not name are
    taken for the method's defaults. `difference` is measured minus claimed, in points, and missing where
    `not_comparable` says why: a published top-1 is of ImageNet's 50,000 validation images.

    Args:
        table: The rows of a comparison, with the columns of the design's row; seeds count by their mean.

    Returns:
        One row for each pair of a measured setting and a published number, with the columns `BESIDE`.
    """
    claims = published(table["method"])
    plain = claims[(claims["method"] == PLAIN_METHOD) & (claims["model"] == claims["published_model"])]
    public = dict(zip(plain["model"], plain["top1"], strict=True))
    measured = table[table["status"] == "ok"].groupby(SETTING, sort=False, dropna=False)
    settings = measured.agg({"gmacs": "mean", "top1": "mean", "images": "min"}).reset_index()
    lines = [
        _line(setting, claim, public)
        for setting in settings.to_dict("records")
        for claim in _matching(setting, claims).to_dict("records")
    ]
    return pd.DataFrame(lines, columns=list(BESIDE))


def _own_claims(name: str) -> list[dict[str, Any]]:
    """A class's claims as rows of the file; what `Claim` has no field for is missing."""
    try:
        cls = method_class(name)
    except UserError:
        return []
    known = {"method": name, "published_as": name, "paper": cls.paper.title if cls.paper else ""}
    return [
        {**known, **asdict(claim), "model": full_name(claim.model), "published_model": claim.model}
        for claim in cls.claims
    ]


def _matching(setting: dict[Any, Any], claims: pd.DataFrame) -> pd.DataFrame:
    plain = setting["method"] == PLAIN_METHOD
    same: pd.Series[bool] = (
        (claims["method"] == setting["method"])
        & (claims["model"] == full_name(setting["model"]))
        & (claims["regime"] == (PLAIN_REGIME if plain else setting["regime"]))
        & (claims["schedule"] == setting["schedule"])
        & (claims["keep"].isna() if pd.isna(setting["keep"]) else claims["keep"] == setting["keep"])
    )
    found = claims.loc[same]
    return found.loc[[_same_params(setting, params) for params in found["params"]]]


def _same_params(setting: dict[Any, Any], params: str) -> bool:
    """Whether a claim's parameters, with the defaults for those that it does not name, are the measured ones."""
    method = setting["method"]
    if method == PLAIN_METHOD:
        return True
    try:
        bound = bind_parameters(method, parse_call(f"{method}({params})").named)
    except UserError:  # the table may be older than the plugins that are here
        return False
    return bool(parameters_text(bound) == setting["params"])


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
