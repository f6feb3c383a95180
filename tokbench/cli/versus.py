"""`tokbench versus`: is a method better than another?"""

from __future__ import annotations

from typing import Annotated

import typer

from tokbench.cli.options import AsJson, ResultsDirectory, parse_list


def versus(
    directory: ResultsDirectory,
    others: Annotated[
        list[str],
        typer.Argument(metavar="OTHER", help="What to compare with: evit, 'score_pruning(score=cls)', or a schedule."),
    ],
    as_json: AsJson = False,
) -> None:
    """Compare all methods with one, or with another schedule.

    Each comparison is on the same images, at the same schedule and keep, or at the same budget: the difference in top-1
    with its interval, McNemar's test, a verdict, and how many images would settle what is undecided. The plain model
    with fewer pixels is compared with everything: none(img_size=192). With a schedule, as in 'budget(0.7)', each method
    is compared with itself at that schedule.

    Example: tokbench versus results/imagenet evit
    """
    from tokbench.report.terminal.table import open_console
    from tokbench.report.terminal.versus import render_versus
    from tokbench.results import load

    frame = load(directory).versus(*(name for text in others for name in parse_list("versus", text)))
    if as_json:
        typer.echo(frame.to_json(orient="records", indent=2))
    else:
        render_versus(frame, open_console())
