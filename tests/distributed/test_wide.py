"""A comparison on a Ray cluster, and the parts that it is cut into."""

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokbench.compare.plan import plan
from tokbench.compare.prepare import Prepared, prepare
from tokbench.compare.records import FAILED
from tokbench.config import load_config
from tokbench.distributed import ray_cluster as cluster
from tokbench.distributed.parts import RUNNING, divide, share
from tokbench.distributed.ray_run import Order, measure_part
from tokbench.distributed.writer import Keeper, Kept
from tokbench.errors import UserError
from tokbench.registry import discover
from tokbench.results.store import Records, Store

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


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of one node with two cores."""
    # A path that is short: the names of unix sockets are.
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


def records(directory: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in (directory / "records.jsonl").read_text().splitlines()]


def measured(directory: Path) -> dict[tuple[str, str], dict[str, str]]:
    """All but failures: of those a part has its own, and they are tried again."""
    return {place: record for place, record in Records(directory).all().items() if place[0] != FAILED}


def test_a_cluster_completes_what_a_local_run_left_though_a_worker_dies(run: Run, tmp_path: Path, address: str) -> None:
    mark = tmp_path / "died"
    (tmp_path / "own").mkdir()
    (tmp_path / "own/mortal.py").write_text(PLUGIN.format(mark=str(mark)))
    (tmp_path / "tokbench.toml").write_text("[defaults]\naccuracy_batch = 10\n")  # stretches of 80 images
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


def test_a_part_that_waits_for_its_records_lends_its_cores_to_nobody(address: str) -> None:
    ray = pytest.importorskip("ray")

    class Slow:
        """A keeper that tells how many cores are free while somebody waits for it."""

        def known(self, places: object) -> dict[tuple[str, str], dict[str, float]]:
            time.sleep(1)  # until the cluster has heard of it
            return {("free", "cores"): {"found": ray.available_resources().get("CPU", 0)}}

    def wait(keeper: object) -> dict[tuple[str, str], dict[str, float]]:
        return Kept(keeper, ()).all()

    with cluster.connected(address):
        keeper = ray.remote(Slow).options(num_cpus=0).remote()
        found = ray.get(ray.remote(wait).options(num_cpus=2).remote(keeper))
    assert found == {("free", "cores"): {"found": 0}}


def test_a_cluster_too_small_is_told_in_a_line(run: Run, address: str) -> None:
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
def test_a_wrong_address_is_told_in_a_line(run: Run, address: str, told: str) -> None:
    code, out, err = run("compare", "--ray", address)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert told in err


def test_without_ray_the_mend_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "find_spec", {"ray": None}.get)
    code, _, err = run("compare", "--ray", "local")
    assert (code, err) == (2, "tokbench: --ray needs Ray, which is not installed: pip install 'tokbench[ray]'\n")


def test_a_part_and_ray_exclude_each_other(run: Run) -> None:
    code, _, err = run("compare", "--ray", "auto", "--part", "1/2")
    assert code == 2
    assert "leave it or --ray out" in err


def test_a_worker_that_is_unlike_the_driver_measures_nothing(prepared: Prepared) -> None:
    row = prepared.rows[0]
    unlike = replace(share(prepared, "1/1"), rows=(replace(row, keys={"macs": "another"}),))
    order = Order(prepared.suite, 1, ())
    with pytest.raises(UserError, match=r"unlike|is not like .*: device is .*, not an abacus; use machines alike"):
        measure_part(unlike, order, {"device": "an abacus"}, keeper=None)


def test_what_is_durable_is_not_written_again(tmp_path: Path) -> None:
    keeper = Keeper(tmp_path, ("failed",))
    for _ in range(2):
        keeper.add(("macs", "a"), {"total": 1})
        keeper.add(("failed", "macs/b"), {"reason": "none"})
    assert keeper.in_vain() == 1
    assert [record["kind"] for record in records(tmp_path)] == ["macs", "failed", "failed"]
    assert keeper.known([("macs", "a"), ("macs", "c")]) == {
        ("macs", "a"): {"total": 1},
        ("failed", "macs/b"): {"reason": "none"},
    }


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    """Three rows, two of them timed at two batch sizes, and ten stretches of images."""
    config = load_config()
    chosen = {"methods": ["grid_pooling"], "keep": [0.5], "batch_size": [1, 2], "accuracy_batch": 10, "limit": 795}
    suite = config.suite("embedded", {**chosen, "analyse": True, "device": "cpu"})
    return prepare(plan(suite, config, list(discover()[0])), suite)


@settings(deadline=None, max_examples=50)
@given(data=st.data(), pieces=st.integers(1, 12))
def test_parts_hold_everything_that_is_left_once(
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
        assert all(one.stop == other.start for one, other in zip(part.spans, part.spans[1:], strict=False))
        if "latency" in part.kinds:
            assert set(part.kinds) <= set(RUNNING)
            assert len({(row.cell.model, row.cell.batch_size, row.cell.mode) for row in part.rows}) == 1
        # Images that nobody needs any more are not decoded for a part.
        for span in part.spans:
            assert set(replace(part, spans=(span,)).places()) - done
    stretches = [part for part in parts if part.kinds == ("accuracy",)]
    assert sum(len(part.spans) for part in stretches) <= 10
    if not done:
        assert len(stretches) == -(-10 // -(-10 // pieces))


def test_of_what_is_done_there_is_no_part(prepared: Prepared, tmp_path: Path) -> None:
    store = Store(tmp_path)
    everything = share(prepared, "1/1").places()
    last = next(place for place in reversed(everything) if place[0] == "accuracy")
    store.add_all({place: {} for place in everything if place != last})
    [left] = divide(prepared, store, 4)
    assert last in left.places()
    assert left.spans == (range(720, 795),)
    store.add(*last, {})
    assert divide(prepared, store, 4) == []


@pytest.mark.parametrize("count", [1, 2, 3, 10, 12])
def test_shares_hold_everything_once(prepared: Prepared, count: int) -> None:
    shares = [share(prepared, f"{number}/{count}") for number in range(1, count + 1)]
    held = [place for one in shares for place in one.places()]
    assert len(held) == len(set(held))
    assert set(held) == set(share(prepared, "1/1").places())
    assert max(len(one.spans) for one in shares) - min(len(one.spans) for one in shares) <= 1
    assert {kind for one in shares[1:] for kind in one.kinds} <= {"accuracy"}


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "/2", "a/b", "-1/2", "1/2/3", ""])
def test_a_wrong_share_is_refused(prepared: Prepared, text: str) -> None:
    with pytest.raises(UserError, match="is none: --part 2/4"):
        share(prepared, text)
