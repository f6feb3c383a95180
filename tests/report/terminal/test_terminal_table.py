"""The terminal's table, rendered from made-up rows and parsed as text."""

import io
import re

import pandas as pd
import pytest
from rich.console import Console

from tokbench.report.lines import VERDICT_SIGNS
from tokbench.report.terminal.table import DROPPED_FIRST, PIPED_WIDTH, open_console, render
from tokbench.results import COLUMNS as TABLE
from tokbench.stats.times import Verdict

ROW = """
model method params regime site schedule keep seed device dtype batch_size compiled attention_kernel status reason
tokens_per_block params_m gmacs gmacs_method gmacs_saved latency_ms latency_ms_lo latency_ms_hi images_per_s
speedup speedup_lo speedup_hi verdict peak_mib top1 top5 images top1_lo top1_hi delta_top1 delta_lo delta_hi pareto
mode noise_floor other_load plain_latency_ms ideal_speedup choosing_share precision_reached
"""
COLUMNS = ROW.split()
MEASURED = COLUMNS[COLUMNS.index("gmacs") : COLUMNS.index("pareto") + 1]
TIMES = ("latency", "plain_latency", "images_per_s", "speedup", "verdict", "choosing")
TIMED = [name for name in COLUMNS if name.startswith(TIMES)]
HEADINGS = "method keep GMACs saved method ideal latency img/s speedup choosing peak top-1 top-5 Δ top-1"
HOSTILE = "RuntimeError: [/] [bold]shape[/bold] <script>alert(1)</script> :smile: \x1b[31m\nand " + "so on " * 30


def row(method="none", keep=1.0, **given):
    """A plausible row for DeiT-Ti."""
    plain = method == "none"
    gmacs = 1.2537 * (0.3 + 0.7 * keep)
    speedup = 1.2537 / gmacs
    drop = 18 * (1 - keep) ** 1.5
    values = dict.fromkeys(COLUMNS) | {
        "model": "deit_tiny_patch16_224",
        "method": method,
        "params": "",
        "regime": "off-the-shelf",
        "site": None if plain else "after_attention",
        "schedule": None if plain else "stages(at=3-6-9)",
        "keep": keep,
        "device": "cpu",
        "dtype": "fp32",
        "batch_size": 32,
        "compiled": False,
        "mode": "eager",
        "attention_kernel": "fused",
        "status": "ok",
        "gmacs": gmacs,
        "gmacs_method": 0.0 if plain else 0.013,
        "gmacs_saved": 100 * (1 - gmacs / 1.2537),
        "latency_ms": 12.34 / speedup,
        "plain_latency_ms": 12.34,
        "latency_ms_lo": 12.1 / speedup,
        "latency_ms_hi": 12.6 / speedup,
        "images_per_s": 32e3 / 12.34 * speedup,
        "ideal_speedup": 1.2537 / gmacs,
        "speedup": speedup,
        "choosing_share": None if plain else 7.4,
        "speedup_lo": speedup * (1 if plain else 0.985),
        "speedup_hi": speedup * (1 if plain else 1.018),
        "verdict": "SAME" if plain else "FASTER",
        "peak_mib": 312.4,
        "top1": 72.4 - drop,
        "top5": 90.1 - drop,
        "images": 500,
        "top1_lo": 68.5 - drop,
        "top1_hi": 76.1 - drop,
        "delta_top1": -drop,
        "delta_lo": -drop - 0.8,
        "delta_hi": -drop + 0.7,
        "pareto": plain,
    }
    return values | given


def lost(method, status, reason, **given):
    return row(method, 0.7, status=status, reason=reason, **dict.fromkeys(MEASURED), **given)


