"""Each manipulation of contributed results is rejected by its own name; an honest directory passes."""

import json
import shutil
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from contributed_run import edit_all, edit_json, edit_record, flipped, put, rebuild, remove, row_of

import tokbench
from tokbench.contribute.check import check_contribution
from tokbench.contribute.problem import Name
from tokbench.results import Results, load
from tokbench.results.plan import PLAN
from tokbench.results.store import FAILED, Records

ROOT = Path(__file__).parents[2]
ENVIRONMENT = "environment.json"

MANIPULATIONS: dict[str, tuple[Name, Callable[[Path], object]]] = {}


def manipulation(name: Name) -> Callable[[Callable[[Path], object]], Callable[[Path], object]]:
    """Register what changes a directory, and the name under which it must be rejected."""

    def register(change: Callable[[Path], object]) -> Callable[[Path], object]:
        MANIPULATIONS[change.__name__] = name, change
        return change

    return register


def found(directory: Path, references: Iterable[Results] = (), others: Iterable[Results] = ()) -> list[Name]:
    verdict = check_contribution(directory, list(references), list(others))
    return [problem.name for problem in verdict.problems]


def edit_csv(directory: Path, column: str, change: Callable[[float], float]) -> None:
    """Change a number of the second row of table.csv."""
    table = pd.read_csv(directory / "table.csv", dtype=str, keep_default_na=False)
    row = table.index[table["method"] == "random_selection"][0]
    table.loc[row, column] = str(change(float(table.loc[row, column])))
    table.to_csv(directory / "table.csv", index=False)


def scale(record: dict[str, Any], *names: str, by: float) -> None:
    for name in names:
        record[name] = [by * sample for sample in record[name]]


def edit_rows(directory: Path, change: Callable[[list[dict[str, Any]]], object]) -> None:
    edit_json(directory / PLAN, lambda plan: change(plan["rows"]))


# Tables


@manipulation(Name.CHANGED_TABLE)
def a_top1_in_the_csv(directory: Path) -> None:
    edit_csv(directory, "top1", lambda top1: top1 + 1)


@manipulation(Name.CHANGED_TABLE)
def a_top1_in_the_parquet(directory: Path) -> None:
    table = pd.read_parquet(directory / "table.parquet")
    table.loc[1, "top1"] += 1
    table.to_parquet(directory / "table.parquet")


@manipulation(Name.CHANGED_TABLE)
def a_time_ten_times_too_good_in_the_table(directory: Path) -> None:
    edit_csv(directory, "latency_ms", lambda latency: latency / 10)


@manipulation(Name.CHANGED_TABLE)
def an_answer_in_the_table_of_answers(directory: Path) -> None:
    answers = pd.read_parquet(directory / "correctness.parquet")
    answers.loc[0, "top1"] = not answers.loc[0, "top1"]
    answers.to_parquet(directory / "correctness.parquet")


@manipulation(Name.CHANGED_TABLE)
def a_row_deleted_from_the_csv(directory: Path) -> None:
    pd.read_csv(directory / "table.csv", dtype=str).iloc[:-1].to_csv(directory / "table.csv", index=False)


# Records


@manipulation(Name.CONTRADICTING_ANSWERS)
def an_answer_in_the_records(directory: Path) -> None:
    edit_record(directory, "accuracy", "random_selection", lambda one: one.update(outcomes=flipped(one["outcomes"])))
    rebuild(directory)


@manipulation(Name.MISSING_RECORD)
def a_failure_deleted(directory: Path) -> None:
    remove(directory, *[place for place in Records(directory).all() if place[0] == FAILED])
    rebuild(directory)


@manipulation(Name.UNPLANNED_RECORD)
def a_record_by_hand(directory: Path) -> None:
    put(directory, "macs", "0" * 24, {"total": 1, "method": 0, "tokens": [1]})


@manipulation(Name.UNPLANNED_RECORD)
def a_record_of_another_harness(directory: Path) -> None:
    put(directory, "acc,none", "imagenet", {"value": 0.9})


