"""A process compiled into arrays: what the engine runs.

A process is compiled once per content hash. Tasks become indices `0 … n-1` in the order of the file; index `n` is the
implicit last task that makes the job's result where the values are. Edges are compressed sparse rows: the needs of task
`i` are `needs[needs_at[i]:needs_at[i + 1]]`. What an agent must know of a task is encoded once, in `steps`, and passed
on as bytes; the engine never looks into it.

All arrays are plain lists: the engine reads them one number at a time, which lists do fastest, and a job that grows
appends to copies of them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from comagent.spec import Retry
from comagent.steps import ENTRY

OUTPUTS = "/outputs"
"""Path of the implicit last task; no id may contain a slash, so it collides with none."""


class ToolUse(NamedTuple):
    """What the engine knows of a tool: everything else is the agents' business."""

    name: str
    kind: str
    cost: str
    effects: str
    code: tuple[Any, ...]


class Policy(NamedTuple):
    """How the engine treats a task; shared by all tasks that are treated alike."""

    tool: int
    trigger: str
    on_failure: str
    retry: Retry
    timeout_s: float | None
    cost: str | None


class Group(NamedTuple):
    """The tasks of the process, or of one sub-process in it."""

    result: int
    """The task that makes the result."""
    entry: int | None
    """The task that makes the inputs; the process itself has none."""
    first: int
    last: int
    """The tasks in it, those of sub-processes in it included: `first … last - 1`."""
    size: int
    """How many tasks are its own: not those of sub-processes in it, and not its result."""


@dataclass(slots=True)
class Plan:
    """A compiled process. Treat it as immutable: it is shared by all jobs of the process."""

    process_hash: str
    name: str
    ids: list[str]
    """Paths of the tasks; the last one is `OUTPUTS`."""
    needs_at: list[int]
    needs: list[int]
    feeds_at: list[int]
    feeds: list[int]
    """The edges the other way: who needs this task."""
    uses_at: list[int]
    uses: list[int]
    """Whose value, status or error a task reads: a part of what it needs, or further upstream."""
    readers: list[int]
    """How many tasks read a task's value (the implicit last one included)."""
    policy: list[int]
    policies: list[Policy]
    plain: bytearray
    """1 where the trigger is `all_succeeded`."""
    steps: list[bytes]
    """For each task its `Step`, pickled; equal steps are the same object."""
    reads_ends: bytearray
    """1 where a task reads the status or the error of another."""
    tools: list[ToolUse]
    group: list[int]
    """The group of each task."""
    groups: list[Group]
    """The first is the process itself; a group comes after the one that it is in."""
    results: dict[int, int]
    """The group of each task that makes a result. Such a task needs nothing, and waits for all of its group."""
    timeout_s: float | None
    index: dict[str, int] = field(repr=False)

    def __len__(self) -> int:
        """Number of tasks, the implicit last one not counted."""
        return len(self.ids) - 1

    def needs_of(self, task: int) -> list[int]:
        return self.needs[self.needs_at[task] : self.needs_at[task + 1]]

    def feeds_of(self, task: int) -> list[int]:
        return self.feeds[self.feeds_at[task] : self.feeds_at[task + 1]]

    def uses_of(self, task: int) -> list[int]:
        return self.uses[self.uses_at[task] : self.uses_at[task + 1]]


def paths_of(document: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The paths of a process' tasks in the order of their indices, without `OUTPUTS`, from its canonical document."""
    for task in document["tasks"]:
        path = prefix + task["id"]
        if "process" in task:
            yield f"{path}/{ENTRY}"
            yield from paths_of(task["process"], f"{path}/")
        yield path
