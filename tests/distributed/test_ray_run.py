"""A comparison on a Ray cluster, and the parts that it is cut into."""

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench.comparison import plan_comparison
from tokbench.config import load_config
from tokbench.distributed import ray_cluster as cluster
from tokbench.distributed.parts import divide, share
from tokbench.distributed.ray_run import Order, measure_part
from tokbench.distributed.writer import RemoteRecords, Writer
from tokbench.errors import UserError
from tokbench.kinds import KINDS
from tokbench.results.store import FAILED, Records, Store
from tokbench.run.prepare import Prepared

Run = Callable[..., tuple[int, str, str]]

PLUGIN = """
import os
import signal
from pathlib import Path

import torch

from tokbench import Downsampler, register


@register("mortal")
class Mortal(Downsampler):
    '''Keep the first tokens; the first process that sees a whole batch dies of it.'''

    def forward(self, tokens, keep, context):
        mark = Path({mark!r})
        if len(tokens.x) > 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return tokens.select(torch.arange(keep).expand(len(tokens.x), -1))


@register("failing")
class Failing(Downsampler):
    '''Never works.'''

    def forward(self, tokens, keep, context):
        raise ValueError("I never work")
"""


def records(directory: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (directory / "records.jsonl").read_text().splitlines()]


def measured(directory: Path) -> dict[tuple[str, str], dict[str, str]]:
    """All records but failures, which are tried again."""
    return {place: record for place, record in Records(directory).all().items() if place[0] != FAILED}


def test_a_cluster_completes_what_a_local_run_left_though_a_worker_dies(run: Run, tmp_path: Path, address: str) -> None:
    mark = tmp_path / "died"
    (tmp_path / "own").mkdir()
    (tmp_path / "own/mortal.py").write_text(PLUGIN.format(mark=str(mark)))
    (tmp_path / "tokbench.toml").write_text("[defaults]\naccuracy_batch = 10\n")  # shards of 80 images
    base = ["compare", "--methods", "mortal,failing,random_selection", "--keep", "0.5", "--seeds", "0"]
    base += ["--only", "macs,accuracy", "--limit", "320", "--plugins", "own", "--out"]
    mark.touch()
    code, _, _ = run(*base, "x")
    assert code == 1  # one method fails
    tables = [pd.read_parquet(tmp_path / f"x/{name}.parquet") for name in ("table", "correctness")]
    whole = measured(tmp_path / "x")

    (tmp_path / "x/records.jsonl").write_text(
        "".join(json.dumps(record) + "\n" for record in records(tmp_path / "x")[2::3])
    )
    mark.unlink()
    code, out, err = run(*base, "x", "--ray", address)
    assert (code, err) == (1, "")
    assert mark.exists()
    assert "ValueError: I never work" in out
    assert "raylet" not in out
    for name, table in zip(("table", "correctness"), tables, strict=True):
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / f"x/{name}.parquet"), table)
    assert measured(tmp_path / "x") == whole
    written = Counter((record["kind"], record["key"]) for record in records(tmp_path / "x"))
    assert {kind for (kind, _), times in written.items() if times > 1} <= {FAILED}


def test_a_part_that_waits_for_its_records_keeps_its_cores(address: str) -> None:
    ray = pytest.importorskip("ray")

    class Slow:
        """A writer that says how many cores are free while a worker waits for it."""

        def known(self, places: object) -> dict[tuple[str, str], dict[str, float]]:
            time.sleep(1)  # until the cluster has updated its resources
            return {("free", "cores"): {"found": ray.available_resources().get("CPU", 0)}}

    def wait(writer: object) -> dict[tuple[str, str], dict[str, float] | None]:
        return {place: RemoteRecords(writer, ()).get(*place) for place in (("free", "cores"),)}

    with cluster.connected(address):
        writer = ray.remote(Slow).options(num_cpus=0).remote()
        found = ray.get(ray.remote(wait).options(num_cpus=2).remote(writer))
    assert found == {("free", "cores"): {"found": 0}}


def test_a_cluster_that_is_too_small_is_a_user_error(run: Run, address: str) -> None:
    code, out, err = run("compare", "--limit", "10", "--threads", "99", "--ray", address)
    assert (code, out) == (2, "")
    assert err == "tokbench: the cluster has no node with 99 CPUs: use fewer --threads, or start Ray on such nodes\n"


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("127.0.0.1:1", "no Ray cluster at '127.0.0.1:1'"),
        ("nowhere", "invalid --ray 'nowhere': expected HOST:PORT"),
        ("127.0.0.1:66000", "no Ray cluster at"),
        ("ray://head:10001", "run tokbench on a node of the cluster"),
    ],
)
def test_a_wrong_address_is_a_user_error(run: Run, address: str, told: str) -> None:
    code, out, err = run("compare", "--ray", address)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert told in err


