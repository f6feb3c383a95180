"""A page for each run: what was measured on which machine, the command that repeats it, and its files."""

from __future__ import annotations

import html
from collections.abc import Iterator
from urllib.parse import urlencode

from tokbench.report.html.rerun import SUITE_FILE, rerun_commands
from tokbench.report.html.sections import environment_facts
from tokbench.report.labels import cell_text
from tokbench.report.markdown import markdown_table
from tokbench.results import Results
from tokbench.results.directory import without_formulas
from website.agreement import agreement
from website.records import AGAIN, records
from website.source import Source


def pages(source: Source) -> dict[str, str]:
    """The index of the runs, a page and a table for each, and a file with the record of each row."""
    found = {"runs/index.md": _index(source)}
    for run in source.runs:
        anchor = source.anchor(run)
        found[f"runs/{anchor}.md"] = "\n".join(_page(source, run))
        found[f"runs/{anchor}.csv"] = without_formulas(run.table).to_csv(index=False)
        for number, record in enumerate(records(source, run)):
            found[record_path(source, run, number)] = record
    return found


def record_path(source: Source, run: Results, number: int) -> str:
    """Where the record of a run's row is, below the site's folder.

    Args:
        source: What the site is made from.
        run: The run.
        number: The row's position in the run's table, from 0.
    """
    return f"runs/{source.anchor(run)}/{number}.json"


def machine(run: Results) -> str:
    """What a run was measured on, in a few words: `AMD EPYC, 2 threads`."""
    name = cell_text(run.environment.get("device_name")) or cell_text(run.plan.device)
    threads = run.environment.get("threads")
    return f"{name}, {threads} threads" if run.plan.device == "cpu" and threads else name


def data(run: Results) -> str:
    """The images of a run: `embedded, 1,000 images`, or `none`."""
    images = run.plan.images
    return f"{cell_text(images.name)}, {images.count:,} images" if images else "none"


def leaderboard_link(text: str, up: str, **filters: str) -> str:
    """A link to a view of the leaderboard, as HTML.

    Args:
        text: What it says.
        up: The way from the page to the site's folder, as in `../`.
        filters: What is chosen, by column; see `website.leaderboard.FILTERS`. A choice of a run or a method is shown
            for all models.
    """
    view = urlencode({"model": "", **filters})
    return f'<a href="{up}leaderboard.html#{html.escape(view)}">{html.escape(text)}</a>'


def _index(source: Source) -> str:
    rows = [
        [
            f"[{source.name(run)}]({source.anchor(run)}.md)",
            html.escape(machine(run)),
            html.escape(", ".join(dict.fromkeys(run.table["model"]))),
            html.escape(data(run)),
            str(len(run.table)),
            _date(run),
        ]
        for run in source.runs
    ]
    table = markdown_table(["run", "machine", "models", "data", "rows", "measured"], rows, right_aligned=[4])
    head = "Every table on this site is made from these runs. Each page has the run's machine, command and table."
    return "\n".join(["---", "hide: [toc]", "---", "", "# Runs", "", head, "", *table, "", *agreement(source)])


def _page(source: Source, run: Results) -> Iterator[str]:
    name, anchor = source.name(run), source.anchor(run)
    rerun = rerun_commands(run.plan, AGAIN)
    yield from (f"# {name}", "", html.escape(cell_text(run.plan.suite.description)), "")
    states = run.table["status"].value_counts(sort=False)
    counts = ", ".join(f"{count} {'measured' if state == 'ok' else state}" for state, count in states.items())
    facts = {
        "machine": machine(run),
        "data": data(run),
        "rows": f"{len(run.table)}: {counts}",
        "measured": _date(run),
    }
    yield from (*_facts(facts), "")
    yield f"{leaderboard_link('All rows on the leaderboard', '../', run=anchor)}, or as [CSV]({anchor}.csv)."
    yield from ("", "## Command", "")
    if rerun.suite:
        yield from (f"Save as `{SUITE_FILE}`:", "", "```toml", rerun.suite.rstrip(), "```", "", "Then run:", "")
    yield from ("```", rerun.compare, "```", "")
    yield "Paths are as they were given for this run. Its settings, measurements and tables are in"
    yield f"`results/{name}/`."
    yield from ("", "## Environment", "")
    yield from _facts({item.label: item.text for item in environment_facts(run.environment)})
    yield ""


def _facts(facts: dict[str, str]) -> list[str]:
    """A table of two columns."""
    escaped = [[html.escape(label), html.escape(text).replace("|", "\\|")] for label, text in facts.items() if text]
    return markdown_table(["setting", "value"], escaped)


def _date(run: Results) -> str:
    return cell_text(run.environment.get("measured")).partition("T")[0] or "unknown"
