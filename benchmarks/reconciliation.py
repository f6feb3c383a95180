"""Do all routes of counting MACs agree, for every built-in method?

    python benchmarks/reconciliation.py

Every method runs with its default parameters in DeiT-Ti, -S and -B with random weights, at keep 0.9, 0.7 and 0.5 (at
depths 3, 6 and 9), on one image of noise. The backbone is counted from the trace (fvcore with tokbench's handles), from
the dispatched operators, and by the closed form from the measured token counts; the method by the first two. No two
counts may differ by more than 0.1 % of the larger. Then a method uses an unknown operator, for which both counters must
raise an error that names it. The exit code is 1 if any of this fails. Takes about three minutes on an idle core.

Writes results/trust/reconciliation.csv and results/trust/reconciliation.txt.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

import pandas as pd
import timm
import torch
from output import TRUST, write_output
from rich.console import Console
from rich.progress import track
from torch import Tensor

from tokbench import Context, DownsampledViT, Downsampler, Schedule, Tokens, create
from tokbench.files import write_atomically
from tokbench.measure.dispatch import count_dispatched
from tokbench.measure.macs import TOLERANCE, count_by_routes, disagreement, trace
from tokbench.measure.operators import CountError, refuse_unknown
from tokbench.notation import parameters_text
from tokbench.registry import bind_parameters, discover

MODELS = ("deit_tiny_patch16_224", "deit_small_patch16_224", "deit_base_patch16_224")
KEEPS = (0.9, 0.7, 0.5)


class UnknownOperator(Downsampler):
    """Drops tokens after calling an operator that is on none of the lists."""

    def forward(self, tokens: Tokens, keep: int, context: Context) -> Tokens:
        """Keep the first tokens; see `Downsampler.forward`."""
        values = torch.special.bessel_j0(tokens.patches)
        index = torch.arange(keep, device=values.device).expand(len(values), keep)
        return tokens.replace(patches=tokens.patches + 0 * values).select(index)


def reconcile(vit: Any, model: str, method: str, keep: float, image: Tensor) -> dict[str, object]:
    """A line of the table: the counts of each route, or the error."""
    start = time.perf_counter()
    line: dict[str, object] = {
        "model": model,
        "method": method,
        "params": parameters_text(bind_parameters(method, {})),
        "keep": keep,
    }
    try:
        routes = count_by_routes(DownsampledViT(vit, create(method), Schedule.stages(keep)).eval(), image)
    except CountError as error:
        return {**line, "refused": str(error)}
    line |= {f"backbone_{route.replace(' ', '_')}": macs for route, macs in routes.backbone.items()}
    line |= {f"method_{route}": macs for route, macs in routes.method.items()}
    line["total"] = routes.traced.backbone.total() + routes.traced.method.total()
    line["backbone_disagreement"] = disagreement(routes.backbone.values())
    line["method_disagreement"] = disagreement(routes.method.values())
    return {**line, "seconds": round(time.perf_counter() - start, 2), "refused": ""}


def refusals(vit: Any, image: Tensor) -> Iterator[str]:
    """The error of each counter for an unknown operator."""
    model = DownsampledViT(vit, UnknownOperator(), Schedule.stages(0.5)).eval()
    with torch.inference_mode(), count_dispatched(model) as counter:
        model(image)
    for check in (lambda: refuse_unknown(counter.unknown, "as dispatched"), lambda: trace(model, image)):
        try:
            check()
        except CountError as error:
            yield str(error)


def failures(table: pd.DataFrame) -> pd.DataFrame:
    """The lines whose counts disagree or are missing."""
    worst = table[["backbone_disagreement", "method_disagreement"]].max(axis=1)
    return table[(worst > TOLERANCE) | (table["refused"] != "")]


def report(table: pd.DataFrame, refused: list[str]) -> Iterator[str]:
    """The lines of reconciliation.txt."""
    yield f"{len(table)} cells: {table['method'].nunique()} methods, {len(MODELS)} models, keeps {KEEPS}."
    yield f"Target: no two routes differ by more than {TOLERANCE:.1%} of the larger. Missed: {len(failures(table))}."
    by_model = table.groupby("model", sort=False)["seconds"].sum().round()
    yield "Seconds: " + ", ".join(f"{model} {seconds:.0f}" for model, seconds in by_model.items()) + "."
    for part, routes in (("backbone", "trace, dispatch, closed form"), ("method", "trace, dispatch")):
        differences = table[f"{part}_disagreement"]
        worst = table.sort_values(f"{part}_disagreement", ascending=False, kind="stable").to_dict("records")[0]
        where = f" ({worst['method']}, {worst['model']}, keep {worst['keep']})" if differences.max() else ""
        yield (
            f"{part.capitalize()} ({routes}): exactly equal in {(differences == 0).sum()} of {len(differences)}, "
            f"largest disagreement {differences.max():.2e}{where}."
        )
    for model, rows in table.groupby("model", sort=False):
        yield from ("", f"{model}: total gmacs, and those of the method, by keep")
        yield f"{'':22}" + "".join(f"{keep:>20}" for keep in KEEPS)
        for method, cells in rows.groupby("method"):
            yield f"{method:22}" + "".join(f"{_cell(cell):>20}" for cell in cells.to_dict("records"))
    missed = [f"  {line}" for line in failures(table).to_dict("records")]
    yield from ("", "Missed:", *(missed or ["  none"]))
    yield from (
        "",
        "Errors for an unknown operator (torch.special.bessel_j0):",
        *(f"  {line}" for line in refused),
    )


def _cell(cell: dict[Any, Any]) -> str:
    return "refused" if cell["refused"] else f"{cell['total'] / 1e9:.4f} {cell['method_trace'] / 1e9:.4f}"


def main() -> int:
    """Count everything, write the two files, and return the exit code."""
    methods, broken = discover()
    for plugin in broken:
        sys.stderr.write(f"{plugin.source} cannot be imported: {plugin.reason}\n")
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    lines: list[dict[str, object]] = []
    refused: list[str] = []
    for model in MODELS:
        torch.manual_seed(0)
        vit = timm.create_model(model, pretrained=False).eval()
        cells = [(method, keep) for method in methods for keep in KEEPS]
        tracked = track(cells, description=model, console=Console(stderr=True))
        lines += [reconcile(vit, model, method, keep, image) for method, keep in tracked]
        refused = refused or list(refusals(vit, image))
    table = pd.DataFrame(lines)
    packages = ("python", "torch", "timm", "fvcore", "tokbench")
    write_output(TRUST / "reconciliation.txt", report(table, refused), packages)
    write_atomically(TRUST / "reconciliation.csv", lambda path: table.to_csv(path, index=False))
    named = len(refused) == 2 and all("special_bessel_j0" in line for line in refused)
    return int(bool(broken) or not failures(table).empty or not named)


if __name__ == "__main__":
    raise SystemExit(main())
