"""Records survive a writer that is killed or fails."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tokbench.errors import UserError
from tokbench.files import write_atomically
from tokbench.results.store import RECORDS, Records, Store


def test_what_was_added_is_there_when_the_directory_is_opened_again(tmp_path: Path) -> None:
    Store(tmp_path).add("macs", "a", {"total": 3})
    again = Store(tmp_path)
    assert again.get("macs", "a") == {"total": 3}
    assert again.get("latency", "a") is None
    assert again.get("macs", "b") is None


def test_fresh_moves_old_records_aside(tmp_path: Path) -> None:
    for total in (3, 4):
        Store(tmp_path, fresh=True).add("macs", "a", {"total": total})
        assert Store(tmp_path).get("macs", "a") == {"total": total}
    store = Store(tmp_path, fresh=True)
    assert store.get("macs", "a") is None
    assert store.moved_to == tmp_path / "records.2.jsonl"
    assert '"total": 3' in (tmp_path / "records.1.jsonl").read_text()
    assert '"total": 4' in (tmp_path / "records.2.jsonl").read_text()


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


def test_every_flipped_bit_of_a_line_is_found_or_changes_nothing(tmp_path: Path) -> None:
    value = {"outcomes": "0-?13", "total": 1234567, "speed": 0.1, "seconds": [1.5, 2e-5]}
    Store(tmp_path).add("accuracy", "a/0", value)
    Store(tmp_path).add("macs", "b", {"total": 3})
    file = tmp_path / RECORDS
    content = file.read_bytes()
    first = content.index(b"\n")
    for bit in range(8 * first):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        records = Records(tmp_path)
        assert records.get("accuracy", "a/0") in (None, value)
        assert set(records.all()) <= {("accuracy", "a/0"), ("macs", "b")}
        assert records.damaged or records.all() == {("accuracy", "a/0"): value, ("macs", "b"): {"total": 3}}


@pytest.mark.parametrize(
    "line",
    [b"no json", b"", b"[]", b"3", b"null", b"{}", b"\xff\xfe", b"[" * 100_000, b'{"kind": "macs"}', b"\0" * 4096],
)
def test_a_damaged_line_is_left_out_counted_and_removed_by_the_next_writer(tmp_path: Path, line: bytes) -> None:
    Store(tmp_path).add("macs", "a", {"total": 3})
    sound = (tmp_path / RECORDS).read_bytes()
    (tmp_path / RECORDS).write_bytes(line + b"\n" + sound)
    assert Records(tmp_path).damaged == 1
    store = Store(tmp_path)
    assert (store.damaged, store.all()) == (1, {("macs", "a"): {"total": 3}})
    assert (tmp_path / RECORDS).read_bytes() == sound
    assert Store(tmp_path).damaged == 0


def test_numbers_that_are_not_json_are_damage(tmp_path: Path) -> None:
    (tmp_path / RECORDS).write_text('{"kind": "macs", "key": "a", "value": {"total": NaN}}\n')
    assert Records(tmp_path).damaged == 1


def test_lines_without_checksums_of_older_versions_are_read_and_get_theirs(tmp_path: Path) -> None:
    line = {"kind": "macs", "key": "a", "value": {"total": 3}}
    (tmp_path / RECORDS).write_text(json.dumps(line) + "\n")
    assert Records(tmp_path).get("macs", "a") == {"total": 3}
    Store(tmp_path).add("macs", "b", {"total": 4})
    lines = [json.loads(text) for text in (tmp_path / RECORDS).read_text().splitlines()]
    assert [sorted(one) for one in lines] == [["key", "kind", "sum", "value"]] * 2
    # Among lines with checksums, one without is no longer from an older version.
    del lines[0]["sum"]
    (tmp_path / RECORDS).write_text("".join(json.dumps(one) + "\n" for one in lines))
    assert (Records(tmp_path).damaged, Records(tmp_path).get("macs", "a")) == (1, None)


def test_the_scratch_of_a_killed_process_is_removed_and_that_of_a_running_one_stays(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    (tmp_path / f".table.parquet.{ended.pid}").write_text("half")
    (tmp_path / f".plan.json.{os.getpid()}").write_text("half")
    (tmp_path / ".hidden").write_text("the user's")
    Store(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {RECORDS, f".plan.json.{os.getpid()}", ".hidden"}


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


@pytest.mark.parametrize("kind", ["fifo", "device", "link to a device"])
def test_what_is_no_regular_file_is_never_replaced(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "target"
    if kind == "fifo":
        os.mkfifo(target)
    elif kind == "device":
        try:
            os.mknod(target, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        except (PermissionError, AttributeError):
            pytest.skip("only root may make a device")
    else:
        target.symlink_to("/dev/null")
    before = target.lstat().st_mode
    with pytest.raises(UserError, match="no regular file"):
        write_atomically(target, lambda path: path.write_text("new"))
    assert target.lstat().st_mode == before
