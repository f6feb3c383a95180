"""The leaderboard in a real browser: it shows the rows of all runs, and filters, sorts and draws them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pandas as pd
import pytest
from conftest import OTHER, Opened
from website.leaderboard import leaderboard_rows
from website.source import Source

Open = Callable[..., Opened]


@pytest.fixture(scope="module")
def rows(source: Source) -> pd.DataFrame:
    return leaderboard_rows(source)


class Board:
    """The leaderboard in a window."""

    def __init__(self, opened: Opened, view: str = "") -> None:
        self.opened, self.page = opened, opened.page
        opened.go(f"leaderboard.html{view}")
        self.page.wait_for_selector("#rows tbody tr")

    def choose(self, name: str, label: str) -> None:
        self.page.select_option(f"select[name={name}]", label=label)

    @property
    def counts(self) -> tuple[int, int]:
        """How many rows are shown, and how many of them are on the front, as a screen reader is told."""
        words = self.page.locator("#count[role=status]").inner_text().split()
        return int(words[0]), int(words[4])

    def numbers(self, heading: str) -> list[float | None]:
        """A column of the rows on this page; None where a cell is empty."""
        headings = [text.strip() for text in self.page.locator("#rows thead th").all_inner_texts()]
        place = next(index for index, text in enumerate(headings) if text.startswith(heading))
        texts = self.page.eval_on_selector_all(
            "#rows tbody tr", "(rows, place) => rows.map(row => row.cells[place].innerText)", place
        )
        return [float(text.split()[0]) if text else None for text in texts]

    def show_all(self) -> None:
        self.page.select_option(".dt-length select", "-1")

    def points(self, plot: str, selector: str = ".point") -> int:
        return int(self.page.locator(f"#plot-{plot} {selector}").count())


@pytest.fixture
def board(open_site: Open) -> Callable[..., Board]:
    """Open the leaderboard: `board("#model=")`."""
    return lambda view="": Board(open_site(), view)


def test_all_rows_of_all_runs_are_there(board: Callable[..., Board], rows: pd.DataFrame) -> None:
    shown = board("#model=")
    assert shown.counts == (len(rows), rows["pareto"].sum())
    assert shown.opened.messages == []


@pytest.mark.parametrize("column", ["regime", "keep", "budget", "method_name", "machine", "run", "schedule", "status"])
def test_each_filter_leaves_the_rows_with_its_value(
    column: str, board: Callable[..., Board], rows: pd.DataFrame
) -> None:
    shown = board("#model=")
    texts = rows[column].map(lambda value: f"{value:g}" if isinstance(value, float) else str(value))
    wanted = texts[texts != "nan"].iloc[-1]
    shown.choose(column, wanted)
    assert shown.counts == (texts.eq(wanted).sum(), rows["pareto"][texts.eq(wanted)].sum())


def test_filters_add_up_and_reset(board: Callable[..., Board], rows: pd.DataFrame) -> None:
    shown = board()
    at_first = shown.counts
    shown.choose("model", "digits_deit")
    shown.choose("keep", "0.5")
    shown.page.fill("input[name=q]", "token_pooling")
    shown.page.check("input[name=front]")
    wanted = rows[rows["model"].eq("digits_deit") & rows["keep"].eq(0.5) & rows["method_name"].eq("token_pooling")]
    assert 0 < shown.counts[0] == wanted["pareto"].sum() == shown.counts[1]
    shown.page.click("#filters button[type=reset]")
    assert shown.counts == at_first


def test_a_heading_sorts_by_number_with_missing_numbers_last(board: Callable[..., Board], rows: pd.DataFrame) -> None:
    shown = board("#model=digits_deit")
    shown.show_all()
    speedups = rows["speedup"][rows["model"].eq("digits_deit")]
    assert speedups.isna().any()
    heading = shown.page.locator("#rows th", has_text="speedup")
    for order, largest_first in (("ascending", False), ("descending", True)):
        heading.click()
        shown.page.wait_for_selector(f"#rows th[aria-sort={order}] >> text=speedup")
        numbers = shown.numbers("speedup")
        there = [number for number in numbers if number is not None]
        assert numbers[len(there) :] == [None] * int(speedups.isna().sum())
        assert there == pytest.approx(sorted(speedups.dropna(), reverse=largest_first), abs=0.06)


def test_the_plots_follow_the_filters_and_mark_the_front(board: Callable[..., Board], rows: pd.DataFrame) -> None:
    shown = board("#model=digits_deit&regime=off-the-shelf")
    chosen = rows[rows["model"].eq("digits_deit") & rows["regime"].eq("off-the-shelf")]
    for plot, cost, mark in (("gmacs", "gmacs", "pareto"), ("speedup", "speedup", "pareto_time")):
        complete = chosen.dropna(subset=[cost, "top1"])
        assert shown.points(plot) == len(complete)
        assert shown.points(plot, ".point.front") == complete[mark].sum() > 0
    shown.choose("keep", "0.5")
    assert shown.points("gmacs") == chosen["keep"].eq(0.5).sum()


def test_machines_are_side_by_side_and_compared_by_speedups_only(
    board: Callable[..., Board], rows: pd.DataFrame
) -> None:
    other = next(name for name in rows["machine"].unique() if name.startswith("Other"))
    machines = rows[rows["model"].eq("digits_deit")].groupby("method_name")["machine"].agg(set)
    method = machines[machines.map(lambda names: other in names and len(names) > 1)].index[0]
    shown = board(f"#model=digits_deit&method_name={method}&sort=machine:desc")
    assert other in shown.page.locator("#rows td.machine").all_inner_texts()
    assert other in shown.page.locator("#legend").inner_text()
    headings = " ".join(shown.page.locator("#rows th").all_inner_texts())
    assert "speedup" in headings
    assert "latency" not in headings


def test_a_view_is_shared_by_its_address(board: Callable[..., Board]) -> None:
    first = board("#model=")
    first.choose("keep", "0.5")
    first.page.fill("input[name=q]", "tome")
    first.page.locator("#rows th", has_text="Δ top-1").click()
    first.page.wait_for_selector("#rows th[aria-sort=ascending] >> text=Δ top-1")
    view = urlsplit(first.page.url).fragment
    assert parse_qs(view) == {"keep": ["0.5"], "q": ["tome"], "sort": ["delta_top1:asc"]}
    second = board(f"#{view}")
    assert second.counts == first.counts
    assert second.numbers("Δ top-1") == first.numbers("Δ top-1")
    assert second.page.input_value("input[name=q]") == "tome"
    second.page.evaluate("location.hash = '#model=&q=evit'")  # as a link from another page
    second.page.wait_for_function("document.querySelector('input[name=q]').value === 'evit'")


def test_the_keyboard_alone_filters_and_sorts(board: Callable[..., Board]) -> None:
    shown = board()
    before = shown.counts
    keyboard = shown.page.keyboard

    def tab_to(selector: str) -> None:
        for _ in range(60):
            keyboard.press("Tab")
            if shown.page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"Tab does not reach {selector}")

    tab_to("#filters select[name=keep]")
    keyboard.press("End")
    assert shown.counts < before
    assert shown.page.input_value("select[name=keep]") != ""
    tab_to("#filters input[name=front]")
    keyboard.press("Space")
    assert shown.counts[0] == shown.counts[1]
    tab_to("#rows th *, #rows th")
    keyboard.press("Enter")
    shown.page.wait_for_function("document.querySelectorAll('#rows th[aria-sort]').length === 1")
    tab_to("#rows a")
    keyboard.press("Enter")
    shown.page.wait_for_url("**/*.json")


def test_each_row_links_to_its_record_and_its_run(board: Callable[..., Board], rows: pd.DataFrame, site: Path) -> None:
    shown = board(f"#model=&run={OTHER.replace('/', '-')}")
    shown.show_all()
    links = shown.page.eval_on_selector_all(
        "#rows td.links a:first-child", "links => links.map(a => a.getAttribute('href'))"
    )
    expected = rows[rows["run"].eq(OTHER.replace("/", "-"))]
    assert sorted(links) == sorted(expected["record"])
    for _, row in expected.iterrows():
        content: dict[str, Any] = json.loads((site / row["record"]).read_text())
        assert content["row"]["gmacs"] == row["gmacs"]
        assert content["environment"]["device_name"] == "Other <CPU>"
        assert content["command"].startswith("tokbench compare")
    runs = shown.page.eval_on_selector_all(
        "#rows td.links a:last-child", "links => links.map(a => a.getAttribute('href'))"
    )
    assert set(runs) == {f"runs/{OTHER.replace('/', '-')}.html"}


def test_a_row_without_results_says_why(board: Callable[..., Board], rows: pd.DataFrame) -> None:
    wrong = rows[rows["status"].eq("failed")]
    assert len(wrong) > 0
    shown = board("#model=&status=failed")
    shown.show_all()
    text = shown.page.locator("#rows tbody").inner_text()
    assert shown.counts[0] == len(wrong)
    assert all(f"failed, {reason}" in text for reason in wrong["reason"])