def test_without_ray_the_message_says_what_to_install(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", {"ray": None}.get)
    code, _, err = run("compare", "--ray", "local")
    assert (code, err) == (2, "tokbench: --ray needs Ray, which is not installed: pip install 'tokbench[ray]'\n")


def test_a_part_and_ray_exclude_each_other(run: Run) -> None:
    code, _, err = run("compare", "--ray", "auto", "--part", "1/2")
    assert code == 2
    assert "give --part or --ray, not both" in err


def test_a_worker_that_differs_from_the_driver_measures_nothing(prepared: Prepared) -> None:
    row = prepared.rows[0]
    unlike = replace(share(prepared, "1/1"), rows=(replace(row, keys={"macs": "another"}),))
    order = Order(prepared.suite, 1, ())
    with pytest.raises(UserError, match=r"differs from the machine .*: device is .*, not an abacus; use like machines"):
        measure_part(unlike, order, {"device": "an abacus"}, writer=None)


def test_an_existing_record_is_not_written_again(tmp_path: Path) -> None:
    writer = Writer(tmp_path, ("failed",))
    for _ in range(2):
        writer.add(("macs", "a"), {"total": 1})
        writer.add(("failed", "macs/b"), {"reason": "none"})
    assert writer.duplicates() == 1
    assert [record["kind"] for record in records(tmp_path)] == ["macs", "failed", "failed"]
    assert writer.known([("macs", "a"), ("macs", "c")]) == {
        ("macs", "a"): {"total": 1},
        ("failed", "macs/b"): {"reason": "none"},
    }


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    """Three rows, two of them timed at two batch sizes, and ten shards of images."""
    config = load_config()
    chosen = {"methods": ["grid_pooling"], "keep": [0.5], "batch_size": [1, 2], "accuracy_batch": 10, "limit": 795}
    chosen |= {"models": ["digits_deit"], "baselines": ["none"]}
    suite = config.suite("embedded", {**chosen, "analyse": True, "device": "cpu"})
    return plan_comparison(suite, config).prepared


@settings(deadline=None, max_examples=50)
@given(data=st.data(), pieces=st.integers(1, 12))
def test_parts_hold_everything_missing_exactly_once(
    prepared: Prepared, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, pieces: int
) -> None:
    everything = share(prepared, "1/1").places()
    done = data.draw(st.sets(st.sampled_from(everything)))
    store = Store(tmp_path_factory.mktemp("some"))
    store.add_all({place: {} for place in done})
    parts = divide(prepared, store, pieces)
    held = [place for part in parts for place in part.places()]
    assert len(held) == len(set(held))
    assert set(everything) - done <= set(held)
    for part in parts:
        assert set(part.places()) - done
        assert all(one.stop == other.start for one, other in zip(part.shards, part.shards[1:], strict=False))
        if "latency" in part.kinds:
            assert all(KINDS[kind].exclusive for kind in part.kinds)
            assert len({(row.cell.model, row.cell.batch_size, row.cell.mode) for row in part.rows}) == 1
        # Images that no row needs any more are not decoded for a part.
        for shard in part.shards:
            assert set(replace(part, shards=(shard,)).places()) - done
    sharded = [part for part in parts if part.shards]
    assert all(set(part.kinds) <= {"accuracy", "agreement"} for part in sharded)
    assert sum(len(part.shards) for part in sharded) <= 10
    if not done:
        assert len(sharded) == -(-10 // -(-10 // pieces))


def test_what_is_measured_is_in_no_part(prepared: Prepared, tmp_path: Path) -> None:
    store = Store(tmp_path)
    everything = share(prepared, "1/1").places()
    last = next(place for place in reversed(everything) if place[0] == "accuracy")
    store.add_all({place: {} for place in everything if place != last})
    [left] = divide(prepared, store, 4)
    assert last in left.places()
    assert left.shards == (range(720, 795),)
    store.add(*last, {})
    assert divide(prepared, store, 4) == []


@pytest.mark.parametrize("count", [1, 2, 3, 10, 12])
def test_shares_hold_everything_exactly_once(prepared: Prepared, count: int) -> None:
    shares = [share(prepared, f"{number}/{count}") for number in range(1, count + 1)]
    held = [place for one in shares for place in one.places()]
    assert len(held) == len(set(held))
    assert set(held) == set(share(prepared, "1/1").places())
    assert max(len(one.shards) for one in shares) - min(len(one.shards) for one in shares) <= 1
    assert {kind for one in shares[1:] for kind in one.kinds} <= {"accuracy", "agreement"}


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "/2", "a/b", "-1/2", "1/2/3", ""])
def test_a_wrong_share_is_refused(prepared: Prepared, text: str) -> None:
    with pytest.raises(UserError, match=r"invalid --part .* expected i/n"):
        share(prepared, text)