@manipulation(Name.DAMAGED_RECORD)
def a_number_without_its_checksum(directory: Path) -> None:
    file = directory / "records.jsonl"
    file.write_text(file.read_text().replace('"other_load": 0.', '"other_load": 1.', 1))


@manipulation(Name.IMPOSSIBLE_RECORD)
def an_answer_too_many(directory: Path) -> None:
    edit_record(directory, "accuracy", "random_selection", lambda one: one.update(outcomes=one["outcomes"] + "0"))


@manipulation(Name.IMPOSSIBLE_RECORD)
def one_sample_smaller(directory: Path) -> None:
    """The precision that the record states is no longer that of its samples."""

    def smaller(record: dict[str, Any]) -> None:
        record["other_s"] = [sample / (2 if place % 2 else 1) for place, sample in enumerate(record["other_s"])]

    edit_record(directory, "latency", "random_selection", smaller)
    rebuild(directory)


@manipulation(Name.COPIED_TIMES)
def the_times_of_another_row(directory: Path) -> None:
    donor = Records(directory).all()["latency", row_of(load(directory), "ats").keys["latency"]]
    names = ("base_s", "other_s", "half_width")
    edit_record(directory, "latency", "random_selection", lambda one: one.update({name: donor[name] for name in names}))
    rebuild(directory)


@manipulation(Name.COPIED_TIMES)
def the_times_of_the_plain_model_scaled(directory: Path) -> None:
    def scaled(record: dict[str, Any]) -> None:
        record["other_s"] = [0.7 * sample for sample in record["base_s"]]
        record["half_width"] = 0.0

    edit_record(directory, "latency", "random_selection", scaled)
    rebuild(directory)


# MACs


@manipulation(Name.WRONG_MACS)
def macs_one_percent_lower(directory: Path) -> None:
    edit_all(directory, "macs", lambda one: one.update(total=round(0.99 * one["total"]), batches=[]))
    rebuild(directory)


@manipulation(Name.WRONG_MACS)
def macs_of_an_adaptive_method_one_percent_lower(directory: Path) -> None:
    def lower(record: dict[str, Any]) -> None:
        record["total"] = round(0.99 * record["total"])
        for batch in record["batches"]:
            batch["total"] = record["total"]

    edit_record(directory, "macs", "ats", lower)
    rebuild(directory)


# Times


@manipulation(Name.IMPOSSIBLE_TIME)
def a_time_ten_times_too_good_in_the_samples(directory: Path) -> None:
    edit_record(directory, "latency", "random_selection", lambda one: scale(one, "other_s", by=0.1))
    rebuild(directory)


@manipulation(Name.IMPOSSIBLE_TIME)
def a_pair_of_times_a_hundred_times_too_good(directory: Path) -> None:
    edit_record(directory, "latency", "random_selection", lambda one: scale(one, "base_s", "other_s", by=0.01))
    rebuild(directory)


@manipulation(Name.IMPOSSIBLE_TIME)
def all_times_above_the_peak(directory: Path) -> None:
    edit_all(directory, "latency", lambda one: scale(one, "base_s", "other_s", by=1e-4))
    edit_all(directory, "noise", lambda one: [scale(block, "base_s", "other_s", by=1e-4) for block in one["blocks"]])
    rebuild(directory)


# The plan


@manipulation(Name.CHANGED_PLAN)
def a_row_deleted_from_plan_and_records(directory: Path) -> None:
    row = row_of(load(directory), "grid_pooling")
    places = {*load(directory).wanted(row), (FAILED, f"latency/{row.keys['latency']}")}
    edit_rows(directory, lambda rows: rows.remove(next(one for one in rows if one["method"] == "grid_pooling")))
    remove(directory, *places)
    rebuild(directory)


@manipulation(Name.CHANGED_PLAN)
def a_measurement_deleted_from_plan_and_records(directory: Path) -> None:
    key = row_of(load(directory), "grid_pooling").keys["latency"]
    edit_rows(directory, lambda rows: [one["keys"].pop("latency") for one in rows if one["method"] == "grid_pooling"])
    remove(directory, (FAILED, f"latency/{key}"))
    rebuild(directory)


