"""Does tokbench report differences where there are none, while another process causes load?

    GOMP_SPINCOUNT=30000 python benchmarks/false_alarms.py

While another process loads a core half of the time, 200 comparisons of identical sides are made:

- 100 rows: the plain model against itself, ten rows per session, with the session's noise floor, as in
  `tokbench compare`;
- 60 versions: a method against itself in one session, as in `tokbench check --against`;
- 40 results: `tokbench compare` of ten methods at two keeps, three times, each in its own process, and
  `tokbench check` of each against the one before.

At most 1 % may end with FASTER, SLOWER or exit code 1.

Writes results/trust/false_alarms.txt.
"""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

from output import TRUST, write_output
from rich.progress import track
from timing import BATCH, built, busy_process, digits_with

from tokbench import create
from tokbench.check.against import compare_versions
from tokbench.measure.latency import measure_floor, measure_latency, noise_floor
from tokbench.measure.sample_images import sample_images
from tokbench.names import EMBEDDED_MODELS
from tokbench.registry import method_class
from tokbench.stats.times import Verdict, compare_times
from tokbench.vit.models import load_model

ROWS, VERSIONS, RESULTS = 100, 60, 40
ALLOWED = 0.01
SESSION = 10  # rows
SECONDS = 0.5  # per comparison: short, because short comparisons are the most affected by chance
PRECISION = 0.01

METHODS = (
    *("score_pruning", "score_pruning(score=cls)", "importance_sampling", "random_selection", "grid_pooling"),
    *("tome", "evit", "dpc_knn", "gtp", "frequency"),
)
KEEPS = ("0.7", "0.5")
ALARMS = (Verdict.FASTER, Verdict.SLOWER)


def rows() -> Counter[str]:
    """Verdicts of the plain model against itself."""
    pretrained = load_model(EMBEDDED_MODELS[0])
    batch = [sample_images(pretrained.vit, None, BATCH)]
    verdicts: Counter[str] = Counter()
    for _ in track(range(ROWS // SESSION), "rows", transient=True):
        blocks = measure_floor(lambda: copy.deepcopy(pretrained.vit), batch, SECONDS, PRECISION)
        floor = noise_floor(blocks)
        for _ in range(SESSION):
            timed = measure_latency(pretrained.vit, pretrained.vit, batch, SECONDS, PRECISION)
            verdicts[compare_times(timed.base_s, timed.other_s, floor).verdict] += 1
    return verdicts


def versions() -> Counter[str]:
    """Verdicts of a method against another instance of itself."""
    verdicts: Counter[str] = Counter()
    method_class("score_pruning")
    for _ in track(range(VERSIONS), "versions", transient=True):
        (old, images), (new, _) = (digits_with(create("score_pruning")) for _ in range(2))
        timed = compare_versions(built(old), built(new), [images], SECONDS, PRECISION)
        verdicts[timed.change.verdict] += 1
    return verdicts


def results() -> tuple[Counter[str], Counter[int]]:
    """The outcomes of the rows of each result against the one before, and the exit codes."""
    outcomes: Counter[str] = Counter()
    codes: Counter[int] = Counter()
    with tempfile.TemporaryDirectory() as folder:
        directories = [Path(folder) / str(number) for number in range(RESULTS // (len(METHODS) * len(KEEPS)) + 1)]
        for out in track(directories, "results", transient=True):
            cells = ("--methods", ",".join(METHODS), "--keep", ",".join(KEEPS), "--seeds", "0")
            timed = ("--only", "latency", "--batch-size", str(BATCH), "--seconds", str(SECONDS))
            _tokbench("compare", *cells, *timed, "--out", str(out))
        for old, new in pairwise(directories):
            checked = _tokbench("check", str(new), "--baseline", str(old), "--json")
            codes[checked.returncode] += 1
            outcomes += Counter(finding["outcome"] for finding in json.loads(checked.stdout)["findings"])
    return outcomes, codes


def _tokbench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tokbench", *arguments], capture_output=True, text=True, check=False)


def _listed(counts: Counter[str] | Counter[int]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in sorted(counts.items())) or "nothing"


def main() -> None:
    """Run all three and exit with 1 unless the target is met."""
    with busy_process():
        of_rows, of_versions, (of_results, codes) = rows(), versions(), results()
    alarms = {
        "rows": sum(of_rows[alarm] for alarm in ALARMS),
        "versions": sum(of_versions[alarm] for alarm in ALARMS),
        "results": of_results["regressed"] + of_results["improved"],
    }
    most = ALLOWED * (ROWS + VERSIONS + RESULTS)
    lines = [
        f"On the digits, batch {BATCH}, {SECONDS:g} s per comparison, while a core is loaded half of the time:",
        f"{ROWS} rows: {_listed(of_rows)}",
        f"{VERSIONS} versions: {_listed(of_versions)}",
        f"{RESULTS} results, of two sessions each: {_listed(of_results)}; "
        f"exit codes of {sum(codes.values())} checks: {_listed(codes)}",
        "",
        f"False alarms: {', '.join(f'{kind} {count}' for kind, count in alarms.items())}; "
        f"target: at most {most:.0f} in total, and exit code 1 at most {most:.0f} times.",
    ]
    write_output(TRUST / "false_alarms.txt", lines)
    sys.exit(max(sum(alarms.values()), codes[1]) > most)


if __name__ == "__main__":
    main()
