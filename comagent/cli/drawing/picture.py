"""What a picture of a process shows: boxes, what each one needs, and boxes within boxes for its sub-processes."""

from collections.abc import Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from typing import NamedTuple

from comagent.plan import Plan
from comagent.spec import Process, Task
from comagent.steps import ENTRY


class Box(NamedTuple):
    """A task, or a sub-process."""

    path: str
    name: str
    about: str
    """Its tool."""
    notes: tuple[str, ...]
    """What is unusual about when it runs, and what its failure means."""
    conditional: bool
    needs: tuple[int, ...]
    """Positions of boxes in the same picture."""
    status: str | None
    """None where no job is shown."""
    inner: "Picture | None"
    """The tasks of a sub-process."""


class Picture(NamedTuple):
    """A process, or a sub-process: its boxes in the order of the file."""

    title: str
    boxes: tuple[Box, ...]

    @property
    def tasks(self) -> int:
        """How many tasks there are, those in sub-processes included."""
        return sum(1 if box.inner is None else box.inner.tasks for box in self.boxes)

    @property
    def edges(self) -> Iterator[tuple[int, int]]:
        """(what is needed, who needs it)"""
        return ((need, position) for position, box in enumerate(self.boxes) for need in box.needs)


class Style(NamedTuple):
    """How a box with some status looks."""

    fill: str
    line: str


STYLES = {
    **dict.fromkeys(("succeeded",), Style("#d9f2e0", "#1f7a3d")),
    **dict.fromkeys(("failed", "timed_out", "uncertain"), Style("#fbdcd9", "#b3261e")),
    **dict.fromkeys(("running", "waiting", "ready"), Style("#fdf0c8", "#8a6100")),
    **dict.fromkeys(("retrying", "cancelled"), Style("#f0e1f7", "#7b3f98")),
    **dict.fromkeys(("pending", "skipped"), Style("#eeeeee", "#777777")),
}
"""By status of a task."""


def picture(process: Process, plan: Plan, *, statuses: Mapping[str, str] | None = None) -> Picture:
    """The picture of a process; with the `statuses` of a job's tasks by path, of that job."""
    return _picture(process, plan, statuses, "")


def layers(boxes: Sequence[Box]) -> list[list[int]]:
    """Positions of boxes: first those that need nothing, then those that need only these, and so on."""
    depth = [0] * len(boxes)
    for position in TopologicalSorter({position: box.needs for position, box in enumerate(boxes)}).static_order():
        depth[position] = max((depth[need] + 1 for need in boxes[position].needs), default=0)
    found: list[list[int]] = [[] for _ in range(max(depth) + 1)]
    for position, layer in enumerate(depth):
        found[layer].append(position)
    return found


def _picture(process: Process, plan: Plan, statuses: Mapping[str, str] | None, prefix: str) -> Picture:
    positions = {plan.index[prefix + task.id]: position for position, task in enumerate(process.tasks)}
    boxes = []
    for task in process.tasks:
        path = prefix + task.id
        entry = f"{path}/{ENTRY}"
        number = plan.index[path if task.process is None else entry]
        # Whatever else is needed is the entry of the sub-process that the task is in: that is the box around it.
        needs = tuple(sorted(positions[need] for need in plan.needs_of(number) if need in positions))
        inner = None if task.process is None else _picture(task.process, plan, statuses, f"{path}/")
        status = None
        if statuses is not None:
            status = statuses.get(path) or ("running" if statuses.get(entry) == "succeeded" else "pending")
        about = task.tool or (inner.title if inner is not None else "")
        boxes.append(Box(path, task.id, about, _notes(task), task.when is not None, needs, status, inner))
    return Picture(process.name, tuple(boxes))


def _notes(task: Task) -> tuple[str, ...]:
    notes = []
    if task.when is not None:
        notes.append(f"if {task.when}")
    if task.trigger != "all_succeeded":
        notes.append(f"when {task.trigger.replace('_', ' ')}")
    if task.on_failure != "fail":
        notes.append(f"if it fails: {task.on_failure}")
    return tuple(notes)
