"""plan.json: what is written can be read, by this version and of the one before."""

import json
import shutil
from pathlib import Path

import pytest

from tokbench.config import load_config
from tokbench.errors import UserError
from tokbench.results import ImagesInfo, MethodInfo, Plan, PlannedRow
from tokbench.results.plan import PLAN, SCHEMA, PublishedNumber, plan_json, read_plan, refuse_newer
from tokbench.rows import RowId

REFERENCE = Path(__file__).parents[1] / "stored/digits"


def row_id(**changes: object) -> RowId:
    values = {
        **{"model": "m", "method": "mine", "params": "algorithm=a,b,weighted=true", "regime": "fine-tuned"},
        **{"site": "after_block", "schedule": "budget(0.7)", "keep": 0.5431, "seed": 3, "dtype": "bf16"},
        **{"batch_size": 8, "mode": "compile"},
    }
    return RowId(**{**values, **changes})  # type: ignore[arg-type]


@pytest.fixture
def plan() -> Plan:
    claim = PublishedNumber("m.tag", "M", "fine-tuned", None, 80.5, "Table 1")
    return Plan(
        suite=load_config().suite("embedded", {}),
        device="cuda",
        images=ImagesInfo("imagenet", 50_000, "abc"),
        rows=(
            PlannedRow(
                row_id(method="none", params="", seed=None, keep=1.0, regime="off-the-shelf"), keys={"macs": "k"}
            ),
            PlannedRow(row_id(), {"algorithm": "a,b", "weighted": True}, "fused", 5.7, True, keys={"macs": "l"}),
            PlannedRow(row_id(keep=None), failed="no", skipped="why"),
        ),
        methods={"mine": MethodInfo({"weighted": "false"}, "A Paper", own=True, claims=(claim,))},
        models={"m": "m.tag"},
    )


def test_what_is_written_is_read(plan: Plan, tmp_path: Path) -> None:
    (tmp_path / PLAN).write_text(json.dumps(plan_json(plan), allow_nan=False))
    assert read_plan(tmp_path) == plan


def test_a_row_is_compared_with_the_plain_model_of_its_batch_size_and_mode(plan: Plan) -> None:
    assert plan.plain_of(plan.rows[1]) is plan.rows[0]
    other = PlannedRow(row_id(batch_size=16))
    assert plan.plain_of(other) is None


def test_fine_tuned_rows_are_compared_with_the_plain_model_that_was_fine_tuned_the_same_way(plan: Plan) -> None:
    plain = {"method": "none", "params": "", "keep": None}
    before = PlannedRow(row_id(regime="off-the-shelf", seed=None))
    first, second = (PlannedRow(row_id(**plain, seed=seed), training="way") for seed in (3, 4))
    mine, other, unknown = (PlannedRow(row_id(seed=4), training=training) for training in ("way", "another", ""))
    rows = (*plan.rows, before, first, second, mine, other, unknown)
    plan = Plan(plan.suite, plan.device, plan.images, rows)
    assert plan.reference_of(mine) is second  # of the same seed
    assert plan.reference_of(PlannedRow(row_id(seed=5), training="way")) is first
    for row in (other, unknown, before, first):
        assert plan.reference_of(row) is plan.rows[0]
    assert plan.before_training(mine) is before
    assert plan.before_training(first) is plan.rows[0]
    assert plan.before_training(before) is None


def test_parameters_that_json_does_not_know_are_written_as_text(plan: Plan) -> None:
    rows = (PlannedRow(row_id(), {"path": Path("x"), "at": (3, 9)}),)
    written = plan_json(Plan(plan.suite, "cpu", None, rows))
    assert json.loads(json.dumps(written))["rows"][0]["parameters"] == {"path": "x", "at": [3, 9]}


def test_a_plan_of_format_2_is_read() -> None:
    content = json.loads((REFERENCE / PLAN).read_text())
    assert content["schema"] == 2
    plan = read_plan(REFERENCE)
    assert len(plan.rows) == len(content["rows"])
    for row, written in zip(plan.rows, content["rows"], strict=True):
        assert (row.id.method, row.id.keep, row.keys) == (written["method"], written["keep"], written["keys"])
        assert row.id.dtype == content["suite"]["dtype"]
    pooled = next(row for row in plan.rows if row.id.method == "token_pooling")
    assert pooled.parameters["algorithm"] in ("kmeans", "kmedoids")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"schema": 3}', '{"schema": 2, "rows": 5}'])
def test_a_damaged_plan_is_a_user_error(text: str, tmp_path: Path) -> None:
    (tmp_path / PLAN).write_text(text)
    with pytest.raises(UserError, match="damaged"):
        read_plan(tmp_path)
    refuse_newer(tmp_path)  # it does not keep anybody from measuring again


def test_a_newer_format_is_neither_read_nor_overwritten(tmp_path: Path) -> None:
    (tmp_path / PLAN).write_text(json.dumps({"schema": SCHEMA + 1}))
    for use in (read_plan, refuse_newer):
        with pytest.raises(UserError, match=f"format {SCHEMA + 1}"):
            use(tmp_path)


def test_a_folder_without_a_plan_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no results"):
        read_plan(tmp_path)
    shutil.copy(REFERENCE / PLAN, tmp_path)
    assert read_plan(tmp_path).rows
