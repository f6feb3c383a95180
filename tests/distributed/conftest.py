"""A Ray cluster for the tests of each file."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

import pytest

from tokbench.distributed import ray_cluster as cluster


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
