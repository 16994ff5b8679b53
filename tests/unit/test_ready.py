from collections import Counter
from collections.abc import Iterator

from hypothesis import given
from hypothesis import strategies as st

from comagent.ready import ReadyQueue

LANE = "async"


def filled(*entries: tuple[int, str, int], lane: str = LANE) -> ReadyQueue:
    """A queue with entries (priority, job, task)."""
    queue = ReadyQueue()
    for priority, job_id, task in entries:
        queue.push(lane, priority, job_id, task)
    return queue


def taken(queue: ReadyQueue, count: int, lane: str = LANE) -> Iterator[tuple[str, list[int]]]:
    while (turn := queue.turn(lane)) is not None:
        yield turn[0], queue.take(lane, count)


def test_an_empty_lane_is_nobodys_turn() -> None:
    queue = ReadyQueue()
    assert queue.turn(LANE) is None
    assert list(queue.lanes()) == []
    assert len(queue) == 0


def test_tasks_of_a_job_come_in_the_order_in_which_they_became_ready() -> None:
    queue = filled((0, "a", 3), (0, "a", 1), (0, "a", 2))
    assert queue.turn(LANE) == ("a", 3, 3)
    assert list(taken(queue, 2)) == [("a", [3, 1]), ("a", [2])]


def test_jobs_of_one_priority_take_turns() -> None:
    queue = filled((0, "a", 1), (0, "a", 2), (0, "b", 1), (0, "a", 3), (0, "b", 2))
    assert [job_id for job_id, _ in taken(queue, 1)] == ["a", "b", "a", "b", "a"]


def test_a_job_that_comes_back_queues_up_behind_the_others() -> None:
    queue = filled((0, "a", 1), (0, "b", 1), (0, "b", 2))
    queue.take(LANE, 1)
    queue.push(LANE, 0, "a", 2)
    assert [job_id for job_id, _ in taken(queue, 1)] == ["b", "a", "b"]


def test_the_more_urgent_job_goes_first_however_late_it_came() -> None:
    queue = filled((0, "a", 1), (-10, "low", 1), (30, "high", 1), (30, "high", 2))
    assert [job_id for job_id, _ in taken(queue, 1)] == ["high", "high", "a", "low"]


def test_lanes_do_not_know_each_other() -> None:
    queue = filled((0, "a", 1))
    queue.push("process", 5, "b", 2)
    assert sorted(queue.lanes()) == [LANE, "process"]
    assert queue.take("process", 10) == [2]
    assert list(queue.lanes()) == [LANE]
    assert queue.turn(LANE) == ("a", 1, 1)


def test_a_dropped_job_leaves_nothing_behind() -> None:
    queue = filled((0, "a", 1), (0, "b", 2), (5, "a", 3))
    queue.drop("a")
    assert len(queue) == 1
    assert list(taken(queue, 9)) == [("b", [2])]


def test_tasks_change_their_lane_and_keep_their_order() -> None:
    queue = filled((0, "a", 1), (0, "a", 2), (0, "b", 3), (5, "c", 4))
    queue.relane(lambda _job_id, task: "batch" if task != 2 else LANE)
    assert list(taken(queue, 9, "batch")) == [("c", [4]), ("a", [1]), ("b", [3])]
    assert list(taken(queue, 9)) == [("a", [2])]


entries = st.tuples(st.sampled_from((LANE, "batch")), st.integers(0, 2), st.sampled_from("abc"), st.integers(0, 99))


@given(st.lists(entries), st.integers(1, 5))
def test_whatever_goes_in_comes_out_once(pushed: list[tuple[str, int, str, int]], count: int) -> None:
    queue = ReadyQueue()
    for entry in pushed:
        queue.push(*entry)
    assert len(queue) == len(pushed)
    found = Counter(
        (lane, job_id, task)
        for lane in (LANE, "batch")
        for job_id, tasks in taken(queue, count, lane)
        for task in tasks
    )
    assert found == Counter((lane, job_id, task) for lane, _, job_id, task in pushed)
    assert len(queue) == 0
