"""A plain interpreter of processes: how every task must end, whatever happens to the agents on the way."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from comagent.states import Task
from comagent.steps import ENTRY
from tests.unit.plays import Play

FAILURES = (Task.FAILED, Task.TIMED_OUT)


class Node(NamedTuple):
    """A task, or one of the two between which the tasks of a sub-process lie."""

    path: str
    needs: tuple[str, ...]
    trigger: str
    on_failure: str
    attempts: int
    within: str
    """Path of the sub-process that it belongs to; empty for the process itself."""
    makes: str | None
    """Path of the sub-process whose result it makes."""


def entry_of(within: str) -> str:
    """Path of the task that makes the inputs of a sub-process."""
    return f"{within}/{ENTRY}"


def nodes(document: Mapping[str, Any], within: str = "") -> Iterator[Node]:
    prefix = f"{within}/" if within else ""
    for task in document["tasks"]:
        path = prefix + task["id"]
        needs = tuple(prefix + need for need in task["needs"])
        if within and not needs:
            needs = (entry_of(within),)
        trigger = task.get("trigger", "all_succeeded")
        attempts = task.get("retry", {}).get("attempts", 1)
        if "process" in task:
            yield Node(entry_of(path), needs, trigger, "fail", 1, path, None)
            yield from nodes(task["process"], path)
            yield Node(path, (), "all_done", task["on_failure"], 1, within, path)
        else:
            yield Node(path, needs, trigger, task["on_failure"], attempts, within, None)


class Reference:
    """`spoiled` are attempts that were ended by something else than their tool, and how."""

    def __init__(self, document: Mapping[str, Any], plays: Mapping[str, Play], spoiled: Mapping[tuple[str, int], Task]):
        self.nodes = {node.path: node for node in nodes(document)}
        self.plays = plays
        self.spoiled = spoiled

    def outcomes(self) -> dict[str, Task]:
        """How all tasks end if nothing stops the job."""
        ended: dict[str, Task] = {}
        while len(ended) < len(self.nodes):
            for path, node in self.nodes.items():
                waits_for = node.needs if node.makes is None else [each.path for each in self.members(node.makes)]
                if path not in ended and all(each in ended for each in waits_for):
                    ended[path] = self._end(node, ended)
        return ended

    def _end(self, node: Node, ended: Mapping[str, Task]) -> Task:
        if node.makes is not None and self.fails(node.makes, ended):
            return Task.FAILED
        inside = node.makes or node.within
        if node.path == entry_of(inside):
            inside = self.nodes[inside].within
        if inside and ended[entry_of(inside)] != Task.SUCCEEDED:
            return Task.SKIPPED
        if not self.runs(node, ended):
            return Task.SKIPPED
        for end in self.attempts(node):
            if end not in FAILURES:
                break
        return end

    def members(self, within: str) -> list[Node]:
        """Tasks of a sub-process, those of others in it left out."""
        return [node for node in self.nodes.values() if node.within == within]

    def fails(self, within: str, ended: Mapping[str, Task]) -> bool:
        """Whether a sub-process, or the process itself, fails with these outcomes."""
        return any(ended[node.path] in FAILURES and node.on_failure == "fail" for node in self.members(within))

    def around(self, within: str) -> Iterator[str]:
        """A sub-process and those that it is in, the process itself last."""
        while within:
            yield within
            within = self.nodes[within].within
        yield ""

    def runs(self, node: Node, ended: Mapping[str, Task]) -> bool:
        """Whether a task is tried, once all that it needs has ended."""
        ends = [ended[need] for need in node.needs]
        match node.trigger:
            case "all_succeeded":
                return all(self._passes(self.nodes[need], ended[need]) for need in node.needs)
            case "one_succeeded":
                return Task.SUCCEEDED in ends
            case "one_failed":
                return any(end in FAILURES for end in ends)
            case "none_failed":
                return not any(end in FAILURES for end in ends)
        return True

    def attempts(self, node: Node) -> Iterator[Task]:
        """How the attempts at a task end, one after the other."""
        play = self.plays.get(node.path, Play())
        for attempt in range(1, node.attempts + 1):
            if (node.path, attempt) in self.spoiled:
                yield self.spoiled[node.path, attempt]
            elif not play.when:
                yield Task.SKIPPED
            else:
                yield play.status if attempt <= play.fails else Task.SUCCEEDED

    def _passes(self, node: Node, end: Task) -> bool:
        return end == Task.SUCCEEDED or (end in FAILURES and node.on_failure == "continue")
