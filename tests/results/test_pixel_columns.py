"""The table of a directory has the comparison with fewer pixels, from its own records."""

from pathlib import Path

import numpy as np
import pytest
from made_answers import outcomes, row, write

from tokbench.results import load
from tokbench.stats.differences import mean_interval


def test_the_table_compares_with_fewer_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    full, small, own = (rng.random(300) < skill for skill in (0.9, 0.6, 0.85))
    directory = write(
        tmp_path / "x",
        row("none", outcomes(full), 1.0),
        row("none", outcomes(small), 0.5, params="img_size=160"),
        row("a", outcomes(own), 0.8),
        row("a", outcomes(own), 0.4, keep=0.5),
    )
    table = load(directory).table
    interval = mean_interval(own - (0.4 * small + 0.6 * full))
    found = table[["over_pixels", "over_pixels_lo", "over_pixels_hi"]].iloc[2].tolist()
    assert found == pytest.approx([100 * value for value in (interval.estimate, interval.lo, interval.hi)])
    assert table["over_pixels"].isna().tolist() == [True, True, False, True]
    assert table["over_pixels_time"].isna().all()  # nothing was timed
