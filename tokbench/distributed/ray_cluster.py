"""A connection to a Ray cluster: somebody's, or one of this machine's own."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from tokbench.errors import UserError

LOCAL = "local"
REACHED = 5  # seconds that a cluster has to answer

# Ray's settings, set where the user has not: it gives an address up soon, tells of workers that died neither on
# standard output, where JSON may be awaited, nor to anybody else, and lets workers that it starts be timed as a local
# run is, which gives way to nobody.
SETTINGS = {
    "RAY_NUM_REDIS_GET_RETRIES": "1",
    "RAY_py_gcs_connect_timeout_s": "5",
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".*",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}
INHERITED = ("OMP_", "GOMP_", "KMP_", "PYTHONWARNINGS")  # of the driver's environment, as local workers have it


def check_address(address: str) -> None:
    """Refuse soon what cannot be connected to: Ray itself tries for minutes.

    Args:
        address: As `connected` takes it.

    Raises:
        UserError: Ray is not installed, the address is none, or nobody listens there.
    """
    if find_spec("ray") is None:
        raise UserError("--ray needs Ray, which is not installed: pip install 'tokbench[ray]'")
    if address in (LOCAL, "auto"):
        return
    if address.startswith("ray://"):
        raise UserError(f"--ray {address}: run tokbench on a node of the cluster, with --ray auto")
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise UserError(f"--ray '{address}' is no address: give its head's HOST:PORT, auto or local")
    try:
        socket.create_connection((host, int(port)), timeout=REACHED).close()
    except (OSError, OverflowError) as error:
        raise _no_cluster(address, str(error)) from None


@contextmanager
def connected(address: str) -> Iterator[None]:
    """A connection to a cluster, whose tasks end with it.

    Args:
        address: `HOST:PORT` of its head, `auto` for the one that this machine belongs to, or `local` for one on this
            machine that lives as long as the connection.

    Raises:
        UserError: There is no cluster.
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
