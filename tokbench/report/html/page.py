"""A comparison as one self-contained HTML page: it needs no network and no other file.

Texts go through a template that escapes them; figures are JSON, which plotly.js draws when they come into view;
pictures are data URIs. The page has no time stamp: the same directory always gives the same page.
"""

from __future__ import annotations

import importlib.resources
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from tokbench.report.charts.style import CONFIG
from tokbench.report.html.rerun import rerun_commands
from tokbench.report.html.section import LabelledText
from tokbench.report.html.sections import for_script, sections
from tokbench.report.labels import cell_text
from tokbench.results import Results
from tokbench.results.table import NOT_MEASURED

TEMPLATE = "page.html.jinja"

FACTS = {"model": "models", "dtype": "precision", "batch_size": "batch", "mode": "mode"}


def render_page(results: Results, versus: Sequence[str] = ()) -> str:
    """Render the page of a results directory, finished or not.

    Args:
        results: The results directory.
        versus: Methods that all others are compared with.

    Raises:
        UserError: One of these is not in the directory, or accuracy was not measured.
    """
    rerun = rerun_commands(results.plan, results.directory, versus)
    template = Environment(
        loader=PackageLoader("tokbench.report.html", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(TEMPLATE)
    return template.render(
        title=cell_text(results.directory.resolve().name),
        description=cell_text(results.plan.suite.description),
        facts=list(_facts(results)),
        missing=list(_missing_measurements(results)),
        command=rerun.compare,
        sections=sections(results, rerun, versus),
        config=for_script(json.dumps(dict(CONFIG))),
        plotly=Markup(get_plotlyjs()),
        datatables=Markup(_vendored("datatables.js")),
        styles=Markup(_vendored("datatables.css")),
        version=version("tokbench"),
    )


def _facts(results: Results) -> Iterator[LabelledText]:
    """The main facts, for the top of the page."""
    table, plan, environment = results.table, results.plan, results.environment
    yield LabelledText("measured", cell_text(environment.get("measured")).partition("T")[0] or "unknown")
    yield LabelledText("device", f"{cell_text(environment.get('device_name')) or 'unknown'} ({cell_text(plan.device)})")
    for name, title in FACTS.items():
        yield LabelledText(title, ", ".join(dict.fromkeys(map(cell_text, table[name]))))
    images = plan.images
    yield LabelledText("images", f"{cell_text(images.name)}, {images.count:,}" if images else "none")
    states = table["status"].where(table["reason"].ne(NOT_MEASURED), NOT_MEASURED).value_counts(sort=False)
    counts = ", ".join(f"{count} {'measured' if state == 'ok' else state}" for state, count in states.items())
    yield LabelledText("rows", f"{len(table)}: {counts}")


def _missing_measurements(results: Results) -> Iterator[str]:
    """How many rows are not measured yet, in total and by kind of measurement; nothing if all are."""
    rows = zip(results.plan.rows, results.table["reason"], strict=True)
    waiting = [row for row, reason in rows if reason == NOT_MEASURED]
    if not waiting:
        return
    yield f"{len(waiting)} of {len(results.plan.rows)} rows are not measured yet"
    kinds = Counter(kind for row in waiting for kind in dict.fromkeys(kind for kind, _ in results.missing(row)))
    for kind, count in kinds.items():
        yield f"{kind}: {count}"


def _vendored(name: str) -> str:
    return importlib.resources.files("tokbench.report.html").joinpath("vendor", name).read_text(encoding="utf-8")
