"""The program that imports torch once and runs each command that it is asked for in a fork; see `warm_process`."""

from __future__ import annotations

import atexit
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import resource
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

GRACE = 3.0  # seconds for the processes that a command has started to end after it
ADDRESSES = 6 << 30  # bytes of address space for a command: what takes all memory takes no more

PR_SET_CHILD_SUBREAPER = 36  # of prctl(2)
LOOK = 0.004  # seconds between two looks at a process

TABLE = "table"  # instead of a command: prints the table of a directory as Python code reads it


def serve() -> None:
    """Carry out requests until there are no more."""
    _import_everything()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)  # what a command leaves becomes a child of this process
    answers = os.dup(1)
    os.write(answers, b"{}\n")
    while line := sys.stdin.readline():
        request = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.close(answers)
            _become(request)
            _end(_outcome(request["argv"]))
        answer = _watch(pid, request)
        os.write(answers, json.dumps(answer).encode() + b"\n")


def _import_everything() -> None:
    import torch

    import tokbench

    torch.set_num_threads(1)
    for module in pkgutil.walk_packages(tokbench.__path__, "tokbench."):
        if not {"__main__", "train", "pytest_plugin"} & set(module.name.split(".")):
            importlib.import_module(module.name)
    for name in ("matplotlib.pyplot", "matplotlib.backends.backend_pdf", "pandas", "pyarrow.parquet", "scipy.stats"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def _become(request: dict[str, Any]) -> None:
    """Make this process look like one that was started for the command."""
    os.setsid()
    folder = Path(request["folder"])
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    for number, name in ((1, ".out"), (2, ".err")):
        opened = os.open(folder / name, flags, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESSES, ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.argv = ["tokbench", *request["argv"]]


def _outcome(argv: list[str]) -> int:
    """Run the command; its exit code."""
    try:
        if argv[0] == TABLE:
            return _print_table(Path(argv[1]))
        from tokbench.cli import main

        main()
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _print_table(directory: Path) -> int:
    from tokbench.errors import UserError
    from tokbench.results import load

    try:
        print(load(directory).table.to_json(orient="records"))
    except UserError as error:
        print(f"tokbench: {error}", file=sys.stderr)
        return 2
    return 0


def _end(code: int) -> None:
    """End as Python does, but for the half second in which it takes its modules apart."""
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not stream.closed:
            stream.flush()
    os._exit(code)


def _watch(pid: int, request: dict[str, Any]) -> dict[str, Any]:
    """Wait for a command, kill it where that is wanted or needed, and everything that it has left."""
    start = time.monotonic()
    status: int | None = None
    killed = False
    while status is None and time.monotonic() - start < request["limit"]:
        if not killed and request["kill_after"] is not None and time.monotonic() - start >= request["kill_after"]:
            below = _descendants(pid) if request["kill_children"] else []
            for one in (pid, *below):
                _kill(one)
            killed = True
        status = _reap(pid)
        if status is None:
            time.sleep(LOOK)
    ended_at = time.monotonic()
    if status is None:
        code = None
    else:
        code = os.waitstatus_to_exitcode(status)
        while _descendants(os.getpid()) and time.monotonic() - ended_at < GRACE:
            _reap(pid)
            time.sleep(LOOK)
    left = _descendants(os.getpid())
    while below := _descendants(os.getpid()):
        for one in below:
            _kill(one)
        _reap(pid)
        time.sleep(LOOK)
    return {"code": code, "left": len(left)}


def _reap(pid: int) -> int | None:
    """Collect every child that has ended; the status of this one, if it is among them."""
    found = None
    try:
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == 0:
                return found
            if ended == pid:
                found = status
    except ChildProcessError:
        return found


def _descendants(pid: int) -> list[int]:
    """The processes below a process, nearest first."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            below = [int(child) for child in task.read_text("ascii").split()]
        except OSError:  # it has just ended
            continue
        found += below
        for child in below:
            found += _descendants(child)
    return found


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:  # it has just ended
        return


if __name__ == "__main__":
    serve()
    os._exit(0)  # taking the modules apart takes half a second, and libraries complain about frozen objects
