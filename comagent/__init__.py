"""ComAgent: the durable actor-model runtime on Ray for DAGs of agents' tasks.

    import comagent

    with comagent.connect() as client:
        job = client.submit("configs/processes/cluster-health.yaml")
        print(job.result(timeout=60))

`connect`, `Client` and `Job` need Ray, whose import takes seconds: they are imported when they are first used. So is
what processes are written with, which the engine's own processes do without.
"""

import importlib
from typing import TYPE_CHECKING, Any

from comagent.errors import (
    ArgumentError,
    BusyError,
    CannotConnectError,
    ComAgentError,
    ConflictError,
    ExpressionError,
    InputError,
    JobFailedError,
    JobTimeoutError,
    Problem,
    ProcessError,
    StaleEpochError,
    StoreError,
    ToolDefinitionError,
    UnknownJobError,
    UnknownToolError,
    ValueNotStorableError,
)
from comagent.tools.base import ToolContext, tool

if TYPE_CHECKING:
    from comagent.builder import Process, Step, process, step
    from comagent.client import Client, Job
    from comagent.embedded import connect

__all__ = [
    "ArgumentError",
    "BusyError",
    "CannotConnectError",
    "Client",
    "ComAgentError",
    "ConflictError",
    "ExpressionError",
    "InputError",
    "Job",
    "JobFailedError",
    "JobTimeoutError",
    "Problem",
    "Process",
    "ProcessError",
    "StaleEpochError",
    "Step",
    "StoreError",
    "ToolContext",
    "ToolDefinitionError",
    "UnknownJobError",
    "UnknownToolError",
    "ValueNotStorableError",
    "connect",
    "process",
    "step",
    "tool",
]

_LATE = {
    **dict.fromkeys(("Client", "Job"), "comagent.client"),
    **dict.fromkeys(("Process", "Step", "process", "step"), "comagent.builder"),
    "connect": "comagent.embedded",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return getattr(importlib.import_module(_LATE[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