@manipulation(Name.CHANGED_PLAN)
def a_row_said_to_be_impossible(directory: Path) -> None:
    row = row_of(load(directory), "grid_pooling")
    places = {*load(directory).wanted(row), (FAILED, f"latency/{row.keys['latency']}")}

    def skip(rows: list[dict[str, Any]]) -> None:
        next(one for one in rows if one["method"] == "grid_pooling").update(skipped="does not fit", keys={})

    edit_rows(directory, skip)
    remove(directory, *places)
    rebuild(directory)


@manipulation(Name.CHANGED_PLAN)
def a_seed_in_a_row(directory: Path) -> None:
    edit_rows(directory, lambda rows: [one.update(seed=7) for one in rows if one["seed"] == 0])
    rebuild(directory)


@manipulation(Name.WRONG_KEY)
def another_seed_in_settings_and_rows(directory: Path) -> None:
    edit_rows(directory, lambda rows: [one.update(seed=7) for one in rows if one["seed"] == 0])
    edit_json(directory / PLAN, lambda plan: plan["suite"].update(seeds=[7, 1]))
    rebuild(directory)


@manipulation(Name.UNKNOWN_METHOD)
def a_method_that_is_not_in_tokbench(directory: Path) -> None:
    edit_rows(directory, lambda rows: [one.update(method="mine") for one in rows if one["method"] == "ats"])
    rebuild(directory)


@manipulation(Name.UNKNOWN_METHOD)
def a_method_of_ones_own_under_a_known_name(directory: Path) -> None:
    edit_json(directory / PLAN, lambda plan: plan["methods"]["ats"].update(own=True))


@manipulation(Name.UNKNOWN_MODEL)
def a_model_of_ones_own(directory: Path) -> None:
    edit_rows(directory, lambda rows: [one.update(model="my_vit") for one in rows])
    rebuild(directory)


@manipulation(Name.UNKNOWN_FORMAT)
def another_format(directory: Path) -> None:
    edit_json(directory / PLAN, lambda plan: plan.update(schema=3))


# The environment


@manipulation(Name.WRONG_KEY)
def another_device(directory: Path) -> None:
    edit_json(directory / ENVIRONMENT, lambda machine: machine.update(device_name="Another CPU"))


@manipulation(Name.CONTRADICTING_ENVIRONMENT)
def a_gpu_in_place_of_the_cpu(directory: Path) -> None:
    gpu = {"driver": "570", "cuda": "13", "cudnn": 9, "multiprocessors": 132, "power_limit_w": 700.0}
    named = {"device": "cuda", "device_name": "NVIDIA H200", "gpu": gpu, "cuda": "13", "clock_mhz": 1980.0}
    edit_json(directory / ENVIRONMENT, lambda machine: machine.update(named))
    edit_json(directory / PLAN, lambda plan: plan.update(device="cuda"))
    rebuild(directory)


@manipulation(Name.INCOMPLETE_ENVIRONMENT)
def no_device_name(directory: Path) -> None:
    edit_json(directory / ENVIRONMENT, lambda machine: machine.pop("device_name"))


@manipulation(Name.SEVERAL_MACHINES)
def two_machines(directory: Path) -> None:
    edit_json(directory / ENVIRONMENT, lambda machine: machine.update(machines=[dict(machine), dict(machine)]))


@manipulation(Name.UNKNOWN_VERSION)
def another_version(directory: Path) -> None:
    edit_json(directory / ENVIRONMENT, lambda machine: machine["versions"].update(tokbench="99.0"))


@manipulation(Name.FUTURE_DATE)
def a_future_date(directory: Path) -> None:
    later = datetime.now(UTC) + timedelta(days=30)
    edit_json(directory / ENVIRONMENT, lambda machine: machine.update(measured=later.isoformat(timespec="seconds")))


# Files and texts


@manipulation(Name.CHANGED_IMAGES)
def labels_swapped(directory: Path) -> None:
    images = pd.read_parquet(directory / "images.parquet")
    images["label"] = (images["label"] + 1) % 10
    images.to_parquet(directory / "images.parquet")
    rebuild(directory)


