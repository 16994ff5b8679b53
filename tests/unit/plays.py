"""Processes for the model of the engine, and what their tools do."""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from comagent.plan import Plan
from comagent.states import Task
from comagent.submission import plan_from

TOOLS: Mapping[str, tuple[str, str]] = {
    "cheap": ("inline", "cheap"),
    "unknown": ("thread", "unknown"),
    "wait": ("async", "unknown"),
    "process": ("process", "costly"),
}
"""Tools of the model by name: kind and declared cost."""

TOLD = "as it was told"
"""What model agents say of attempts that ended as they were meant to."""


class Play(NamedTuple):
    """What a tool does with one task."""

    fails: int = 0
    """How many attempts fail before one succeeds."""
    status: Task = Task.FAILED
    """How they fail."""
    error: str = "ToolError"
    when: bool = True
    took_ms: float = 0.05
    kills: int = 0
    """How many agents it takes with it first."""


FAIL = Play(fails=1_000_000)
SKIP = Play(when=False)
PLAIN: Mapping[str, Play] = {}


def task(id: str, *needs: str, tool: str = "wait", **fields: Any) -> dict[str, Any]:
    """A task of a process document that reads what it needs, unless `reads` says otherwise."""
    reads = fields.pop("reads", needs)
    arguments = {f"v{n}": f'${{tasks["{read}"]}}' for n, read in enumerate(reads)}
    return {"id": id, "tool": tool, "needs": list(needs), "with": arguments, **fields}


def process(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"name": "model", "tasks": list(tasks), **fields}


def plan_of(document: Mapping[str, Any]) -> Plan:
    process_doc, tools_doc = documents(document)
    return plan_from(process_doc, tools_doc, process_hash="model")


def documents(document: Mapping[str, Any]) -> tuple[bytes, bytes]:
    """A process and its tools, as jobs carry them."""
    tools = {name: [kind, cost, "none", [name]] for name, (kind, cost) in TOOLS.items()}
    return json.dumps(document).encode(), json.dumps(tools).encode()


def value_of(path: str) -> bytes:
    """What a task of the model makes: its own path."""
    return json.dumps(path).encode()