def comparison():
    rows = [row("token_pooling", keep, params="algorithm=kmeans,weighted=true") for keep in (0.7, 0.9)]
    rows += [row("token_pooling", 0.7, params="algorithm=kmedoids,weighted=true", pareto=True), row()]
    for seed, top1 in enumerate((60.0, 61.0, 62.0)):
        rows.append(row("random_selection", 0.7, seed=seed, top1=top1, **(dict.fromkeys(TIMED) if seed else {})))
    rows.append(row("tome", 0.7, verdict="AMBIGUOUS", speedup=1.01, speedup_lo=0.93, speedup_hi=1.09))
    rows.append(row("evit", 0.7, verdict="SLOWER", speedup=0.9, speedup_lo=0.88, speedup_hi=0.93))
    rows.append(lost("dynamic_vit", "skipped", "trained: meaningless without fine-tuning"))
    rows.append(lost("ats", "failed", HOSTILE))
    return rows


def shown(rows, width=100, **settings):
    file = io.StringIO()
    render(pd.DataFrame(rows, columns=COLUMNS), Console(file=file, width=width, **settings))
    return file.getvalue()


def line_of(text, start):
    return next(line for line in text.splitlines() if line.lstrip("★ ").startswith(start))


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_no_text_is_cut(width):
    text = shown(comparison(), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    for name in ("none", "token_pooling", "random_selection", "tome", "evit", "dynamic_vit", "ats"):
        assert re.search(rf"\b{name}\b", text), name
    for part in ("algorithm=kmeans", "algorithm=kmedoids"):
        assert part in text


@pytest.mark.parametrize("width", [60, 80])
def test_a_long_name_is_folded(width):
    name = "a_method_whose_author_could_not_stop_naming_it"
    text = shown([row(), row(name, 0.7), row(name, 0.5)], width)
    column = text.split("─\n")[1].split("\n\n")[0]
    assert name in "".join(re.findall(r"^(?:★|\s)\s+([a-z_]+)", column, re.MULTILINE)).replace("none", "", 1)
    assert max(map(len, text.splitlines())) <= width


def test_the_order_of_the_rows():
    body = shown(comparison(), 180).split("─\n")[1].split("\n\n")[0]
    read = [re.match(r"★?\s+([a-z_()=]*)\s+(1|0\.\d)\s", line) for line in body.splitlines()]
    assert [found.groups() for found in read if found] == [
        ("none", "1"),
        ("token_pooling(algorithm=kmeans)", "0.9"),
        ("", "0.7"),
        *((name, "0.7") for name in ("token_pooling(algorithm=kmedoids)", "random_selection", "tome", "evit")),
    ]


def test_common_settings_are_only_in_the_title():
    text = shown(comparison(), 160)
    title = text.splitlines()[0]
    for part in ("deit_tiny_patch16_224", "500 images", "cpu fp32", "batch 32", "stages(at=3-6-9)", "after_attention"):
        assert text.count(part) == title.count(part) == 1
    assert "weighted" not in text


def test_headings_include_units():
    head, units = shown(comparison(), 160).splitlines()[2:4]
    assert " ".join(head.split()) == HEADINGS
    assert " ".join(units.split()) == "% % × ms × % MiB % % points"  # noqa: RUF001


def test_the_comparison_with_fewer_pixels_is_shown_where_there_is_one():
    pixels = {
        f"over_pixels{kind}{end}": value for kind in ("", "_time") for end, value in (("", 5), ("_lo", 3), ("_hi", 7))
    }
    file = io.StringIO()
    render(pd.DataFrame([row(), row("tome", 0.7) | pixels]), Console(file=file, width=200))
    text = file.getvalue()
    for part in ("vs fewer pixels", "points, equal MACs", "points, equal time", "5.0 [3.0, 7.0]"):
        assert part in text
    assert "fewer pixels" not in shown(comparison(), 200)


def test_columns_are_dropped_in_the_declared_order():
    dropped = [key for key in DROPPED_FIRST if key in COLUMNS and key != "gmacs_method"]  # whose headings are unique
    order = [TABLE[key].title for key in dropped]
    heads = [shown(comparison(), width).split("─")[0] for width in range(160, 70, -6)]
    seen = [[key for key in order if key in head] for head in heads]
    assert all(keys == order[len(order) - len(keys) :] for keys in seen)
    assert (seen[0], seen[-1]) == (order, [])


def test_intervals_are_dropped_last():
    wide, narrow = (shown(comparison(), width) for width in (80, 56))
    assert "-3.0 [-3.8, -2.3]" in wide
    assert "-3.0" in narrow
    assert "[-" not in narrow
    assert max(map(len, narrow.splitlines())) <= 56


def test_digits_follow_the_interval():
    text = shown([row(), row("tome", 0.5)], 160)
    assert " 12.3 " in line_of(text, "none")
    assert "1.54 [1.52, 1.57]" in line_of(text, "tome")
    assert "-6.4 [-7.2, -5.7]" in line_of(text, "tome")
    unsure = shown([row(), row("tome", 0.5, latency_ms=153.4, latency_ms_lo=141, latency_ms_hi=166)], 160)
    assert " 150 " in line_of(unsure, "tome")


def test_seeds_share_one_line():
    text = shown(comparison())
    assert text.count("random_selection") == 1
    assert "61.0 ±1.0" in line_of(text, "random_selection")
    assert "▲  1.27 [1.25, 1.29]" in line_of(text, "random_selection")
    assert "± standard deviation over 3 seeds" in text
    assert "±" not in shown([row(), row("tome", 0.7)])


def test_pareto_rows_have_a_star():
    lines = shown(comparison(), 120).splitlines()
    starred = [line.split()[1] for line in lines if line.startswith("★") and "Pareto" not in line]
    assert starred == ["none", "token_pooling"]
    assert "★" not in shown([row(pareto=False)])


def test_every_verdict_has_a_sign():
    assert set(VERDICT_SIGNS) == set(Verdict)
    text = shown(comparison())
    assert "?  1.01" in line_of(text, "tome")
    assert "▼  0.90" in line_of(text, "evit")
    assert "▲ faster, ▼ slower, = same, ? ambiguous" in text
    with pytest.raises(KeyError):
        shown([row(verdict="QUICK", speedup_hi=1.1)])


def test_the_legend_relates_latency_and_speedup_where_both_are_shown():
    note = "latency a of b: a is the row's, b the plain model's in the same rounds; other rows have other rounds"
    assert note in shown(comparison(), 120)
    assert note not in shown(comparison(), 80)  # too narrow for latencies
    assert note not in shown([row(**dict.fromkeys(TIMED)), row("tome", 0.7, **dict.fromkeys(TIMED))], 120)


def test_the_plain_latency_of_the_same_rounds_stands_beside_a_rows_latency():
    text = shown([row(), row("tome", 0.5, plain_latency_ms=15.14), row("evit", 0.5, plain_latency_ms=None)], 160)
    assert " 8.0 of 15.1 " in line_of(text, "tome")
    assert " of " not in line_of(text, "evit")


def test_the_legend_explains_the_columns_that_are_shown():
    notes = {"ideal": "ideal: the speedup if time were proportional", "choosing": "choosing: the part of the time"}
    for width in (80, 100, 120, 140):
        text = shown(comparison(), width)
        for heading, note in notes.items():
            assert (note in text) == (f" {heading} " in text.split("─")[0]), (width, heading)


def test_the_legend_states_the_noise_once():
    text = shown([row(noise_floor=0.4), row("tome", 0.7, noise_floor=0.7, other_load=0.25)], 120)
    assert "noise floor 0.7 %: the plain model timed against itself differed by at least this much" in text
    assert "other processes used up to 25 % of the CPUs" in text
    assert "noise" not in shown(comparison(), 120)


def test_the_legend_states_the_precision_of_the_least_precise_row():
    text = shown([row(precision_reached=0.9), row("tome", 0.7, precision_reached=8.06)], 120)
    assert "precision reached 8.1 %: half the width of a speedup's interval, in the least precise row" in text
    assert "precision" not in shown(comparison(), 120)


def test_the_plain_model_is_not_compared_with_itself():
    assert line_of(shown(comparison()), "none").split() == ["★", "none", "1", "1.25", "72.4"]
    timed = shown([row(speedup_lo=0.99, speedup_hi=1.01), row("tome", 0.7)])
    assert "=  1.00 [0.99, 1.01]" in line_of(timed, "none")


def test_columns_without_values_are_left_out():
    unmeasured = dict.fromkeys([*MEASURED[3:], *TIMED])
    text = shown([row(**unmeasured), row("tome", 0.7, **unmeasured)], 160)
    assert text.splitlines()[2].split() == ["method", "keep", "GMACs", "saved", "method", "ideal"]
    assert "interval" not in text


def test_settings_that_differ_become_columns():
    rows = [row(method, keep, batch_size=b) for method, keep in (("none", 1), ("tome", 0.7)) for b in (1, 256)]
    text = shown(rows, 80)
    title, head = text.split("─")[0].split("\n\n")
    assert "batch" in head
    assert "batch" not in title
    assert re.search(r"tome\s+1\s+0\.7", text)
    assert re.search(r"\s256\s+0\.7", text)


def test_settings_that_identify_no_row_are_dropped_first():
    rows = [row(), row("tome", 0.7), row("pitome", 0.7, site="before_block")]
    assert "before_block" in shown(rows, 160)
    assert "before_block" not in shown(rows, 80)
    rows[2]["method"] = "tome"
    assert "before_block" in shown(rows, 80)


def test_reasons_are_shown_literally():
    text = " ".join(shown(comparison()).split())
    assert "dynamic_vit — skipped: trained: meaningless without fine-tuning" in text
    assert "ats 0.7 — failed: RuntimeError: [/] [bold]shape[/bold] <script>alert(1)</script> :smile: [31m and" in text


def test_methods_skipped_for_the_same_reason_share_a_line():
    rows = [row(), *(lost(method, "skipped", "no weights") for method in ("sit", "sit", "dtem"))]
    assert "sit, dtem — skipped: no weights" in shown(rows)


def test_what_is_left_to_another_part_has_not_failed():
    assert "ats 0.7 — not measured yet" in shown([row(), lost("ats", "failed", "not measured yet")])


def test_seeds_that_failed_for_the_same_reason_share_a_line():
    rows = [row(), *(lost("ats", "failed", "out of memory", seed=seed, batch_size=256) for seed in (0, 1))]
    assert "ats 0.7 batch 256 (seed 0, 1) — failed: out of memory" in shown(rows)


def test_a_model_without_results_has_no_table():
    text = shown([lost("ats", "failed", "out of memory")])
    assert text.splitlines() == ["deit_tiny_patch16_224", "", "ats 0.7 — failed: out of memory"]


def test_each_model_has_a_block():
    text = shown([row(), row("tome", 0.7), row(model="deit_small_patch16_224", images=50_000)])
    assert text.index("deit_tiny") < text.index("tome") < text.index("deit_small")
    assert "50,000 images" in text
    assert "\n\n\n" not in text
    assert shown([]) == ""


def test_no_escape_sequences_outside_a_terminal():
    assert "\x1b" not in shown(comparison())
    assert "\x1b[" in shown(comparison(), force_terminal=True, color_system="standard")


def test_the_width_of_a_pipe_is_fixed_unless_columns_is_set(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    assert open_console(io.StringIO()).width == PIPED_WIDTH
    monkeypatch.setenv("COLUMNS", "132")
    assert open_console(io.StringIO()).width == 132


def test_a_budget_is_shown_rather_than_the_keep_that_meets_it():
    budgets = [row("tome", keep, schedule=f"budget({b})") for keep, b in ((0.7512, 0.7), (0.5234, 0.5))]
    wide, narrow = (shown([row(), *budgets], width) for width in (160, 80))
    assert "budget(0.7)" in wide
    assert "0.7512" in wide
    assert "budget(0.7)" in narrow
    assert "0.7512" not in narrow
    assert "0.7512" in shown([row(), row("tome", 0.7512)], 80)


def test_the_rows_of_one_schedule_stand_together():
    rows = [row("tome", 0.9), row("tome", 0.6), row("tome", 0.8, schedule="budget(0.8)")]
    rows += [row("tome", 0.5, schedule="budget(0.5)")]
    lines = [line for line in shown([row(), *rows], 160).splitlines() if "budget(" in line or "stages(" in line]
    order = [re.search(r"(stages|budget)\S*", line)[0] for line in lines]
    assert order == ["stages(at=3-6-9)"] * 2 + ["budget(0.8)", "budget(0.5)"]
