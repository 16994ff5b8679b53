"""The tasks that may run, of all jobs: one queue, from which agents with room are fed.

Jobs of a higher priority come first; among equals they take turns, one unit each, so that a large job cannot hold up a
small one.
"""

from collections import deque
from collections.abc import Callable, Iterator

from comagent.protocol import Lane


class _Level:
    """The jobs of one priority, in turns."""

    __slots__ = ("tasks", "turns")

    def __init__(self) -> None:
        self.turns: deque[str] = deque()
        self.tasks: dict[str, deque[int]] = {}


class ReadyQueue:
    """Ready tasks by lane, priority and job. Entries may be outdated: whoever takes one checks its state."""

    def __init__(self) -> None:
        self._lanes: dict[Lane, dict[int, _Level]] = {}
        self._lengths: dict[Lane, int] = {}

    def __len__(self) -> int:
        return sum(self._lengths.values())

    def push(self, lane: Lane, priority: int, job_id: str, task: int) -> None:
        levels = self._lanes.get(lane)
        if levels is None:
            levels = self._lanes[lane] = {}
        level = levels.get(priority)
        if level is None:
            level = levels[priority] = _Level()
        tasks = level.tasks.get(job_id)
        if tasks is None:
            level.tasks[job_id] = deque((task,))
            level.turns.append(job_id)
        else:
            tasks.append(task)
        self._lengths[lane] = self._lengths.get(lane, 0) + 1

    def lanes(self) -> Iterator[Lane]:
        """Lanes in which something is queued."""
        for lane, length in list(self._lengths.items()):
            if length:
                yield lane

    def turn(self, lane: Lane) -> tuple[str, int, int] | None:
        """Whose turn it is: (job, its first task, how many it has queued); None if the lane is empty."""
        levels = self._lanes.get(lane)
        if not levels:
            return None
        level = levels[max(levels)]
        job_id = level.turns[0]
        tasks = level.tasks[job_id]
        return job_id, tasks[0], len(tasks)

    def take(self, lane: Lane, count: int) -> list[int]:
        """Takes up to `count` tasks of the job whose turn it is, and ends its turn."""
        levels = self._lanes[lane]
        priority = max(levels)
        level = levels[priority]
        job_id = level.turns.popleft()
        tasks = level.tasks[job_id]
        if count >= len(tasks):
            taken = list(tasks)
            del level.tasks[job_id]
            if not level.turns:
                del levels[priority]
        else:
            taken = [tasks.popleft() for _ in range(count)]
            level.turns.append(job_id)
        self._lengths[lane] -= len(taken)
        return taken

    def drop(self, job_id: str) -> None:
        """Forgets a job."""
        self._move(lambda job, _: job != job_id, None)

    def relane(self, lane_of: Callable[[str, int], Lane]) -> None:
        """Sorts everything anew, after the cost of a tool turned out different."""
        self._move(lambda _job, _task: True, lane_of)

    def _move(self, keep: Callable[[str, int], bool], lane_of: Callable[[str, int], Lane] | None) -> None:
        old, self._lanes, self._lengths = self._lanes, {}, {}
        for lane, levels in old.items():
            for priority, level in levels.items():
                for job_id in level.turns:
                    for task in level.tasks[job_id]:
                        if keep(job_id, task):
                            self.push(lane_of(job_id, task) if lane_of else lane, priority, job_id, task)