@manipulation(Name.MISSING_FILE)
def a_missing_table(directory: Path) -> None:
    (directory / "table.parquet").unlink()


@manipulation(Name.UNKNOWN_FILE)
def a_program_beside_the_results(directory: Path) -> None:
    (directory / "setup.py").write_text("print()\n")


@manipulation(Name.PRIVATE_TEXT)
def a_private_path(directory: Path) -> None:
    edit_json(directory / PLAN, lambda plan: plan["suite"].update(cache="/home/someone/cache"))


@manipulation(Name.PRIVATE_TEXT)
def an_address_in_a_failure(directory: Path) -> None:
    place = next(place for place in Records(directory).all() if place[0] == FAILED)
    put(directory, *place, {"reason": "OSError: 192.168.13.7 does not answer"})
    rebuild(directory)


@manipulation(Name.UNREADABLE_FILE)
def a_plan_cut_short(directory: Path) -> None:
    (directory / PLAN).write_text((directory / PLAN).read_text()[:100])


@pytest.mark.parametrize("change", MANIPULATIONS)
def test_a_manipulation_is_rejected_by_its_name(change: str, copy: Path) -> None:
    name, manipulate = MANIPULATIONS[change]
    manipulate(copy)
    assert name in found(copy)


def test_every_other_name_has_a_manipulation() -> None:
    """The one that is left needs a reference."""
    assert set(Name) - {name for name, _ in MANIPULATIONS.values()} == {Name.DIFFERS_FROM_REFERENCE}


def test_an_untouched_run_passes_beside_a_reference(copy: Path, reference: Results) -> None:
    verdict = check_contribution(copy, [reference])
    assert verdict.problems == ()
    assert not [note for note in verdict.notes if note.startswith(("keys", "answers"))]


def test_the_reference_passes(tmp_path: Path) -> None:
    """A run of 75 rows from before this check existed, by this version's number."""
    directory = Path(shutil.copytree(ROOT / "results/reference/embedded", tmp_path / "reference"))
    edit_json(directory / ENVIRONMENT, lambda machine: machine["versions"].update(tokbench=tokbench.__version__))
    assert found(directory) == []


def test_answers_that_contradict_nothing_differ_from_a_reference(copy: Path, reference: Results) -> None:
    """Agreement is forged with them, so that only the reference shows it."""

    def forge(record: dict[str, Any]) -> None:
        record["outcomes"] = "-" * len(record["outcomes"])

    edit_record(copy, "accuracy", "random_selection", lambda one: one.update(outcomes=flipped(one["outcomes"])))
    edit_record(copy, "agreement", "random_selection", forge)
    rebuild(copy)
    assert found(copy) == []
    assert set(found(copy, [reference])) == {Name.DIFFERS_FROM_REFERENCE}


def test_times_copied_from_another_contribution_are_found(copy: Path, tmp_path: Path) -> None:
    other = load(Path(shutil.copytree(copy, tmp_path / "other")))
    edit_json(copy / ENVIRONMENT, lambda machine: machine.update(device_name="Another CPU"))
    assert Name.COPIED_TIMES in found(copy, others=[other])


def test_plain_times_far_above_a_reference_on_the_same_device_are_found(copy: Path, tmp_path: Path) -> None:
    """All times are scaled, so that nothing in the directory contradicts them."""
    slow = Path(shutil.copytree(copy, tmp_path / "slow"))
    edit_all(slow, "latency", lambda one: scale(one, "base_s", "other_s", by=10))
    assert Name.IMPOSSIBLE_TIME in found(copy, [load(slow)])


def test_problems_name_file_row_and_values(copy: Path) -> None:
    a_top1_in_the_csv(copy)
    (problem,) = check_contribution(copy, []).problems
    text = str(problem)
    assert text.startswith("changed-table: table.csv: row ")
    assert "random_selection" in text
    assert "top1" in text
    assert "\n" not in text


def test_a_plan_is_json_of_one_line_or_many(copy: Path) -> None:
    """What is compared is the content, not the text."""
    (copy / PLAN).write_text(json.dumps(json.loads((copy / PLAN).read_text()), indent=7))
    assert found(copy) == []
