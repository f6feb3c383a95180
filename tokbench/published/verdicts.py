"""Published next to measured: what is reproduced, what is explained, and what cannot be tested here.

A published setting has up to two numbers: its compute and its top-1. Each gets one verdict.

Compute needs neither weights nor images, so it is counted (see `counted`) wherever model and token counts are known. It
is reproduced where the count is within half of the last digit that the source prints. It is explained where it is not,
but one other convention of counting fits every setting of the source that can be counted. One convention has to fit the
whole source: chosen for each number anew, it would fit too easily.

Top-1 is reproduced where a run on ImageNet's 50,000 validation images in the same setting is within 0.1 points (0.2 for
a number that was read off a figure). Where the setting differs, the difference is put down to that and stated. A run on
other images cannot confirm a top-1; its loss against the plain model is set beside the published loss.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from tokbench.names import PLAIN
from tokbench.published import measured
from tokbench.published.claims import DECIMALS, VALIDATION_IMAGES, load_claims, public_top1
from tokbench.published.counted import Counted, can_be_counted, load_counted, printed, setting, tolerance
from tokbench.published.measured import MeasuredRow, differences, measured_rows, nearest
from tokbench.published.obstacles import FIGURE, METHOD, SCHEDULE, WEIGHTS, Obstacle, obstacles
from tokbench.published.timm_accuracy import SAME_WEIGHTS
from tokbench.results import Results

REPRODUCED = "reproduced"
EXPLAINED = "explained"
UNEXPLAINED = "unexplained"
OTHER_IMAGES = "other images"
NOT_MEASURED = "not measured"
NOT_TESTABLE = "not testable"
VERDICTS: Mapping[str, str] = {
    REPRODUCED: "the same setting gives the published number",
    EXPLAINED: "another number, and a named difference of the settings accounts for it",
    UNEXPLAINED: "another number in the same setting, for no known reason",
    OTHER_IMAGES: "only the loss against the plain model can be set beside it, on other images",
    NOT_MEASURED: "it could be measured, with ImageNet's validation images",
    NOT_TESTABLE: "the source does not say enough, or its weights are not public",
}
"""What each verdict means, in the order in which they are shown."""

GMACS, TOP1 = "gmacs", "top1"
CONTAINED, NOT_CONTAINED = "contained", "not contained"  # the published loss, in the interval of the measured one
SAME_COMPUTE = 0.05  # of a row that stands in for a setting whose token counts are not published
CLAIM = (
    *("method", "published_as", "params", "model", "published_model", "regime", "schedule", "keep"),
    *("published_keep", "read_from", "paper", "source"),
)
COLUMNS = (
    "claim",
    *CLAIM,
    "quantity",
    "printed",
    "published",
    "measured",
    "difference",
    "run",
    "row",
    "verdict",
    "reason",
    "why",
    "command",
)


@dataclass(frozen=True)
class Verdict:
    """What becomes of one published number.

    Attributes:
        verdict: One of `VERDICTS`.
        why: In a sentence without a full stop; empty where there is nothing to add.
        reason: In a word or two what explains a number, or keeps it from being tested; of a loss on other images,
            whether its interval contains the published one.
        measured: The number to set beside it, or missing (NaN).
        row: The measured row that is nearest; None where there is none.
        command: What would measure it, where only the images are missing; else empty.
    """

    verdict: str
    why: str = ""
    reason: str = ""
    measured: float = math.nan
    row: MeasuredRow | None = None
    command: str = ""


def compare_claims(runs: Iterable[Results], claims: pd.DataFrame) -> pd.DataFrame:
    """Set each published number beside what was counted or measured, and judge it.

    Args:
        runs: Results directories; compute needs none.
        claims: Rows of `tokbench.published.claims.published`.

    Returns:
        One line for each published number, in the claims' order, with the columns `COLUMNS`. `claim` is the label of
        the claim's row. `quantity` is `gmacs` or `top1`. `printed` is the number as the source prints it. `difference`
        is measured minus published, in points for top-1, and missing where the two are not comparable. `run` and `row`
        name the nearest measured row, and `command` is what would measure a number that only needs ImageNet.
    """
    return judge(claims, measured_rows(runs), load_counted())


def judge(
    claims: pd.DataFrame, rows: Sequence[MeasuredRow], counted: Mapping[tuple[Any, ...], Counted]
) -> pd.DataFrame:
    """As `compare_claims`, of rows and counts that were read already."""
    public = public_top1(load_claims())
    conventions = {paper: _convention(own, counted) for paper, own in claims.groupby("paper", sort=False)}
    lines = []
    for number, claim in zip(claims.index, claims.to_dict("records"), strict=True):
        if not pd.isna(claim[GMACS]):
            found = _judge_compute(claim, rows, counted, conventions[claim["paper"]])
            lines.append({"claim": number, **_line(claim, GMACS, found)})
        if not pd.isna(claim[TOP1]):
            lines.append({"claim": number, **_line(claim, TOP1, _judge_top1(claim, rows, public))})
    return pd.DataFrame(lines, columns=list(COLUMNS))


def count_verdicts(verdicts: pd.DataFrame) -> pd.DataFrame:
    """How many numbers have each verdict: a line for each verdict, in the order of `VERDICTS`, a column a quantity."""
    found = pd.crosstab(verdicts["verdict"], verdicts["quantity"])
    return found.reindex(index=list(VERDICTS), columns=[GMACS, TOP1], fill_value=0)


def _line(claim: Mapping[Hashable, Any], quantity: str, found: Verdict) -> dict[str, Any]:
    comparable = found.verdict in (REPRODUCED, EXPLAINED, UNEXPLAINED)
    return {
        **{name: claim[name] for name in CLAIM},
        "quantity": quantity,
        "printed": printed(claim) if quantity == GMACS else f"{claim[TOP1]:g}",
        "published": claim[quantity],
        "measured": found.measured,
        "difference": found.measured - claim[quantity] if comparable else math.nan,
        "run": found.row.run if found.row else "",
        "row": str(found.row) if found.row else "",
        "verdict": found.verdict,
        "reason": found.reason,
        "why": found.why,
        "command": found.command,
    }


# Compute


def _convention(claims: pd.DataFrame, counts: Mapping[tuple[Any, ...], Counted]) -> str:
    """The way of counting with which one source's numbers agree, all of them; empty for tokbench's own, or for none."""
    found = [(claim, counts.get(setting(claim))) for claim in claims.to_dict("records") if not pd.isna(claim[GMACS])]
    known = [(claim, count.by_convention()) for claim, count in found if count]
    names = known[0][1] if known else {}
    return next((name for name in names if all(_agrees(claim, count[name]) for claim, count in known)), "")


def _judge_compute(
    claim: Mapping[Hashable, Any],
    rows: Sequence[MeasuredRow],
    counts: Mapping[tuple[Any, ...], Counted],
    convention: str,
) -> Verdict:
    count = counts.get(setting(claim))
    row = nearest(claim, rows)
    if count is None and row is not None and not differences(claim, row).keys() - {measured.REGIME}:
        count = Counted(row.gmacs, math.nan, math.nan)
    if count is None:
        return _uncounted(claim, row)
    ours = count.gmacs
    if _agrees(claim, ours):
        return Verdict(REPRODUCED, measured=ours, row=row)
    off = f"{100 * (ours / claim[GMACS] - 1):+.2f} %"
    if convention:
        there = count.by_convention()[convention]
        return Verdict(EXPLAINED, f"the source counts {convention}: {there:.4g} GMACs", "counting", ours, row)
    return Verdict(UNEXPLAINED, f"no convention of counting fits all numbers of this source; {off}", "", ours, row)


def _uncounted(claim: Mapping[Hashable, Any], row: MeasuredRow | None) -> Verdict:
    if can_be_counted(claim):
        return Verdict(NOT_MEASURED, "not counted yet: python benchmarks/claimed_macs.py", row=row)
    wanted = (METHOD, WEIGHTS, SCHEDULE)
    blocking = [one for one in obstacles(claim, {}) if one.kind in wanted]
    return Verdict(NOT_TESTABLE, _sentence(blocking), blocking[0].kind, row=row)


def _agrees(claim: Mapping[Hashable, Any], gmacs: float) -> bool:
    decimals = 0 if pd.isna(claim[DECIMALS]) else int(claim[DECIMALS])
    published = float(claim[GMACS])
    return abs(gmacs - published) <= tolerance(published, decimals, claim["read_from"])


# Top-1


def _judge_top1(claim: Mapping[Hashable, Any], rows: Sequence[MeasuredRow], public: Mapping[str, float]) -> Verdict:
    complete = nearest(claim, [row for row in rows if row.images == VALIDATION_IMAGES])
    if complete is not None:
        return _judge_complete(claim, complete)
    row = nearest(claim, [row for row in rows if row.images > 0 and not math.isnan(row.top1)])
    blocking = [one for one in obstacles(claim, public) if one.kind != FIGURE]
    if row is not None and not {one.kind for one in blocking} - {SCHEDULE} and claim["method"] != PLAIN:
        beside = _losses(claim, row, public)
        if beside is not None:
            return beside
    if blocking:
        return Verdict(NOT_TESTABLE, _sentence(blocking), blocking[0].kind, row=row)
    return Verdict(NOT_MEASURED, "needs ImageNet's validation images", row=row, command=_command(claim))


def _judge_complete(claim: Mapping[Hashable, Any], row: MeasuredRow) -> Verdict:
    """A published top-1 beside one of the same images."""
    near = SAME_WEIGHTS * (2 if claim["read_from"] == "figure" else 1)
    difference = row.top1 - claim[TOP1]
    others = differences(claim, row)
    if others:
        text = f"{'; '.join(others.values())}: {difference:+.2f} points"
        if abs(difference) <= near:
            return Verdict(
                NOT_TESTABLE, f"the same number in another setting: {text}", next(iter(others)), row.top1, row
            )
        return Verdict(EXPLAINED, text, next(iter(others)), row.top1, row)
    if abs(difference) <= near:
        return Verdict(REPRODUCED, measured=row.top1, row=row)
    plain = row.plain_top1 - claim["baseline_top1"]  # missing where either is
    if abs(difference - plain) <= near:
        return Verdict(EXPLAINED, f"its plain model differs by {plain:+.2f} points", "baseline", row.top1, row)
    return Verdict(UNEXPLAINED, f"{difference:+.2f} points in the same setting", "", row.top1, row)


def _losses(claim: Mapping[Hashable, Any], row: MeasuredRow, public: Mapping[str, float]) -> Verdict | None:
    """The published loss beside the measured one; None where the row is not at nearly the same compute."""
    others = differences(claim, row)
    same_compute = abs(row.gmacs / claim[GMACS] - 1) <= SAME_COMPUTE  # False where one is missing
    before = public.get(claim["model"], math.nan) if pd.isna(claim["baseline_top1"]) else claim["baseline_top1"]
    if math.isnan(row.delta) or math.isnan(before) or (others and not (same_compute and [*others] == [SCHEDULE])):
        return None
    loss = claim[TOP1] - before
    inside = row.delta_lo <= loss <= row.delta_hi
    compute = "" if pd.isna(claim[GMACS]) else f" at {claim[GMACS]:g} GMACs"
    why = (
        f"published {loss:+.1f} points on ImageNet{compute}; here {row.delta:+.1f} [{row.delta_lo:.1f}, "
        f"{row.delta_hi:.1f}] on {row.images} other images at {row.gmacs:.3g} GMACs: the interval "
        f"{'contains' if inside else 'does not contain'} it"
    )
    return Verdict(OTHER_IMAGES, why, CONTAINED if inside else NOT_CONTAINED, row=row)


def _sentence(found: Sequence[Obstacle]) -> str:
    return "; ".join(one.text for one in found)


def _command(claim: Mapping[Hashable, Any]) -> str:
    """The command that would measure a claim."""
    start = f"tokbench compare imagenet --data IMAGENET --models {claim['model']}"
    if claim["method"] == PLAIN:
        return f"{start} --methods none"
    method = f"'{claim['method']}({claim['params']})'" if claim["params"] else claim["method"]
    keep = "" if pd.isna(claim["keep"]) else f" --keep {claim['keep']:g}"
    return f"{start} --methods {method} --schedule '{claim['schedule']}'{keep}"
