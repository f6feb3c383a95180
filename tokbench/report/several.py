"""What a reader of several runs is warned of."""

from __future__ import annotations

from tokbench.report.labels import cell_text
from tokbench.results import Combined
from tokbench.results.difference import difference_note


def disagreement_warning(combined: Combined) -> str | None:
    """One line about exact values that must agree and do not, and about damaged records; None without any."""
    texts = [
        f"{cell_text(line['method'])} at keep {cell_text(line['keep'])} in {cell_text(line['model'])}, "
        f"{line['column']}: {difference_note(line)}"
        for line in combined.disagreements.head(1).to_dict("records")
    ]
    more = len(combined.disagreements) - 1
    parts = [f"runs disagree: {text}{f' and {more} more' if more > 0 else ''}" for text in texts]
    parts += [
        f"{results.directory} has damaged records ({results.damaged_lines}), which count as missing"
        for results in combined.runs.values()
        if results.damaged_lines
    ]
    return "; ".join(parts) or None
