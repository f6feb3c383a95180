"""Rows of a GPU, as far as they can be had without one: what a row says of its times, and what a lost GPU leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import tokbench
from tokbench import Context, Downsampler, Tokens, register
from tokbench.comparison import plan_comparison
from tokbench.config import load_config
from tokbench.errors import UserError
from tokbench.names import TIMES
from tokbench.run import bench, inputs, machine
from tokbench.run.prepare import NO_GRAPH

Run = Callable[..., tuple[int, str, str]]


def timed(**changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"models": "digits_deit", "keep": 0.5, "baselines": "none", "only": "latency"}
    return {**settings, "batch_size": 1, "seconds": 0.01, "seeds": [0], "progress": False, **changes}


def with_changes(folder: Path, changes: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Change the latency records of a results directory."""
    file = folder / "records.jsonl"
    records = [json.loads(line) for line in file.read_text().splitlines()]
    for record in records:
        if record["kind"] == "latency":
            record["value"] |= changes(record["value"])
        record.pop("sum", None)  # a check of the value; a file without any is accepted
    file.write_text("".join(json.dumps(record) + "\n" for record in records))


def test_a_row_that_waits_for_the_host_is_marked(tmp_path: Path) -> None:
    tokbench.compare(methods="tome", out=tmp_path, **timed())

    def host_bound(record: dict[str, Any]) -> dict[str, Any]:
        median = float(np.median(record["other_s"]))
        return {"host_s": [1e-6, 0.95 * median]}

    with_changes(tmp_path, host_bound)
    table = tokbench.load(tmp_path).table
    assert table["remarks"].str.contains("host-bound").all()
    assert table["host_ms"].tolist() == pytest.approx((0.95 * table["latency_ms"]).tolist())
    with_changes(tmp_path, lambda record: {"host_s": [1e-6, 0.5 * float(np.median(record["other_s"]))]})
    assert not tokbench.load(tmp_path).table["remarks"].str.contains("host-bound").any()


def test_under_a_power_cap_a_row_says_how_fast_each_model_is_alone(tmp_path: Path) -> None:
    tokbench.compare(methods="tome", out=tmp_path, **timed())
    gpu = [{"sm_mhz": 1200, "throttled": ["power cap"]}]
    with_changes(tmp_path, lambda record: {"gpu": gpu, "alone_s": [0.004, 0.002]})
    for remarks in tokbench.load(tmp_path).table["remarks"]:
        assert "the GPU's clocks were reduced: power cap" in remarks
        assert f"each alone: plain 4.00 ms, this 2.00 ms, 2.00 {TIMES}" in remarks


def test_cold_times_are_other_measurements_than_warm_ones(tmp_path: Path) -> None:
    for cold in (False, True):
        table = tokbench.compare(methods="none", out=tmp_path / str(cold), **timed(cold=cold))
        assert table["remarks"].str.contains("caches were cleared").all() == cold
    found = [set(tokbench.load(tmp_path / str(cold)).plan.rows[0].keys.values()) for cold in (False, True)]
    assert not found[0] & found[1]


def test_throughput_does_not_depend_on_the_batch_size_of_a_row(tmp_path: Path) -> None:
    table = tokbench.compare(
        methods="tome", out=tmp_path, **timed(only="throughput", batch_size=[1, 2], throughput_batch=4)
    )
    assert table["throughput_batch"].tolist() == [4] * 4
    assert (table["throughput"] > 0).all()
    plain, tome = table[table["method"] == "none"], table[table["method"] == "tome"]
    assert plain["throughput"].nunique() == tome["throughput"].nunique() == 1
    assert (table["throughput_gain_lo"] <= table["throughput_gain"]).all()


def test_a_gpu_that_a_method_has_ruined_ends_the_process_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    @register("broken")
    class Broken(Downsampler):
        """Raises an error."""

        def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
            raise RuntimeError("device-side assert triggered")

    monkeypatch.setattr(bench, "is_lost", lambda device: True)
    with pytest.raises(UserError, match=r"broken.*left the GPU unusable.*run the same again in a new process"):
        tokbench.compare(methods="broken", out=tmp_path / "x", **timed())
    lines = [json.loads(line) for line in (tmp_path / "x/records.jsonl").read_text().splitlines()]
    failures = [line["value"] for line in lines if line["kind"] == "failed"]
    assert [failure["ended"] for failure in failures] == [True]
    assert "device-side assert triggered" in failures[0]["reason"]


def test_graphs_of_adaptive_methods_are_known_to_be_impossible(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "resolve_device", lambda name: torch.device("cuda"))
    monkeypatch.setattr(machine, "device_name", lambda device: "a GPU")
    monkeypatch.setattr(machine, "device_facts", lambda device: {})
    config = load_config()
    changes = {"models": ["digits_deit"], "methods": ["ats", "tome"], "keep": [0.5], "baselines": ["none"]}
    suite = config.suite("embedded", {**changes, "only": ["latency"], "mode": ["cudagraph"], "seeds": [0]})
    rows = {row.cell.variant.method: row for row in plan_comparison(suite, config).prepared.rows}
    assert rows["ats"].cell.variant.skipped == NO_GRAPH
    assert not rows["tome"].cell.variant.skipped
    assert rows["tome"].keys
