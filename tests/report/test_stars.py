"""Every star and every bold number of the committed results, checked from the raw outcomes of each image."""

import json
import math
from itertools import product
from pathlib import Path

import pytest
from stored_results import RESULTS, read_records

from tokbench.results import load
from tokbench.stats.proportions import tango

DIRECTORIES = sorted(plan.parent for plan in RESULTS.rglob("plan.json") if (plan.parent / "records.jsonl").is_file())


def answers(directory: Path) -> list[str]:
    """The outcomes of each row of the plan, joined from the lines of the records."""
    shards: dict[str, dict[int, str]] = {}
    for record in read_records(directory):
        if record["kind"] == "accuracy":
            key, _, start = record["key"].partition("/")
            shards.setdefault(key, {})[int(start)] = record["value"]["outcomes"]
    rows = json.loads((directory / "plan.json").read_text())["rows"]
    keys = [row["keys"].get("accuracy") for row in rows]  # none where a row is skipped
    return ["".join(text for _, text in sorted(shards.get(key, {}).items())) for key in keys]


def surely_beats(winners: list[str], losers: list[str]) -> bool:
    for winner, loser in product(winners, losers):
        gained = lost = both = 0
        for mine, its in zip(winner, loser, strict=True):
            if "?" not in (mine, its):
                both += 1
                gained += mine == "0" != its
                lost += its == "0" != mine
        if tango(gained, lost, both).lo <= 0:
            return False
    return True


@pytest.mark.parametrize("directory", DIRECTORIES, ids=lambda path: path.name)
def test_every_star_and_bold_number_follows_from_the_raw_outcomes(directory: Path) -> None:
    table = load(directory).table
    outcomes = answers(directory)
    # The seeds of a setting are one row of what a reader sees.
    settings: dict[tuple[str, ...], list[int]] = {}
    for place, row in enumerate(table.to_dict("records")):
        if row["status"] != "ok":
            continue
        names = ("model", "method", "params", "site", "schedule", "keep")
        tuned = row["regime"] == "fine-tuned"  # such rows are compared with one another only
        among = (tuned, row["batch_size"], row["mode"])
        settings.setdefault((*(str(row[name]) for name in names), *map(str, among)), []).append(place)
    cost = {name: sum(table["gmacs"][place] for place in places) / len(places) for name, places in settings.items()}
    texts = {name: [outcomes[place] for place in places] for name, places in settings.items()}
    starred = bold = rivals = 0
    for name, places in settings.items():
        others = [other for other in settings if other != name and (other[0], other[-3:]) == (name[0], name[-3:])]
        no_dearer = [other for other in others if cost[other] <= 1.01 * cost[name]]
        beating = [other for other in no_dearer if surely_beats(texts[other], texts[name])]
        equal = [other for other in no_dearer if cost[name] <= 1.01 * cost[other]]
        for place in places:
            assert not math.isnan(cost[name])
            assert table["pareto"][place] == (not beating), name
            assert table["best_at_compute"][place] == (bool(equal) and not set(equal) & set(beating)), name
        starred += not beating
        rivals += bool(equal)
        bold += bool(table["best_at_compute"][places[0]])
    assert 1 <= starred < len(settings)
    assert (bold > 0) == (rivals > 0)
    assert bold < len(settings)
