"""Training on a Ray cluster gives what training here gives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file

Run = Callable[..., tuple[int, str, str]]


def test_a_cluster_trains_what_is_left_and_the_weights_are_the_same(run: Run, tmp_path: Path, address: str) -> None:
    command = (
        *("finetune", "--models", "digits_deit_16", "--keep", "0.5", "--epochs", "1", "--batch", "128"),
        *("--limit", "100", "--device", "cpu", "--threads", "1"),
    )
    assert run(*command, "--methods", "evit", "--out", "here")[0] == 0
    assert run(*command, "--methods", "none", "--out", "there")[0] == 0
    code, out, err = run(*command, "--methods", "evit", "--out", "there", "--ray", address)
    assert code == 0, err
    assert "1 of them done before" in err
    assert "evit" in out
    here, there = (sorted((tmp_path / name / "checkpoints").glob("*.safetensors")) for name in ("here", "there"))
    assert [file.name for file in here] == [file.name for file in there]
    for file, other in zip(here, there, strict=True):
        expected, found = load_file(file), load_file(other)
        assert {name for name in expected if not expected[name].equal(found[name])} == set()
