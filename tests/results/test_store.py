"""Records survive a writer that is killed or fails."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tokbench.errors import UserError
from tokbench.files import write_atomically
from tokbench.results.store import RECORDS, Store


def test_what_was_added_is_there_when_the_directory_is_opened_again(tmp_path: Path) -> None:
    Store(tmp_path).add("macs", "a", {"total": 3})
    again = Store(tmp_path)
    assert again.get("macs", "a") == {"total": 3}
    assert again.get("latency", "a") is None
    assert again.get("macs", "b") is None


def test_fresh_discards_old_records(tmp_path: Path) -> None:
    Store(tmp_path).add("macs", "a", {"total": 3})
    assert Store(tmp_path, fresh=True).get("macs", "a") is None
    assert Store(tmp_path).get("macs", "a") is None


def test_half_a_line_is_dropped_and_the_next_record_is_whole(tmp_path: Path) -> None:
    Store(tmp_path).add("macs", "a", {"total": 3})
    with (tmp_path / RECORDS).open("ab") as file:
        file.write(b'{"kind": "macs", "key": "b", "val')
    store = Store(tmp_path)
    assert store.get("macs", "b") is None
    store.add("macs", "c", {"total": 4})
    again = Store(tmp_path)
    assert (again.get("macs", "a"), again.get("macs", "c")) == ({"total": 3}, {"total": 4})


def test_a_record_is_on_the_disk_when_add_returns_even_if_the_process_is_killed_then(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path; from tokbench.results.store import Store\n"
        "Store(Path(sys.argv[1])).add('macs', 'a', {'total': 3}); os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert Store(tmp_path).get("macs", "a") == {"total": 3}


def test_a_damaged_file_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / RECORDS).write_text("no json\n")
    with pytest.raises(UserError, match="--fresh"):
        Store(tmp_path)


def test_a_folder_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="--out"):
        Store(tmp_path / "file" / "results")


def test_a_failed_write_leaves_the_old_file_and_no_scratch(tmp_path: Path) -> None:
    target = tmp_path / "table.csv"
    target.write_text("old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_atomically(target, fail)
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
