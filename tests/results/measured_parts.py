"""Parts of a comparison, measured into directories."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokbench.comparison import plan_comparison
from tokbench.config import load_config
from tokbench.distributed.parts import share
from tokbench.results.directory import Results, write_tables
from tokbench.results.store import Records, Store
from tokbench.run.measure import measure
from tokbench.run.observer import Silent
from tokbench.run.plan import write_plan

CHOSEN = {
    "models": ["digits_deit"],
    "baselines": ["none"],
    "methods": ["grid_pooling", "random_selection"],
    "keep": [0.7, 0.5],
    "seeds": [0, 1],
    "limit": 150,
    "accuracy_batch": 10,  # two shards, of 80 images and of 70
    "only": ["macs", "accuracy"],
    "device": "cpu",
}


def make(directory: Path, part: str = "1/1", known: Path | None = None, **changes: Any) -> Path:
    """Measure a part of the comparison into a directory, except for memory and for what another directory has."""
    config = load_config()
    prepared = plan_comparison(config.suite("embedded", {**CHOSEN, **changes}), config).prepared
    store = Store(directory)
    write_plan(prepared, directory)
    own = share(prepared, part)
    for row in own.rows:
        row.keys.pop("memory", None)  # it would be measured in separate processes, which take seconds to start
    if known is not None:
        records = Records(known).all()
        store.add_all({place: records[place] for place in own.places()})
    measure(own.of(prepared), store, Silent(), own.shards)
    write_tables(Results(directory, store))
    return directory


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
