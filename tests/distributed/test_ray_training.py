"""Training on a Ray cluster gives what training here gives."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tokbench.distributed import ray_cluster as cluster

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of one node with two cores."""
    # A short path, because the names of unix sockets must be short.
    short = tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True)
    with short as folder, pytest.MonkeyPatch.context() as patch:
        for name, value in {**cluster.SETTINGS, "RAY_TMPDIR": folder}.items():
            patch.setenv(name, value)  # Ray reads some when it is imported
        ray = pytest.importorskip("ray", reason="Ray is not installed")
        cluster_utils = pytest.importorskip("ray.cluster_utils")
        small = {"num_cpus": 2, "object_store_memory": 100 * 2**20, "include_dashboard": False}
        made = cluster_utils.Cluster(initialize_head=True, head_node_args=small)
        yield made.address
        ray.shutdown()
        made.shutdown()


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
