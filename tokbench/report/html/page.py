"""A comparison as one self-contained HTML page: it needs no network and no other file.

Texts go through a template that escapes them; figures are JSON, which plotly.js draws when they come into view;
pictures are data URIs. The page has no time stamp: the same directory always gives the same page.
"""

from __future__ import annotations

import importlib.resources
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from tokbench.report.charts.style import CONFIG
from tokbench.report.html.rerun import rerun_commands
from tokbench.report.html.section import RunPart
from tokbench.report.html.sections import ALL_ROWS, for_script, sections
from tokbench.report.html.several import common_sections, run_facts
from tokbench.report.labels import cell_text
from tokbench.report.several import disagreement_warning
from tokbench.results import Combined, Results
from tokbench.results.table import NOT_MEASURED

TEMPLATE = "page.html.jinja"


def render_page(results: Results, versus: Sequence[str] = ()) -> str:
    """Render the page of a results directory, finished or not.

    Args:
        results: The results directory.
        versus: Methods that all others are compared with.

    Raises:
        UserError: One of these is not in the directory, or accuracy was not measured.
    """
    part = _run_part(results, versus)
    return _render(cell_text(results.directory.resolve().name), cell_text(results.plan.suite.description), [part])


def render_combined(combined: Combined, versus: Sequence[str] = ()) -> str:
    """Render one page of several runs: what they have in common, and below it each run as on its own page.

    Args:
        combined: The runs.
        versus: Methods that all others of a run are compared with.

    Raises:
        UserError: One of these is not in a run, or its accuracy was not measured.
    """
    own = []
    for number, (name, results) in enumerate(combined.runs.items(), start=1):
        part = _run_part(results, versus)
        others = [section for section in part.sections if section.name != ALL_ROWS]  # the page's table has them
        named = [replace(section, name=f"run-{number}-{section.name}") for section in others]
        own.append(replace(part, sections=named, name=f"run-{number}", title=cell_text(name)))
    title = " · ".join(map(cell_text, combined.runs))
    return _render(title, "", [RunPart(common_sections(combined)), *own], disagreement_warning(combined) or "")


def _run_part(results: Results, versus: Sequence[str]) -> RunPart:
    rerun = rerun_commands(results.plan, results.directory, versus)
    return RunPart(
        sections(results, rerun, versus),
        facts=list(run_facts(results)),
        missing=list(_missing_measurements(results)),
        command=rerun.compare,
    )


def _render(title: str, description: str, runs: Sequence[RunPart], warning: str = "") -> str:
    template = Environment(
        loader=PackageLoader("tokbench.report.html", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template(TEMPLATE)
    return template.render(
        title=title,
        description=description,
        warning=warning,
        runs=runs,
        config=for_script(json.dumps(dict(CONFIG))),
        plotly=Markup(get_plotlyjs()),
        datatables=Markup(_vendored("datatables.js")),
        styles=Markup(_vendored("datatables.css")),
        version=version("tokbench"),
    )


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
