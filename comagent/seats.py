"""The machine's view of the agents: what each has in hand, and whether it has room for more."""

from typing import Any

from comagent.protocol import BATCH, DispatchId, Lane

SLOTS: dict[Lane, int] = {"inline": 1, "thread": 8, "process": 2, "async": 1000}
"""Attempts of one kind that an agent runs at a time."""
BATCH_UNITS = 3
"""One unit of cheap tasks that runs and two that wait: an agent need not ask before it goes on."""
BATCH_TASKS = 256
"""Small units may be more, up to this many tasks."""


class Dispatch:
    """A unit that an agent has and has not fully answered for."""

    __slots__ = ("agent", "alone", "exports", "id", "job_id", "lane", "left", "size", "tools")

    def __init__(
        self, id: DispatchId, job_id: str, *, agent: str, lane: Lane, tasks: dict[int, int], tools: dict[int, Any]
    ):
        self.id = id
        self.job_id = job_id
        self.agent = agent
        self.lane = lane
        self.left = tasks
        """Attempt number of each task that is still unanswered."""
        self.size = len(tasks)
        self.tools = tools
        self.exports = False
        """Its values can be taken by object ref before they are committed here."""
        self.alone = False
        """Nothing else was on the agent while this was."""


class Seat:
    """One agent."""

    __slots__ = ("batch_tasks", "boxed", "name", "open", "reserved", "retiring", "used")

    def __init__(self, name: str):
        self.name = name
        self.open: dict[DispatchId, Dispatch] = {}
        self.used: dict[Lane, int] = {}
        """Open units by lane."""
        self.batch_tasks = 0
        self.retiring = False
        """Gets nothing new, and is replaced when it is idle."""
        self.reserved = False
        """Gets nothing new until it is idle, for a task that must run alone."""
        self.boxed = False
        """Has a task that must run alone."""

    def room(self, lane: Lane) -> bool:
        if self.retiring or self.reserved or self.boxed:
            return False
        used = self.used.get(lane, 0)
        if lane == BATCH:
            return used < BATCH_UNITS or (self.batch_tasks < BATCH_TASKS and used < BATCH_TASKS)
        if lane == "inline" and self.used.get(BATCH, 0):
            return False
        return used < SLOTS[lane]

    def load(self, lane: Lane) -> int:
        return self.batch_tasks if lane == BATCH else self.used.get(lane, 0)

    def add(self, dispatch: Dispatch) -> None:
        self.open[dispatch.id] = dispatch
        self.used[dispatch.lane] = self.used.get(dispatch.lane, 0) + 1
        if dispatch.lane == BATCH:
            self.batch_tasks += dispatch.size

    def remove(self, dispatch: Dispatch) -> None:
        del self.open[dispatch.id]
        self.used[dispatch.lane] -= 1
        if dispatch.lane == BATCH:
            self.batch_tasks -= dispatch.size
        if not self.open:
            self.boxed = False
