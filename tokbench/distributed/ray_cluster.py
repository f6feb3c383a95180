"""Connecting to a Ray cluster, either an existing one or a temporary one on this machine."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from tokbench.errors import UserError

LOCAL = "local"
TIMEOUT = 5  # seconds to wait for an answer from a cluster

# Ray's settings, unless the user has set them: give up an unreachable address soon, do not print about dead workers
# (standard output may be JSON), send no usage statistics, and do not lower the priority of workers, so that they are
# timed like a local run.
SETTINGS = {
    "RAY_NUM_REDIS_GET_RETRIES": "1",
    "RAY_py_gcs_connect_timeout_s": "5",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}
INHERITED = ("OMP_", "GOMP_", "KMP_", "PYTHONWARNINGS")  # environment variables that workers get from the driver


def check_address(address: str) -> None:
    """Check that a cluster can be reached, because Ray itself would try for minutes.

    Args:
        address: As for `connected`.

    Raises:
        UserError: Ray is not installed, the address is invalid, or nothing listens there.
    """
    if find_spec("ray") is None:
        raise UserError("--ray needs Ray, which is not installed: pip install 'tokbench[ray]'")
    if address in (LOCAL, "auto"):
        return
    if address.startswith("ray://"):
        raise UserError(f"--ray {address} is not supported: run tokbench on a node of the cluster, with --ray auto")
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise UserError(f"invalid --ray '{address}': expected HOST:PORT of the head node, auto or local")
    try:
        socket.create_connection((host, int(port)), timeout=TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from None


@contextmanager
def connected(address: str) -> Iterator[None]:
    """Connect to a cluster; the tasks started in it end with the connection.

    Args:
        address: `HOST:PORT` of the head node, `auto` for the cluster that this machine belongs to, or `local` for a
            temporary cluster on this machine.

    Raises:
        UserError: The cluster cannot be reached.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray

    inherited = {name: value for name, value in os.environ.items() if name.startswith(INHERITED)}
    try:
        ray.init(
            address,
            include_dashboard=False if address == LOCAL else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": inherited},
        )
    except ConnectionError as error:
        raise _no_cluster(address, str(error)) from None
    try:
        yield
    finally:
        ray.shutdown()


def _no_cluster(address: str, reason: str) -> UserError:
    return UserError(f"no Ray cluster at '{address}' ({reason}): start one with ray start --head, or use --ray local")
