"""Energy per image against a simulated counter whose truth is known."""

import math
import statistics
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_meter import IMAGES, Device, Model
from torch import Tensor

from tokbench.measure.energy import BLOCK_S, IDLE_S, LEAD_S, PAIRS, Clock, measure_energy
from tokbench.measure.energy_meter import Meter, NoMeterError


def test_joules_per_image_and_idle_power_are_the_true_ones() -> None:
    device = Device(idle_w=60.0, tick_s=0.1)
    base, other = device.model(0.004, 300.0), device.model(0.003, 200.0)
    found = device.measure(base, other)
    assert len(found.base_j) == len(found.other_j) == PAIRS
    assert found.edge < 0.01
    for joules, model in ((found.base_j, base), (found.other_j, other)):
        assert joules == pytest.approx([model.joules] * PAIRS, rel=found.edge)
    assert found.idle_w == pytest.approx(60, rel=0.01)


@settings(max_examples=30, deadline=None)
@given(
    tick_s=st.floats(0.001, 0.12),
    phase_s=st.floats(0, 0.1),
    call_s=st.floats(0.002, 0.4),
    ratio=st.floats(0.3, 3),
    watts=st.floats(50, 700),
)
def test_every_block_is_right_to_within_the_stated_error(
    tick_s: float, phase_s: float, call_s: float, ratio: float, watts: float
) -> None:
    """Also where the counter ticks many times in a call, or a call is short against its ticks."""
    device = Device(tick_s=tick_s, phase_s=phase_s)
    base, other = device.model(call_s, watts), device.model(call_s * ratio, watts / 2)
    found = device.measure(base, other)
    for joules, model in ((found.base_j, base), (found.other_j, other)):
        assert all(abs(each / model.joules - 1) <= found.edge * 1.001 for each in joules)


def test_a_counter_that_lags_mixes_no_blocks() -> None:
    device = Device(tick_s=0.02, lag_s=0.9 * LEAD_S)
    base, other = device.model(0.002, 400.0), device.model(0.002, 100.0)
    found = device.measure(base, other)
    assert found.base_j == pytest.approx([base.joules] * PAIRS, rel=found.edge)
    assert found.other_j == pytest.approx([other.joules] * PAIRS, rel=found.edge)


def test_a_drift_of_the_power_favours_neither_model() -> None:
    """As of a GPU that gets warmer: in the order A B, A B it would look like a saving."""
    device = Device()
    growing = [device.model(0.005, 200.0), device.model(0.005, 200.0)]
    calls = 0

    def drifting(model: Model) -> Callable[[Tensor], Tensor]:
        def forward(images: Tensor) -> Tensor:
            nonlocal calls
            calls += 1
            model.watts = 200 + 0.1 * calls
            return model(images)

        return forward

    clock = Clock(lambda: device.now, device.sleep)
    base, other = (drifting(model) for model in growing)
    found = measure_energy(base, other, [IMAGES], Meter("simulated", device.read), 1.0, clock=clock)
    ratios = [a / b for a, b in zip(found.base_j, found.other_j, strict=True)]
    assert max(ratios[::2]) < 0.97  # one block later, the second model of each pair draws more
    assert min(ratios[1::2]) > 1.03
    assert statistics.median(ratios) == pytest.approx(1, abs=0.01)


def test_blocks_are_as_long_as_asked() -> None:
    device = Device()
    model = device.model(0.01, 300.0)
    for seconds in (1.0, 3.0):
        start = device.now
        device.measure(model, model, seconds)
        wanted = 2 * PAIRS * (LEAD_S + seconds) + 2 * IDLE_S + 2 * LEAD_S
        assert wanted <= device.now - start <= wanted + (2 * 2 * PAIRS + 2) * device.tick_s + 1


def test_a_varying_model_gives_a_spread_and_a_right_median() -> None:
    device = Device()
    base, other = device.model(0.004, 300.0, spread=0.5), device.model(0.004, 300.0, spread=0.5)
    found = device.measure(base, other, seconds=BLOCK_S)
    middle = sorted(math.log(a / b) for a, b in zip(found.base_j, found.other_j, strict=True))
    assert middle[0] < 0 < middle[-1]
    assert abs(sum(middle)) / PAIRS < 0.02


def test_a_counter_that_stands_still_gives_no_number() -> None:
    device = Device()
    clock = Clock(lambda: device.now, device.sleep)
    model = device.model(0.01, 300.0)
    with pytest.raises(NoMeterError, match="stood still for 5 s"):
        measure_energy(model, model, [IMAGES], Meter("still", lambda: 7.0), 1.0, clock=clock)


def test_a_counter_that_stops_in_a_block_gives_no_number() -> None:
    device = Device()
    clock = Clock(lambda: device.now, device.sleep)
    model = device.model(0.01, 300.0)
    with pytest.raises(NoMeterError, match="stood still"):
        measure_energy(model, model, [IMAGES], Meter("stops", lambda: min(device.read(), 900.0)), 1.0, clock=clock)
