"""The curves of training, read back from the figure."""

import pandas as pd
import pytest

from tokbench.report.charts.training import MAX_POINTS, training_chart
from tokbench.results.training import TrainedCell


def cell(method: str, keep: float | None = None, seed: int = 0) -> TrainedCell:
    schedule = "" if method == "none" else "stages(at=3-6-9)"
    return TrainedCell(f"{method}-{keep}-{seed}", "digits_deit", method, "", schedule, keep, seed)


def log(steps: int, offset: float = 0.0) -> pd.DataFrame:
    """A loss that falls by one with each step, and top-1 at the last step."""
    top1 = [None] * (steps - 1) + [90.0 + offset]
    loss = [offset + steps - step for step in range(1, steps + 1)]
    return pd.DataFrame({"step": range(1, steps + 1), "loss": loss, "top1": top1})


def shown(figure, axis: str) -> dict[str, tuple[list[float], list[float]]]:
    """What the first view draws on an axis, without empty lines."""
    return {
        trace.name: (list(trace.x), list(trace.y)) for trace in figure.data if (trace.yaxis or "y") == axis and trace.x
    }


def test_a_short_log_is_drawn_point_by_point() -> None:
    figure = training_chart([(cell("none"), log(4)), (cell("tome", 0.5), log(4, offset=1))])
    assert shown(figure, "y") == {
        "plain model": ([1, 2, 3, 4], [3, 2, 1, 0]),
        "tome": ([1, 2, 3, 4], [4, 3, 2, 1]),
    }
    assert shown(figure, "y2") == {"plain model": ([4], [90]), "tome": ([4], [91])}


def test_a_long_log_is_averaged_in_steps_and_losses() -> None:
    steps = 3 * MAX_POINTS
    figure = training_chart([(cell("none"), log(steps))])
    x, y = shown(figure, "y")["plain model"]
    assert len(x) == MAX_POINTS
    assert x == [3 * place + 2 for place in range(MAX_POINTS)]
    assert y == pytest.approx([steps - step for step in x])


def test_each_keep_is_a_view_with_the_plain_model() -> None:
    cells = [cell("none"), *(cell("tome", keep) for keep in (0.3, 0.7, 0.5))]
    figure = training_chart([(one, log(3, offset=number)) for number, one in enumerate(cells)])
    (menu,) = figure.layout.updatemenus
    assert [button.label for button in menu.buttons] == ["keep 0.7", "keep 0.5", "keep 0.3"]
    for button, number in zip(menu.buttons, (2, 3, 1), strict=True):
        losses = [list(y) for y in button.args[0]["y"] if y]
        assert [2 + number, 1 + number, 0 + number] in losses
        assert [2, 1, 0] in losses


def test_seeds_are_told_apart() -> None:
    figure = training_chart([(cell("tome", 0.5, seed), log(2)) for seed in (0, 1)])
    assert set(shown(figure, "y")) == {"tome seed 0", "tome seed 1"}


def test_without_validation_only_the_loss_is_drawn() -> None:
    figure = training_chart([(cell("none"), log(2).assign(top1=float("nan")))])
    assert set(shown(figure, "y")) == {"plain model"}
    assert shown(figure, "y2") == {}


def test_without_cells_there_is_no_chart() -> None:
    assert training_chart([]) is None
