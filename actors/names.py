"""What actors are called, and how they are made: always named and detached, constructed from literals."""

from typing import Any

NAMESPACE = "comagent"

PENDING_CALLS = 50_000
"""Calls that a scheduler or supervisor may have under way: each waiting client holds one."""


def scheduler_name(shard: str, number: int) -> str:
    return f"scheduler/{shard}/{number}"


def supervisor_name(shard: str) -> str:
    return f"supervisor/{shard}"


def agent_prefix(shard: str) -> str:
    return f"agent/{shard}/"


def agent_name(shard: str, number: int) -> str:
    return f"{agent_prefix(shard)}{number}"


def options(name: str, *, max_restarts: int = 0) -> dict[str, Any]:
    """Ray's options for an actor of ours.

    Detached, or it would die with the actor that made it. Nothing but a supervisor restarts by itself: a restarted
    agent would have forgotten its fence and still receive a zombie's calls.
    """
    return {
        "name": name,
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "num_cpus": 0,
        "max_restarts": max_restarts,
        "max_task_retries": 0,
        "max_concurrency": PENDING_CALLS,
        "enable_task_events": False,
    }
