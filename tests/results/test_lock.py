"""One process at a time writes to a results directory."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tokbench.errors import UserError
from tokbench.results import lock
from tokbench.results.lock import locked

HOLD = (
    "import sys, time; from pathlib import Path; from tokbench.results.lock import locked\n"
    "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
)


def test_a_second_process_is_refused_by_name_and_a_killed_one_leaves_no_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "WAIT", 0.2)
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(UserError, match=rf"another tokbench writes to .*process {holder.pid} on "),
            locked(tmp_path),
        ):
            pass
        holder.send_signal(signal.SIGKILL)
    with locked(tmp_path):
        assert str(os.getpid()) in (tmp_path / lock.LOCK).read_text()


def test_a_process_started_by_the_holder_does_not_keep_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = HOLD.replace("print(", "import os; os.fork() or time.sleep(15); print(")
    with subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        holder.kill()
        with locked(tmp_path):
            pass


def test_a_folder_that_cannot_be_made_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out"), locked(tmp_path / "file" / "results"):
        pass
