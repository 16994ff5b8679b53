"""What tools cost, learnt from what their attempts took."""

import pytest

from comagent.costs import LARGEST_UNIT, Cost


def seen(declared: str, *times_ms: float) -> Cost:
    cost = Cost(declared)
    for time_ms in times_ms:
        cost.observe(1, time_ms)
    return cost


def test_a_tool_is_taken_for_what_it_declares_until_it_was_seen() -> None:
    assert Cost("cheap").cheap
    assert not Cost("unknown").cheap
    assert not Cost("costly").cheap


def test_a_tool_of_unknown_cost_is_tried_in_units_of_one_ten_and_a_hundred() -> None:
    cost = Cost("unknown")
    sizes = []
    for _ in range(4):
        sizes.append(cost.largest_unit if cost.cheap else 1)
        cost.observe(sizes[-1], 0.01 * sizes[-1])

    assert sizes == [1, 10, 100, 1000]


def test_costly_stays_costly_however_quick_it_is() -> None:
    assert not seen("costly", *[0.01] * 100).cheap


def test_a_tool_that_is_always_slow_is_not_cheap_whatever_it_declares() -> None:
    assert not seen("cheap", *[50.0] * 3).cheap


def test_one_slow_attempt_does_not_make_a_quick_tool_costly() -> None:
    assert seen("cheap", *[0.01] * 20, 1000.0).cheap


def test_a_tool_that_was_slow_for_a_while_is_cheap_again_soon() -> None:
    assert seen("cheap", *[1000.0] * 20, *[0.05] * 20).cheap


def test_importing_in_the_first_attempt_is_forgotten_soon() -> None:
    assert seen("unknown", 500.0, *[0.02] * 5).cheap


@pytest.mark.parametrize(
    ("time_ms", "least", "most"), [(0.0, LARGEST_UNIT, LARGEST_UNIT), (0.1, 200, 300), (10.0, 1, 3)]
)
def test_units_are_as_large_as_is_quick(time_ms: float, least: int, most: int) -> None:
    assert least <= seen("cheap", *[time_ms] * 200).largest_unit <= most
