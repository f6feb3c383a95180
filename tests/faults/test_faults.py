"""A few faults of every group; `make faults` tries all of them."""

from collections.abc import Iterator

import pytest
from groups import GROUPS
from lab import Case, Lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as opened:
        yield opened


CASES = [pytest.param(case, id=f"{name}: {case.name}") for name, group in GROUPS.items() for case in group.short()]


@pytest.mark.parametrize("case", CASES)
def test_a_fault_costs_no_number_and_is_told_in_a_line(case: Case, lab: Lab) -> None:
    assert case.wrong(lab) == ""
