"""A comparison as one self-contained HTML page: it needs no network and no other file.

Texts go through a template that escapes them; figures are JSON, which plotly.js draws when they come into view;
pictures are data URIs. The page has no time stamp: the same directory always gives the same page.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from importlib.metadata import distribution, version
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from tokbench.report.charts import CONFIG
from tokbench.report.html.rerun import rerun_commands
from tokbench.report.html.sections import LabelledText, for_script, sections
from tokbench.report.labels import cell_text
from tokbench.report.terminal.progress import planned_measurements
from tokbench.results.store import ENVIRONMENT, Records
from tokbench.results.table import NOT_MEASURED, read_plan, read_table

TEMPLATE = "page.html.jinja"
DATATABLES = "itables/html/dt_bundle"  # itables brings DataTables along as one file of code and one of styles

FACTS = {"model": "models", "dtype": "precision", "batch_size": "batch", "mode": "mode"}


def render_page(directory: Path) -> str:
    """Render the page of a results directory.

    Args:
        directory: What `tokbench compare` wrote, finished or not.

    Raises:
        UserError: The directory has no plan, or is damaged.
    """
    table = read_table(directory)
    plan = read_plan(directory)
    environment_file = directory / ENVIRONMENT
    environment = json.loads(environment_file.read_text(encoding="utf-8")) if environment_file.is_file() else {}
    rerun = rerun_commands(plan, directory)
    template = Environment(
        loader=PackageLoader("tokbench.report.html", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(TEMPLATE)
    return template.render(
        title=cell_text(directory.resolve().name),
        description=cell_text(plan["suite"].get("description")),
        facts=list(_facts(table, plan, environment)),
        missing=list(_missing_measurements(table, plan, Records(directory))),
        command=rerun.compare,
        sections=sections(table, directory, environment, rerun),
        config=for_script(json.dumps(dict(CONFIG))),
        plotly=Markup(get_plotlyjs()),
        datatables=base64.b64encode(_datatables(".js").encode()).decode(),
        styles=Markup(_datatables(".css")),
        version=version("tokbench"),
    )


def _facts(table: pd.DataFrame, plan: Mapping[str, Any], environment: Mapping[str, Any]) -> Iterator[LabelledText]:
    """The main facts, for the top of the page."""
    yield LabelledText("measured", cell_text(environment.get("measured")).partition("T")[0] or "unknown")
    yield LabelledText(
        "device", f"{cell_text(environment.get('device_name')) or 'unknown'} ({cell_text(plan['device'])})"
    )
    for name, title in FACTS.items():
        yield LabelledText(title, ", ".join(dict.fromkeys(map(cell_text, table[name]))))
    images = plan["images"]
    yield LabelledText("images", f"{cell_text(images['name'])}, {images['count']:,}" if images else "none")
    states = table["status"].where(table["reason"].ne(NOT_MEASURED), NOT_MEASURED).value_counts(sort=False)
    counts = ", ".join(f"{count} {'measured' if state == 'ok' else state}" for state, count in states.items())
    yield LabelledText("rows", f"{len(table)}: {counts}")


def _missing_measurements(table: pd.DataFrame, plan: Mapping[str, Any], store: Records) -> Iterator[str]:
    """How many rows are not measured yet, in total and by kind of measurement; nothing if all are."""
    waiting = [row["keys"] for row, reason in zip(plan["rows"], table["reason"], strict=True) if reason == NOT_MEASURED]
    if not waiting:
        return
    yield f"{len(waiting)} of {len(table)} rows are not measured yet"
    measurements = planned_measurements(plan, store)
    kinds = Counter(kind for keys in waiting for kind, key in keys.items() if measurements[kind, key].missing)
    for kind, rows in kinds.items():
        yield f"{kind}: {rows}"


def _datatables(suffix: str) -> str:
    # Its place is asked of the installation: to import itables would read the user's settings for notebooks.
    return Path(str(distribution("itables").locate_file(f"{DATATABLES}{suffix}"))).read_text(encoding="utf-8")
