"""What an agent must know to run a task, as a plan encodes it and an agent decodes it."""

import pickle
from functools import lru_cache
from typing import Any, NamedTuple

from comagent.expressions import Reference, Template

RESULT_TOOL = -1
"""Tool number of the implicit last task of a process: its resolved arguments are its value."""

ENTRY = "/inputs"
"""Last part of the path of the task that makes the inputs of a sub-process."""


class Step(NamedTuple):
    """What an agent must know to run a task."""

    tool: int
    arguments: Template
    when: Any
    timeout_s: float | None
    prefix: str = ""
    """What the paths of its process begin with: empty, or that of a sub-process."""


def encode_step(step: Step) -> bytes:
    """A step as bytes. Plain tuples: named ones take three times as long."""
    tool, (constants, plain, rest), when, timeout_s, prefix = step
    flat = [(name, *reference) for name, reference in plain]
    return pickle.dumps((tool, constants, flat, rest, when, timeout_s, prefix), protocol=5)


@lru_cache(maxsize=4096)
def decode_step(blob: bytes) -> Step:
    """The step that was encoded. Plans come from the owner of the job only, never from outside."""
    tool, constants, flat, rest, when, timeout_s, prefix = pickle.loads(blob)
    plain = tuple((name, Reference(root, key, path)) for name, root, key, path in flat)
    return Step(tool, Template(constants, plain, rest), when, timeout_s, prefix)
