"""Ids made in order."""

import threading
import uuid
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from comagent.ids import Uuid7, uuid7

NOON_NS = 1_700_000_000_123_456_789


def clock(*readings: int) -> Callable[[], int]:
    return iter(readings).__next__


def test_an_id_is_a_uuid_of_version_7_with_the_time_in_front() -> None:
    parsed = uuid.UUID(Uuid7(clock(NOON_NS))())
    assert parsed.version == 7
    assert parsed.variant == uuid.RFC_4122
    assert parsed.int >> 80 == NOON_NS // 1_000_000
    assert (parsed.int >> 64) & 0xFFF == 456_789 * 4096 // 1_000_000


@given(st.lists(st.integers(0, 2**60), min_size=2, max_size=50))
def test_ids_rise_whatever_the_clock_does(readings: list[int]) -> None:
    make = Uuid7(clock(*readings))
    made = [make() for _ in readings]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_a_clock_that_stands_still_runs_over_into_the_next_millisecond() -> None:
    make = Uuid7(lambda: NOON_NS)
    made = [make() for _ in range(10_000)]
    assert made == sorted(set(made))
    assert {uuid.UUID(text).version for text in made} == {7}


def test_threads_share_one_order() -> None:
    made: list[list[str]] = [[] for _ in range(4)]

    def fill(ids: list[str]) -> None:
        ids.extend(uuid7() for _ in range(2_000))

    threads = [threading.Thread(target=fill, args=(ids,)) for ids in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(ids == sorted(ids) for ids in made)
    assert len({one for ids in made for one in ids}) == 8_000


def test_two_generators_with_the_same_clock_make_different_ids() -> None:
    assert Uuid7(clock(NOON_NS))() != Uuid7(clock(NOON_NS))()
