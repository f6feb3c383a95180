"""Two processes that train one model together, and a batch that is computed in parts, give what one process gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

PROGRAM = Path(__file__).with_name("training_together.py")
TOGETHER = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def trained(folder: Path, *before: str, accumulate: int = 1, processes: int = 1) -> list[dict[str, Any]]:
    """What each process ended with."""
    folder.mkdir()
    command = [sys.executable, *before, str(PROGRAM), str(folder), str(accumulate)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return [torch.load(folder / f"result{number}.pt", weights_only=True) for number in range(processes)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return trained(tmp_path_factory.mktemp("together") / "alone")[0]


def check_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one["steps"] == other["steps"] == 24
    assert one["losses"][0] != one["losses"][-1]
    torch.testing.assert_close(torch.tensor(other["losses"]), torch.tensor(one["losses"]), rtol=0, atol=1e-5)
    for name, value in one["weights"].items():
        expected, found = (without_key_bias(name, weight) for weight in (value, other["weights"][name]))
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-5, msg=lambda text, of=name: f"{of}: {text}")


def without_key_bias(name: str, weight: torch.Tensor) -> torch.Tensor:
    """A bias of keys changes no attention, so its gradient is nothing but rounding, which AdamW scales up."""
    if not name.endswith("attn.qkv.bias"):
        return weight
    query, _, value = weight.chunk(3)
    return torch.cat([query, value])


def test_two_processes_train_as_one_does(alone: dict[str, Any], tmp_path: Path) -> None:
    first, second = trained(tmp_path / "two", *TOGETHER, processes=2)
    assert first["count"] == second["count"] == 2
    check_same(alone, {**first})
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name]), name
    assert second["losses"] == []  # only the first process tells of its steps
    assert not (tmp_path / "two" / "result2.pt").exists()


def test_parts_of_a_batch_add_up_to_the_batch(alone: dict[str, Any], tmp_path: Path) -> None:
    check_same(alone, trained(tmp_path / "parts", accumulate=2)[0])
