"""`tokbench plot` on the committed results."""

import re
import shutil
from pathlib import Path

import pytest
from paper_rows import marks, tex_table, texts
from stored_results import REFERENCE, read_records, write_records

from tokbench.cli.plot import Axis, plot
from tokbench.errors import UserError
from tokbench.results import load
from tokbench.results.plan import read_plan


@pytest.mark.parametrize("x", list(Axis))
def test_the_command_draws_the_reference(here, capsys, x):
    results = shutil.copytree(REFERENCE, here / "results")
    plot([results], x=x, out=Path("fig.svg"))
    rows = load(REFERENCE).table.query("status == 'ok'")
    front = {"gmacs": "pareto", "latency_ms": "pareto_time", "speedup": "pareto_time"}[x]
    settings = rows.groupby(["method", "params", "keep"], dropna=False)[front].max()
    assert f"fig.svg: {len(settings)} points" in capsys.readouterr().err
    assert set(rows["method"]) - {"none"} <= {re.sub(r"\(.*", "", text) for text in texts("fig.svg")}
    assert marks("fig.svg") == len(settings) + settings.sum()
    plot([results], x=x)
    assert (results / f"{x}.pdf").read_bytes().startswith(b"%PDF")


def test_the_command_writes_tables(here, capsys):
    plot([REFERENCE], latex=True, methods="grid_pooling,random_selection")
    printed = capsys.readouterr().out
    plot([REFERENCE], latex=True, methods="grid_pooling,random_selection", out=Path("table.tex"))
    assert Path("table.tex").read_text() == printed
    assert {line[1] for line in tex_table(printed)} == {"method", "none", r"grid\_pooling", r"random\_selection", ""}
    plot([REFERENCE], markdown=True, out=Path("table.md"))
    assert "| method |" in Path("table.md").read_text()


def test_an_unfinished_directory_works(here):
    (here / "half").mkdir()
    for name in ("plan.json", "environment.json"):
        shutil.copy(REFERENCE / name, here / "half")
    kept = {key for planned in read_plan(REFERENCE).rows[:4] for key in planned.keys.values()}
    records = read_records(REFERENCE)
    write_records(here / "half", [r for r in records if r["kind"] == "noise" or r["key"].split("/")[0] in kept])
    plot([here / "half"], out=Path("fig.svg"))
    assert 4 <= marks("fig.svg") <= 8
    write_records(here / "half", [])
    with pytest.raises(UserError, match=r"no row has a result .*not measured yet"):
        plot([here / "half"])


def test_user_errors(here):
    for out in ("fig.jpg", "fig"):
        with pytest.raises(UserError, match=r"must end in \.pdf or \.svg or \.png"):
            plot([REFERENCE], out=Path(out))
    with pytest.raises(UserError, match=r"must end in \.tex"):
        plot([REFERENCE], latex=True, out=Path("table.md"))
    with pytest.raises(UserError, match="one at a time"):
        plot([REFERENCE], latex=True, markdown=True)
    with pytest.raises(UserError, match="add --latex"):
        plot([REFERENCE], caption="Ours.")
    with pytest.raises(UserError, match="no results in nowhere"):
        plot([Path("nowhere")])
    for out in ("missing/fig.pdf", "missing/table.tex"):
        with pytest.raises(UserError, match=f"cannot write {out}"):
            plot([REFERENCE], out=Path(out), latex=out.endswith(".tex"))
    assert not list(here.iterdir())
